"""Heads that keep a state, choose plain tokens, and have several ratios: exact in every way."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from latentgym.agents.answering import make_answer
from latentgym.episodes.protocol import Budget, Protocol, StopMatcher
from latentgym.errors import UsageError
from latentgym.heads import (
    Action,
    ControlHead,
    HiddenStateHead,
    MixtureHead,
    MultiTokenHead,
    PolicyHead,
    Readout,
    TokenHead,
)
from latentgym.heads.base import State
from latentgym.heads.distributions import gather_log_prob
from latentgym.heads.rng import CounterRNG
from latentgym.heads.superposition import mix
from latentgym.lm import load_model
from latentgym.registry import make_vector_env
from latentgym.rollout import Engine, Policy, Rollouts, StepKind, collect, replay
from latentgym.rollout.thoughts import thought_steps
from latentgym.training import GRPO, GRPOConfig
from latentgym.training.step_metrics import episode_metrics

WIDTH = 32


class Router(PolicyHead):
    """Draws whether a sampled token or the mixture of three is read; it tires of mixtures.

    Its state is the number of thoughts so far, on which the chance of a mixture hangs. The token is
    a part only where it is read.
    """

    family = "continuous"
    part_weights = (1.0, 0.1)

    def __init__(self) -> None:
        super().__init__()
        self.router = nn.Linear(WIDTH, 1)

    def initial_state(self, rows: int, device: torch.device) -> State:
        return {"thoughts": torch.zeros(rows, dtype=torch.int64, device=device)}

    def sample(self, read: Readout, rng: CounterRNG) -> Action:
        thoughts = read.state["thoughts"]
        uniform = rng.uniform(1, stream=3)[:, 0]
        soft = uniform < self._soft(thoughts, read.hidden).sigmoid()
        top, ids = read.logits.topk(3)
        token = TokenHead().sample(read, rng)["token"]
        return {
            "token": torch.where(soft, ids[..., 0], token),
            "plain": ~soft,
            "ids": ids,
            "weights": top.softmax(-1),
            "at": thoughts,
            "thoughts": thoughts + 1,
        }

    def embed(self, action: Action, table_VD: Tensor) -> Tensor:
        return mix(action["ids"], action["weights"], table_VD)

    def drawn(self, action: Action) -> Tensor:
        return torch.stack([action["plain"], torch.ones_like(action["plain"])], dim=-1)

    def log_prob(self, action: Action, read: Readout) -> Tensor:
        token = gather_log_prob(read.logits, action["token"].unsqueeze(-1))[..., 0]
        soft = self._soft(action["at"], read.hidden)
        mode = nn.functional.logsigmoid(torch.where(action["plain"], -soft, soft))
        return torch.stack([token, mode], dim=-1)

    def _soft(self, thoughts: Tensor, hidden: Tensor) -> Tensor:
        return self.router(hidden)[..., 0] + 1 - 0.3 * thoughts


class SubTokens(MultiTokenHead):
    """Multi-token sampling with a ratio for each of the K tokens."""

    def __init__(self, k: int) -> None:
        super().__init__(k)
        self.part_weights = (1 / k,) * k

    def log_prob(self, action: Action, read: Readout) -> Tensor:
        return gather_log_prob(read.logits, action["ids"])


HEADS: dict[str, Callable[[], PolicyHead]] = {"router": Router, "sub-tokens": lambda: SubTokens(3)}


def rolled_out(policy: Policy, prompts: Any, protocol: Protocol, **settings: Any) -> Rollouts:
    engine = Engine(policy, record_log_probs=True, **settings)
    return engine.rollout(prompts, protocol, seed=3, group_size=3)


@pytest.mark.parametrize("arch", ["llama", "gpt2", "qwen2"])
@pytest.mark.parametrize("name", HEADS)
def test_replay_agrees_with_decoding(
    name: str, arch: str, random_lm: Callable, prompts: Any, protocol: Protocol
) -> None:
    policy = Policy(random_lm(arch), HEADS[name]())
    rollouts = rolled_out(policy, prompts, protocol)
    if name == "router":
        assert {StepKind.THOUGHT, StepKind.PLAIN, StepKind.TOKEN} <= {*rollouts.kind_NT.flat}
    scores = replay(policy, rollouts)
    assert rollouts.logp_NT is not None
    assert scores.logp_NT.shape == (*rollouts.kind_NT.shape, len(policy.head.part_weights))
    expected = torch.where(scores.action_NT, rollouts.logp_NT, 0.0)
    assert_close(scores.joint(scores.logp_NT), expected, rtol=1e-4, atol=1e-4)
    token_NT = torch.from_numpy(rollouts.kind_NT == StepKind.TOKEN)
    assert (scores.part_NT[token_NT].sum(-1) == 1).all()  # plain answers are one part, of weight 1
    assert (scores.weight_NT[token_NT][..., 0] == 1).all()
    scores.joint(scores.logp_NT).sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in policy.head.parameters())
    policy.zero_grad(set_to_none=True)


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("settings", [{"compact_every": 1}, {"share_prompts": False}])
def test_compaction_and_sharing_change_nothing(
    name: str, settings: Any, random_lm: Callable, prompts: Any, protocol: Protocol
) -> None:
    policy = Policy(random_lm("llama"), HEADS[name]())
    plain = rolled_out(policy, prompts, protocol, compact_every=0)
    other = rolled_out(policy, prompts, protocol, **settings)
    assert np.array_equal(plain.token_NT, other.token_NT)
    assert np.array_equal(plain.kind_NT, other.kind_NT)
    assert plain.actions.keys() == other.actions.keys() and "thoughts" not in plain.actions
    for key, value in plain.actions.items():
        assert_close(value, other.actions[key], rtol=1e-4, atol=1e-5)


def test_a_state_counts_the_own_thoughts_of_each_row(random_lm: Callable, prompts: Any) -> None:
    """Rows end and wait at different steps, and go on after what is inserted."""
    called = StopMatcher("!", ["!" if i % 5 == 0 else "a" for i in range(259)])
    ended = StopMatcher("#", ["#" if i % 40 == 1 else "a" for i in range(259)])
    rules = Protocol(Budget(14), Budget(2), marker=ended, tool_call=called, max_tool_calls=3)
    policy = Policy(random_lm("gpt2"), Router())
    session = Engine(policy, compact_every=2).start(prompts, rules, seed=1, group_size=3)
    session.run()
    assert session.waiting.size
    while session.waiting.size:
        session.insert(session.waiting, [[65] * (1 + row % 3) for row in session.waiting])
        session.run()
    rollouts = session.finish()
    own_NT = np.isin(rollouts.kind_NT, (StepKind.THOUGHT, StepKind.PLAIN))
    counted = np.where(own_NT, own_NT.cumsum(1) - 1, 0)
    found = np.where(own_NT, rollouts.actions["at"].numpy(), 0)
    assert np.array_equal(found, counted) and len(set(rollouts.length_N.tolist())) > 1


def test_a_head_that_always_chooses_tokens_is_the_token_head(
    random_lm: Callable, prompts: Any, protocol: Protocol
) -> None:
    shut = Router()
    nn.init.constant_(shut.router.bias, -torch.inf)
    lm = random_lm("llama")
    tokens = rolled_out(Policy(lm, TokenHead()), prompts, protocol)
    rollouts = rolled_out(Policy(lm, shut), prompts, protocol)
    assert np.array_equal(tokens.token_NT, rollouts.token_NT)
    assert not (rollouts.kind_NT == StepKind.THOUGHT).any()
    assert_close(rollouts.logp_NT, tokens.logp_NT)


@pytest.mark.parametrize("control", ["zero", "word", "noise"])
def test_a_control_replaces_latents_and_leaves_choices(
    control: str, random_lm: Callable, prompts: Any, protocol: Protocol
) -> None:
    lm, head = random_lm("llama"), Router()
    plain = rolled_out(Policy(lm, head), prompts, protocol)
    policy = Policy(lm, ControlHead(head, control))
    rollouts = rolled_out(policy, prompts, protocol)
    first = np.isin(plain.kind_NT, (StepKind.THOUGHT, StepKind.PLAIN)).argmax(1)
    rows = np.arange(len(plain))
    assert np.array_equal(plain.kind_NT[rows, first], rollouts.kind_NT[rows, first])
    assert {StepKind.THOUGHT, StepKind.PLAIN} <= {*rollouts.kind_NT.flat}
    scores = replay(policy, rollouts)
    assert not (scores.action_NT & scores.thought_NT).any()
    assert rollouts.logp_NT is not None
    expected = torch.where(scores.action_NT, rollouts.logp_NT, 0.0)
    assert_close(scores.joint(scores.logp_NT), expected, rtol=1e-4, atol=1e-4)


def test_plain_tokens_are_no_latents_wherever_these_are_counted() -> None:
    env = make_vector_env("latent/MNNS-continuous", 6)
    lm = load_model("tiny:gpt2:2x2x32", tokenizer=env.unwrapped.task.tokenizer)
    policy = Policy(lm, Router(), TokenHead())
    episodes = collect(Engine(policy, keep_thoughts=5), env, range(6), seed=0)
    rollouts = episodes.rollouts
    plain, thoughts = int(rollouts.plain_N.sum()), int(rollouts.thoughts_N.sum())
    assert 0 < plain < thoughts == 18
    told = episode_metrics(episodes, in_tokens=False, seconds=1.0)
    assert told["rollout/latent_share"] == pytest.approx((thoughts - plain) / (thoughts + 6))
    answer = make_answer(env.unwrapped.task, 0, episodes, np.arange(6), 0)
    assert (answer.positions.thought, answer.positions.plain) == (thoughts - plain, plain)
    steps = thought_steps(policy, rollouts, 5)
    kinds = [kind for kinds in rollouts.kind_NT for kind in kinds if kind != StepKind.TOKEN]
    for kind, step in zip(kinds, (step for row in steps for step in row), strict=True):
        assert (kind == StepKind.PLAIN) == (step["weights"] == [1.0])


def test_parts_with_equal_weights_move_a_policy_as_their_mean_does() -> None:
    """While no ratio has moved, K clipped parts of weight 1 / K are the gradient of their mean."""
    env = make_vector_env("latent/MNNS-continuous", 32)
    lm = load_model("tiny:gpt2:1x2x16", tokenizer=env.unwrapped.task.tokenizer)
    weights = []
    for head in (SubTokens(3), MultiTokenHead(3)):
        policy = Policy(copy.deepcopy(lm), head, TokenHead())
        grpo = GRPO(policy, env, GRPOConfig(prompts=8, group_size=4, micro_batch=16), seed=0)
        optimizer = torch.optim.SGD(policy.parameters(), lr=1.0)

        def update(losses: Any, optimizer: Any = optimizer) -> float:
            for loss in losses:
                loss.backward()
            optimizer.step()
            return 1.0

        told = grpo.step(0, update)
        assert told["train/ratio"] == pytest.approx(1.0)
        weights.append([p.detach().clone() for p in policy.parameters()])
    for one, other in zip(*weights, strict=True):
        assert_close(one, other, rtol=1e-4, atol=1e-6)
    assert any(not torch.equal(w, p) for w, p in zip(weights[0], lm.parameters(), strict=True))


@pytest.mark.parametrize("head", [HiddenStateHead, MixtureHead])
def test_thoughts_without_randomness_are_no_actions(
    head: Any, random_lm: Callable, prompts: Any, protocol: Protocol
) -> None:
    policy = Policy(random_lm("llama"), head())
    rollouts = rolled_out(policy, prompts, protocol)
    scores = replay(policy, rollouts)
    assert np.array_equal(scores.action_NT.numpy(), rollouts.kind_NT == StepKind.TOKEN)
    assert scores.thought_NT.any()


def test_a_state_that_is_not_returned_is_told(random_lm: Callable, prompts: Any) -> None:
    class Forgets(TokenHead):
        def initial_state(self, rows: int, device: torch.device) -> State:
            return {"seen": torch.zeros(rows)}

    rules = replace(Protocol(Budget(2), Budget(1)))
    with pytest.raises(UsageError, match="Forgets keeps seen as its state; return it"):
        Engine(Policy(random_lm("llama"), Forgets())).rollout(prompts, rules, seed=0)
