"""The heart of trust: what a parallel pass says of a rollout is what was sampled step by step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from benchmarks.models import loaded
from latentgym.episodes.protocol import Budget, Protocol
from latentgym.heads import (
    GatedHead,
    HiddenStateHead,
    MixtureHead,
    MultiTokenHead,
    PolicyHead,
    TokenHead,
)
from latentgym.heads.distributions import entropy
from latentgym.lm import LatentLM
from latentgym.rollout import Engine, Policy, Rollouts, StepKind, replay
from latentgym.rollout.replay import micro_batches


def rolled_out(policy: Policy, prompts: list[list[int]], protocol: Protocol) -> Rollouts:
    engine = Engine(policy, record_log_probs=True)
    return engine.rollout(prompts, protocol, seed=3, group_size=3)


@pytest.mark.parametrize("arch", ["llama", "gpt2", "qwen2", "op"])
def test_replay_agrees_with_decoding(
    arch: str, head: PolicyHead, random_lm: Callable, prompts: Any, protocol: Protocol
) -> None:
    policy = Policy(random_lm(arch), head)
    rollouts = rolled_out(policy, prompts, protocol)
    kinds = set(np.unique(rollouts.kind_NT).tolist())
    assert kinds >= {
        StepKind.PAD,
        StepKind.THOUGHT,
        StepKind.TOKEN,
    }  # rows of unequal length, both phases
    with torch.no_grad():
        scores = replay(policy, rollouts)
    assert rollouts.logp_NT is not None
    expected = torch.where(scores.action_NT, rollouts.logp_NT, 0.0)
    assert_close(scores.joint(scores.logp_NT), expected, rtol=1e-4, atol=1e-4)
    chosen = np.isin(rollouts.kind_NT, (StepKind.THOUGHT, StepKind.PLAIN))
    assert torch.equal(scores.thought_NT, torch.from_numpy(chosen))
    inserted = torch.from_numpy(np.isin(rollouts.kind_NT, (StepKind.INSERTED, StepKind.PAD)))
    assert not scores.action_NT[inserted].any() and not scores.logp_NT[inserted].any()


@pytest.mark.parametrize("arch", ["gemma2", "gemma3_text"])
@pytest.mark.parametrize("name", ["token", "mts", "mixture", "gated", "hidden"])
def test_replay_agrees_where_embeddings_are_scaled_and_windows_slide(
    arch: str, name: str, prompts: Any, protocol: Protocol
) -> None:
    lm = loaded(arch)
    assert isinstance(lm, LatentLM)
    torch.manual_seed(0)
    heads: dict[str, PolicyHead] = {
        "token": TokenHead(),
        "mts": MultiTokenHead(3),
        "mixture": MixtureHead(),
        "gated": GatedHead(lm.hidden_size, TokenHead(), r_min=0.5),
        "hidden": HiddenStateHead(),
    }
    policy = Policy(lm, heads[name])
    rollouts = rolled_out(policy, prompts, protocol)
    scores = replay(policy, rollouts)
    assert rollouts.logp_NT is not None
    expected = torch.where(scores.action_NT, rollouts.logp_NT, 0.0)
    assert_close(scores.logp_NT, expected, rtol=1e-4, atol=1e-4)
    scores.logp_NT.sum().backward()
    gradient = lm.model.get_input_embeddings().weight.grad
    lm.zero_grad(set_to_none=True)
    assert gradient is not None and gradient.any()


def test_replay_in_chunks_is_replay_at_once(
    random_lm: Callable, prompts: Any, protocol: Protocol, monkeypatch: pytest.MonkeyPatch
) -> None:

    policy = Policy(random_lm("llama"), MultiTokenHead(3))
    rollouts = rolled_out(policy, prompts, protocol)

    def scored() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        policy.zero_grad()
        scores = replay(policy, rollouts)
        scores.logp_NT.sum().backward()
        gradient = policy.lm.table_VD.grad
        assert gradient is not None
        return scores.logp_NT.detach(), scores.entropy_NT, gradient.clone()

    whole = scored()
    monkeypatch.setattr("latentgym.lm.model.MOST_LOGITS", 259 * 7)
    chunked = scored()
    policy.zero_grad(set_to_none=True)
    for one, other in zip(whole, chunked, strict=True):
        assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_gradients_reach_the_model_and_the_head(
    head: PolicyHead, random_lm: Callable, prompts: Any, protocol: Protocol
) -> None:
    policy = Policy(random_lm("llama"), head)
    scores = replay(policy, rolled_out(policy, prompts, protocol))
    scores.logp_NT[scores.action_NT].sum().backward()
    gradients = [p.grad for p in policy.parameters() if p.requires_grad]
    policy.zero_grad(set_to_none=True)
    assert all(g is not None and g.isfinite().all() and g.any() for g in gradients)


def test_stored_latents_count_where_a_thought_is_and_nowhere_else(
    random_lm: Callable, prompts: Any, protocol: Protocol
) -> None:
    policy = Policy(random_lm("llama"), HiddenStateHead())
    rollouts = rolled_out(policy, prompts, protocol)
    thought_NT = torch.from_numpy(rollouts.kind_NT == StepKind.THOUGHT)
    with torch.no_grad():
        expected = replay(policy, rollouts).logp_NT
        latent = rollouts.actions["latent"]
        elsewhere = torch.where(thought_NT[..., None], latent, latent.new_tensor(torch.nan))
        assert torch.equal(
            replay(policy, replace(rollouts, actions={"latent": elsewhere})).logp_NT, expected
        )
        changed = replace(rollouts, actions={"latent": latent.roll(1, dims=0)})
        assert not torch.allclose(replay(policy, changed).logp_NT, expected, atol=1e-3)


def test_entropy_is_told(random_lm: Callable, prompts: Any, protocol: Protocol) -> None:
    lm = random_lm("gpt2")
    for head in (TokenHead(), MultiTokenHead(4)):
        policy = Policy(lm, head)
        with torch.no_grad():
            scores = replay(policy, rolled_out(policy, prompts, protocol))
        entropies = scores.entropy_NT[scores.action_NT]
        assert entropies.min() >= 0 and entropies.max() <= np.log(259)


def test_entropy_in_closed_form() -> None:
    p = torch.tensor([[0.5, 0.25, 0.25, 0.0], [1.0, 0.0, 0.0, 0.0], [0.25] * 4])
    expected = torch.tensor([1.5, 0.0, 2.0]) * np.log(2)
    assert_close(entropy(p.log()), expected.float())


def test_an_answer_without_thoughts_is_replayed(random_lm: Callable, prompts: Any) -> None:
    policy = Policy(random_lm("llama"), MultiTokenHead(2))
    rollouts = rolled_out(policy, prompts, Protocol(think=Budget(0), answer=Budget(3)))
    with torch.no_grad():
        scores = replay(policy, rollouts)
    assert rollouts.actions == {} and not scores.thought_NT.any()
    assert_close(scores.logp_NT, rollouts.logp_NT, rtol=1e-4, atol=1e-4)


def test_micro_batches_cover_the_rows_in_order(
    random_lm: Callable, prompts: Any, protocol: Protocol
) -> None:
    rollouts = rolled_out(Policy(random_lm("llama"), TokenHead()), prompts, protocol)
    batches = micro_batches(rollouts.positions_N, 5)
    assert [len(b) for b in batches] == [5, 5, 2]
    assert np.concatenate(batches).tolist() == list(range(12))


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=30), st.integers(1, 6), st.integers(0, 100)
)
def test_micro_batches_hold_all_rows_in_order_within_their_bounds(
    lengths: list[int], rows: int, tokens: int
) -> None:
    parts = micro_batches(np.array(lengths), rows, tokens)
    assert np.concatenate(parts).tolist() == list(range(len(lengths)))
    for part in parts:
        size = len(part) * max(lengths[place] for place in part)
        assert len(part) <= rows and (not tokens or size <= tokens or len(part) == 1)
    for one, other in pairwise(parts):  # none could have taken the next row too
        wide = max(lengths[place] for place in [*one, other[0]]) * (len(one) + 1)
        assert len(one) == rows or (tokens and wide > tokens)
