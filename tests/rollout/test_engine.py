"""The fast paths of the engine change nothing, and its record is what happened."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace as changed
from typing import Any

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from latentgym.episodes.protocol import Budget, Protocol
from latentgym.errors import UsageError
from latentgym.heads import MultiTokenHead, PolicyHead, TokenHead
from latentgym.rollout import Engine, Policy, Rollouts, StepKind, replay

G = 3


def same(one: Rollouts, other: Rollouts) -> None:
    """The same episodes: equal tokens, and thoughts equal up to rounding."""
    assert one.token_NT.tolist() == other.token_NT.tolist()
    assert one.kind_NT.tolist() == other.kind_NT.tolist()
    assert one.terminated_N.tolist() == other.terminated_N.tolist()
    assert one.truncated_N.tolist() == other.truncated_N.tolist()
    assert one.actions.keys() == other.actions.keys()
    for name, value in one.actions.items():
        assert_close(value, other.actions[name], rtol=1e-3, atol=1e-4)
    assert one.logp_NT is not None and other.logp_NT is not None
    assert_close(one.logp_NT, other.logp_NT, rtol=1e-3, atol=1e-4)


@pytest.fixture
def engine(head: PolicyHead, random_lm: Callable) -> Engine:
    return Engine(Policy(random_lm("llama"), head), record_log_probs=True)


def test_shared_prompts_are_repeated_prompts(
    engine: Engine, prompts: Any, protocol: Protocol
) -> None:
    shared = engine.rollout(prompts, protocol, seed=1, group_size=G)
    repeated = changed(engine, share_prompts=False)
    same(shared, repeated.rollout(prompts, protocol, seed=1, group_size=G))


@pytest.mark.parametrize("every", [1, 5])
def test_compaction_changes_nothing(
    every: int, engine: Engine, prompts: Any, protocol: Protocol
) -> None:
    plain = changed(engine, compact_every=0).rollout(prompts, protocol, seed=1, group_size=G)
    compacted = changed(engine, compact_every=every)
    found = compacted.rollout(prompts, protocol, seed=1, group_size=G)
    same(plain, found)
    assert found.discarded < plain.discarded


@pytest.mark.parametrize("every", [3, pytest.param(64, marks=pytest.mark.thorough)])
def test_looking_seldom_changes_nothing(
    every: int, engine: Engine, prompts: Any, protocol: Protocol
) -> None:
    plain = engine.rollout(prompts, protocol, seed=1, group_size=G)
    seldom = changed(engine, look_every=every).rollout(prompts, protocol, seed=1, group_size=G)
    same(plain, seldom)


def test_rows_alone_are_rows_together(engine: Engine, prompts: Any, protocol: Protocol) -> None:
    together = engine.rollout(prompts, protocol, seed=1, group_size=G, question_Q=[7, 3, 9, 5])
    for question, number, sample in [(0, 7, 0), (1, 3, 2), (2, 9, 1)]:
        alone = engine.rollout(
            [prompts[question]], protocol, seed=1, question_Q=[number], first_sample=sample
        )
        row = together.select([question * G + sample])
        same(alone, row)
        assert (row.question_N.tolist(), row.sample_N.tolist()) == ([number], [sample])


def test_the_order_of_questions_does_not_matter(
    engine: Engine, prompts: Any, protocol: Protocol
) -> None:
    forward = engine.rollout(prompts, protocol, seed=1, question_Q=[0, 1, 2, 3])
    backward = engine.rollout(prompts[::-1], protocol, seed=1, question_Q=[3, 2, 1, 0])
    same(forward, backward.select([3, 2, 1, 0]))


def test_samples_differ_and_seeds_differ(random_lm: Callable, prompts: Any) -> None:
    engine = Engine(Policy(random_lm("llama"), TokenHead()))
    free = Protocol(think=Budget(12, exact=True), answer=Budget(1))
    rollouts = engine.rollout(prompts, free, seed=1, group_size=G)
    other = engine.rollout(prompts, free, seed=2, group_size=G)
    assert len({tuple(row) for row in rollouts.token_NT.tolist()}) == len(rollouts)
    assert not (rollouts.token_NT == other.token_NT).all(1).any()


def test_decoding_is_what_a_loop_without_cache_does(
    random_lm: Callable, prompts: Any, protocol: Protocol
) -> None:
    """Tokens drawn by whole forward passes over one row at a time."""
    from latentgym.episodes.protocol import EpisodeState
    from latentgym.heads import Readout
    from latentgym.heads.rng import CounterRNG

    lm, head = random_lm("qwen2"), TokenHead()
    rollouts = Engine(Policy(lm, head)).rollout(prompts, protocol, seed=4)
    for row, prompt in enumerate(prompts):
        state, ids, step = EpisodeState(protocol, 1), list(prompt), 0
        while not state.done[0]:
            hidden = lm.hidden(lm.embed(torch.tensor([ids])), torch.ones(1, len(ids)).bool())[:, -1]
            read = Readout(lm.logits(hidden), hidden, lm.table_VD)
            at = CounterRNG.at(4, *(np.array([x]) for x in (row, 0, step)))
            forced = int(state.forced()[0])
            token = int(head.sample(read, at)["token"]) if forced < 0 else forced
            state.advance(np.array([token]))
            ids.append(token)
            step += 1
        assert rollouts.tokens(row).tolist() == ids[len(prompt) :]


def test_the_record_says_what_happened(random_lm: Callable, prompts: Any) -> None:
    forced_prompt = (65, 66)
    rules = Protocol(
        think=Budget(2, exact=True), answer=Budget(3, exact=True), forced_prompt=forced_prompt
    )
    policy = Policy(random_lm("llama"), MultiTokenHead(2))
    rollouts = Engine(policy).rollout(prompts, rules, seed=0, group_size=2)
    kinds = [*[StepKind.THOUGHT] * 2, *[StepKind.INSERTED] * 2, *[StepKind.TOKEN] * 3]
    assert rollouts.kind_NT.tolist() == [kinds] * 8
    assert rollouts.token_NT[:, 2:4].tolist() == [list(forced_prompt)] * 8
    assert rollouts.thoughts_N.tolist() == [2] * 8
    assert rollouts.tokens_N.tolist() == [3] * 8
    assert rollouts.length_N.tolist() == [7] * 8
    assert rollouts.action_tokens(0).tolist() == np.delete(rollouts.token_NT[0], [2, 3]).tolist()
    assert rollouts.terminated_N.all() and not rollouts.truncated_N.any()
    ids = rollouts.actions["ids"]
    assert ids.shape == (8, 7, 2) and not ids[:, 2:].any()
    assert rollouts.logp_NT is None


def test_positions_of_finished_rows_are_counted(
    random_lm: Callable, prompts: Any, protocol: Protocol
) -> None:
    engine = Engine(Policy(random_lm("llama"), TokenHead()), compact_every=0)
    rollouts = engine.rollout(prompts, protocol, seed=1, group_size=G)
    lengths = rollouts.length_N
    assert rollouts.discarded == (lengths.max() - lengths).sum() > 0


def test_selected_rows_replay_alike(engine: Engine, prompts: Any, protocol: Protocol) -> None:
    rollouts = engine.rollout(prompts, protocol, seed=1, group_size=G)
    rows = [8, 3, 4]
    some = rollouts.select(rows)
    assert some.token_NT.shape[1] == rollouts.length_N[rows].max()
    assert [some.prompts[i] for i in some.prompt_N] == [prompts[row // G] for row in rows]
    with torch.no_grad():
        scores, whole = replay(engine.policy, some), replay(engine.policy, rollouts)
    expected = whole.logp_NT[rows, : some.token_NT.shape[1]]
    assert_close(scores.logp_NT, expected, rtol=1e-4, atol=1e-4)


def test_parts_put_together_are_the_whole(engine: Engine, prompts: Any, protocol: Protocol) -> None:
    rollouts = engine.rollout(prompts, protocol, seed=1, group_size=G)
    parts = [rollouts.select(range(5)), rollouts.select(range(5, 12))]
    whole = Rollouts.concatenate(parts)
    same(whole, rollouts)
    assert whole.question_N.tolist() == rollouts.question_N.tolist()
    prompt = [whole.prompts[i] for i in whole.prompt_N]
    assert prompt == [prompts[i] for i in rollouts.prompt_N]


@pytest.mark.parametrize(
    ("bad", "sentence"),
    [
        ([], "at least one prompt"),
        ([[1], []], "every prompt a token"),
        ([[1] * 1010], "1010 tokens"),
    ],
)
def test_bad_prompts_are_refused(
    bad: Any, sentence: str, random_lm: Callable, protocol: Protocol
) -> None:
    engine = Engine(Policy(random_lm("gpt2"), TokenHead()))
    with pytest.raises(UsageError, match=sentence):
        engine.rollout(bad, protocol, seed=0)


def test_the_last_position_of_the_model_can_be_used(random_lm: Callable) -> None:
    engine = Engine(Policy(random_lm("gpt2"), TokenHead()))
    rules = Protocol(think=Budget(2, exact=True), answer=Budget(2, exact=True))
    assert engine.rollout([[1] * 1020], rules, seed=0).length_N.tolist() == [4]
    with pytest.raises(UsageError, match="do not fit the model's 1024 positions"):
        engine.rollout([[1] * 1021], rules, seed=0)


@pytest.mark.parametrize("name", ["compact_every", "look_every", "keep_thoughts"])
def test_settings_below_zero_are_refused(name: str, random_lm: Callable) -> None:
    with pytest.raises(UsageError, match=f"{name} is a number from 0 on, not -1"):
        Engine(Policy(random_lm("llama"), TokenHead()), **{name: -1})
