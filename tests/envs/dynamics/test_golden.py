"""Inside the environment is outside it: what a head did in the engine, done by an environment."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from latentgym.episodes.protocol import Phase
from latentgym.heads import (
    GatedHead,
    GaussianHead,
    HiddenStateHead,
    MixtureHead,
    MultiTokenHead,
    PolicyHead,
    Readout,
    TokenHead,
)
from latentgym.registry import make_vector_env
from latentgym.rollout import Engine, Episodes, Policy, StepKind, collect
from latentgym.wrappers import LatentDynamics

# Episodes in bytes that end in many ways: by a marker, by end-of-sequence, by budgets.
RAGGED = {"source": "sample", "think": 7, "answer": 5, "force_answer": True}
SEARCH = {
    "source": "sample",
    "search": "action",
    "engine": "bm25s",
    "passages": 1,
    "passage_tokens": 40,
    "turns": 1,
    "think": 150,
    "system": "",
}
ROWS = 6

HEADS: dict[str, Callable[[], PolicyHead]] = {
    "token": TokenHead,
    "mixture": lambda: MixtureHead(top_k=5, temperature=1.5),
    "samples": lambda: MultiTokenHead(3),
    "gate": lambda: GatedHead(32, TokenHead(), r_min=0.2, r_max=0.6),
    "gaussian": lambda: GaussianHead(32, 16),
    "hidden state": HiddenStateHead,
}


def native(head: PolicyHead, thought: dict[str, torch.Tensor], table_VD: torch.Tensor) -> Any:
    """A head's thoughts as actions of its family's own space."""
    token = thought["token"].numpy()
    if head.family == "token":
        return token
    if head.family == "continuous":
        ids = thought["ids"]
        weights = thought.get("weights", torch.full(ids.shape, 1 / ids.shape[-1]))
        return {"ids": ids.numpy(), "weights": weights.numpy()}
    if isinstance(head, GatedHead):
        a, i = head._gates(torch.nn.functional.embedding(thought["token"], table_VD))
        return {"token": token, "latent": (i * thought["soft"]).numpy(), "gate": a.numpy()}
    latent = head.embed(thought, table_VD).numpy()
    return {"token": token, "latent": latent, "gate": np.zeros_like(latent)}


def actions(
    policy: Policy, episodes: Episodes, family: Any, support: int
) -> Iterator[tuple[Any, Any, Any]]:
    """The own actions of all rows, one of each at a time: native, as stored, and their kinds."""
    rollouts, table_VD = episodes.rollouts, policy.lm.table_VD.detach()
    own = [
        np.flatnonzero(np.isin(kinds, (StepKind.THOUGHT, StepKind.TOKEN)))
        for kinds in rollouts.kind_NT
    ]
    rows = np.arange(len(rollouts))
    for t in range(max(map(len, own))):
        at = np.array([steps[min(t, len(steps) - 1)] for steps in own])
        kind_N, token_N = rollouts.kind_NT[rows, at], rollouts.token_NT[rows, at]
        stored = {
            name: value[torch.from_numpy(rows), torch.from_numpy(at)]
            for name, value in rollouts.actions.items()
        }
        stored["token"] = torch.from_numpy(token_N)
        plain = family.speak(token_N, policy.lm.hidden_size, support)
        thought = native(policy.head, stored, table_VD) if len(stored) > 1 else plain
        thinks = kind_N == StepKind.THOUGHT
        if isinstance(plain, dict):
            acted = {k: _where(thinks, thought[k], plain[k]) for k in plain}
        else:
            acted = np.where(thinks, thought, plain)
        kind_N = np.where([t < len(steps) for steps in own], kind_N, StepKind.PAD)
        logp_N = rollouts.logp_NT[torch.from_numpy(rows), torch.from_numpy(at)]
        yield acted, (stored, kind_N), logp_N


def _where(thinks: Any, thought: Any, plain: Any) -> Any:
    return np.where(thinks.reshape(-1, *[1] * (plain.ndim - 1)), thought, plain)


def log_probs(policy: Policy, env: Any, stored: Any, kind_N: Any) -> torch.Tensor:
    """How likely the next actions are from where the rows of an environment stand."""
    hidden_ND = env._decoder.hidden_ND
    read = Readout(policy.lm.logits(hidden_ND), hidden_ND, policy.lm.table_VD)
    plain = policy.answer_head.log_prob({"token": stored["token"]}, read)
    thought = policy.head.log_prob(stored, read)
    return torch.where(torch.from_numpy(kind_N == StepKind.THOUGHT), thought, plain)


@pytest.mark.parametrize(
    "arch", ["llama", *(pytest.param(a, marks=pytest.mark.thorough) for a in ("gpt2", "qwen2"))]
)
@pytest.mark.parametrize("name", HEADS)
@torch.no_grad()
def test_the_same_actions_are_the_same_episodes(
    name: str, arch: str, random_lm: Callable[..., Any]
) -> None:
    head, lm = HEADS[name](), random_lm(arch)
    policy = Policy(lm, head)
    support = 3 if name == "samples" else 5
    env = make_vector_env(f"latent/GSM8K-{head.family}", ROWS, support=support, **RAGGED).unwrapped
    engine = Engine(policy, record_log_probs=True)
    episodes = collect(engine, env, range(ROWS), seed=1)
    inside = LatentDynamics(env, lm, interface="native", answered_by="agent")
    inside.reset(options={"index": np.arange(ROWS)})
    rewards, checked = np.zeros(ROWS), set()
    for acted, (stored, kind_N), logp_N in actions(policy, episodes, env.family, support):
        live = kind_N != StepKind.PAD
        assert (~inside.episodes.state.done == live).all()
        checked |= set(kind_N.tolist())
        found_N = log_probs(policy, inside, stored, kind_N)
        assert_close(found_N[live], logp_N[live], rtol=1e-4, atol=1e-4)
        _, gained, _, _, _ = inside.step(acted)
        rewards += gained
    assert inside.episodes.state.done.all() and checked >= {StepKind.THOUGHT, StepKind.TOKEN}
    assert rewards.tolist() == episodes.reward_N.tolist()
    for row, info in enumerate(episodes.infos):
        final = inside.episodes.final(row)
        assert {k: final[k] for k in info if k in final} == info


@torch.no_grad()
def test_what_the_environment_inserts_is_read(random_lm: Callable[..., Any]) -> None:
    # Searches of two questions: responses of unequal length, at different steps.
    lm = random_lm("llama")
    env = make_vector_env("latent/NQ-token", 2, **SEARCH).unwrapped
    inside = LatentDynamics(env, lm, interface="native", answered_by="agent")
    inside.reset(options={"index": [0, 1]})
    shown = [env.task.demonstration(row) for row in range(2)]
    own = [
        d.ids_TS[:, 0][~d.inserted_T if d.inserted_T is not None else slice(None)] for d in shown
    ]
    said = [[ord("m")] * row + own[row].tolist() for row in range(2)]
    read = [inside.episodes.prompt(row) for row in range(2)]
    calls = 0
    for t in range(min(map(len, said)) - 1):  # none of them is over
        inside.step(np.array([tokens[t] for tokens in said]))
        for row in range(2):
            inserted = inside.episodes.inserted(row)
            read[row] += [said[row][t], *inserted]
            calls += bool(inserted)
    assert calls >= 2
    for row, ids in enumerate(read):
        with lm.decoding():
            tokens = torch.tensor([ids])
            mask = torch.ones_like(tokens, dtype=torch.bool)
            hidden_D = lm.hidden(lm.embed(tokens), mask)[0, -1]
        assert_close(inside._decoder.hidden_ND[row], hidden_D, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["mixture", "gate"])
@torch.no_grad()
def test_the_model_answers_as_the_engine_does(name: str, random_lm: Callable[..., Any]) -> None:
    head, lm = HEADS[name](), random_lm("llama")
    policy = Policy(lm, head, TokenHead(temperature=0.0))
    env = make_vector_env(f"latent/GSM8K-{head.family}", ROWS, support=5, **RAGGED).unwrapped
    engine = Engine(policy, record_log_probs=True)
    episodes = collect(engine, env, range(ROWS), seed=1)
    inside = LatentDynamics(env, lm, interface="native")
    inside.reset(options={"index": np.arange(ROWS)})
    for acted, _, _ in actions(policy, episodes, env.family, 5):
        thinking = inside.episodes.state.phase == Phase.THINK
        if not thinking.any():
            break
        inside.step(acted)
        assert not (inside.episodes.state.phase == Phase.ANSWER).any()
    for row, info in enumerate(episodes.infos):
        assert inside.episodes.final(row)["answer"] == info["answer"]
