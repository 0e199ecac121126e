"""Rollouts whose first actions are given are those that would have chosen them by themselves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace as changed
from typing import Any

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from latentgym.episodes.protocol import EpisodeState, Protocol
from latentgym.errors import UsageError
from latentgym.heads import GaussianHead, MixtureHead, Readout, TokenHead
from latentgym.heads.rng import CounterRNG
from latentgym.rollout import Engine, Policy, PrefixCache, Rollouts, StepKind

G = 3
MARKER, EOS, PLAIN = 12, 2, 3  # ids that mean this to `protocol`
PREFIX = {
    "nothing": [],
    "some thoughts": [PLAIN, 5, 6],
    "the mark": [PLAIN, MARKER, 6],
    "the mark at the end": [PLAIN, 5, MARKER],
    "the end of thinking": [PLAIN, EOS, 6, 7],
    "the end of the answer": [MARKER, PLAIN, EOS, 5, 6],
    "the stop of the answer": [MARKER, 1, 5],
    "all thoughts": [PLAIN] * 12,
    "more thoughts than there may be": [PLAIN] * 20,
    "more answer than there may be": [MARKER, *[PLAIN] * 20],
}


@pytest.fixture(params=["forced", "free"])
def rules(request: pytest.FixtureRequest, protocol: Protocol) -> Protocol:
    """With a forced prompt of the answer, and where thinking without the marker ends it all."""
    return changed(protocol, force_answer=request.param == "forced")


@pytest.fixture
def many(prompts: list[list[int]]) -> list[list[int]]:
    """Prompts enough for chains to end in every way."""
    return [[*prompt, 65 + i] for i in range(6) for prompt in prompts]


def prefixed_rollouts(
    engine: Engine,
    prompts: Sequence[Sequence[int]],
    rules: Protocol,
    prefix: Sequence[Sequence[int]] | None,
    **more: Any,
) -> Rollouts:
    session = engine.start(prompts, rules, seed=3, prefix=prefix, **more)
    session.run()
    return session.finish()


def same(one: Rollouts, other: Rollouts) -> None:
    """The same episodes, token by token."""
    for row in range(len(one)):
        assert one.tokens(row).tolist() == other.tokens(row).tolist()
        kinds = [r.kind_NT[row][: r.length_N[row]].tolist() for r in (one, other)]
        assert kinds[0] == kinds[1]
    assert one.terminated_N.tolist() == other.terminated_N.tolist()
    assert one.truncated_N.tolist() == other.truncated_N.tolist()


@pytest.mark.parametrize("temperature", [0.0, 0.8])
@pytest.mark.parametrize("reads", [False, True])
def test_a_chain_begun_with_its_own_first_tokens_is_the_chain(
    temperature: float, reads: bool, random_lm: Callable, many: list[list[int]], rules: Protocol
) -> None:
    lm = random_lm("llama")
    engine = Engine(Policy(lm, TokenHead(temperature)), record_log_probs=True)
    chain = prefixed_rollouts(engine, many, rules, None)
    ends = {(bool(a), bool(b)) for a, b in zip(chain.terminated_N, chain.truncated_N, strict=True)}
    assert (chain.kind_NT == StepKind.INSERTED).any() == rules.force_answer
    assert len(ends) == 2
    own = [chain.action_tokens(row).tolist() for row in range(len(chain))]
    prefix_cache = PrefixCache(lm) if reads else None
    for cut in (0, 1, 3, 7, 30):
        prefix = [tokens[:cut] for tokens in own]
        found = prefixed_rollouts(engine, many, rules, prefix, prefix_cache=prefix_cache)
        same(found, chain)
        assert found.logp_NT is not None and chain.logp_NT is not None
        inserted_NT = (chain.kind_NT == StepKind.INSERTED).cumsum(1) > 0
        given_NT = torch.from_numpy((np.arange(chain.kind_NT.shape[1]) < cut) & ~inserted_NT)
        expected = torch.where(given_NT, 0.0, chain.logp_NT)
        assert_close(found.logp_NT, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("every", [pytest.param(0, marks=pytest.mark.thorough), 1])
@pytest.mark.parametrize("given", PREFIX)
def test_any_beginning_is_what_a_loop_without_cache_makes_of_it(
    given: str, every: int, random_lm: Callable, prompts: list[list[int]], rules: Protocol
) -> None:
    policy = Policy(random_lm("llama"), TokenHead(0.8))
    engine = Engine(policy, compact_every=every)
    prefix = [PREFIX[given], [], PREFIX[given][::-1], PREFIX["some thoughts"]]
    found = prefixed_rollouts(engine, prompts, rules, prefix, group_size=G)
    for row in range(len(found)):
        question, sample = divmod(row, G)
        by_hand = one_row(policy, prompts[question], rules, prefix[question], question, sample)
        kinds = found.kind_NT[row][: found.length_N[row]]
        assert list(zip(found.tokens(row), kinds, strict=True)) == by_hand[0]
        assert (found.terminated_N[row], found.truncated_N[row]) == by_hand[1]


def one_row(
    policy: Policy,
    prompt: list[int],
    rules: Protocol,
    prefix: list[int],
    question: int,
    sample: int,
) -> tuple[list[tuple[int, StepKind]], tuple[bool, bool]]:
    """What one row says, by whole forward passes, and how it ends."""
    lm, state, given = policy.lm, EpisodeState(rules, 1), list(prefix)
    said: list[tuple[int, StepKind]] = []
    while not state.done[0]:
        forced = int(state.forced()[0])
        if forced >= 0:
            token, given = forced, []
        elif given:
            token = given.pop(0)
        else:
            ids = torch.tensor([prompt + [token for token, _ in said]])
            with torch.no_grad():
                hidden_1D = lm.hidden(lm.embed(ids), torch.ones_like(ids).bool())[:, -1]
                read = Readout(lm.logits(hidden_1D), hidden_1D, lm.table_VD)
            at = CounterRNG.at(3, *(np.array([x]) for x in (question, sample, len(said))))
            token = int(policy.head.sample(read, at)["token"])
        as_token = state.advance(np.array([token]))[0]
        kind = (
            StepKind.INSERTED if forced >= 0 else StepKind.TOKEN if as_token else StepKind.THOUGHT
        )
        said.append((token, kind))
    return said, (bool(state.terminated[0]), bool(state.truncated[0]))


def test_beginnings_that_change_are_read_from_the_change(
    random_lm: Callable, prompts: list[list[int]], protocol: Protocol
) -> None:
    lm = random_lm("llama")
    engine, prefix_cache = Engine(Policy(lm, TokenHead(0.0))), PrefixCache(lm)
    prefix = [[PLAIN, 5, 6, 7], [MARKER, 5], [], [PLAIN, EOS, 6]]
    later = [[PLAIN, 5, 7, 7, 8], [MARKER, 6], [9], [PLAIN, EOS, 7]]
    lengths = [len(prompt) for prompt in prompts]
    for beginning, fresh in (
        (prefix, [lengths[0] + 4, lengths[1] + 2, lengths[2], lengths[3] + 2]),
        (later, [3, 1, 1, 0]),  # what stands behind the end of thinking is not read
    ):
        found = prefixed_rollouts(
            engine, prompts, protocol, beginning, group_size=2, prefix_cache=prefix_cache
        )
        assert prefix_cache.fresh_N.tolist() == fresh
        same(found, prefixed_rollouts(engine, prompts, protocol, beginning, group_size=2))


def test_given_actions_cost_no_decoding(
    random_lm: Callable, prompts: list[list[int]], protocol: Protocol
) -> None:
    engine = Engine(Policy(random_lm("llama"), TokenHead()))
    ended = prefixed_rollouts(engine, prompts, protocol, [[MARKER, PLAIN, EOS]] * 4)
    assert [ended.tokens(row).tolist() for row in range(4)] == [[MARKER, PLAIN, EOS]] * 4
    assert ended.terminated_N.all() and ended.discarded == 0


@pytest.mark.parametrize("head", [MixtureHead(), GaussianHead(32, 16)])
def test_latent_thoughts_cannot_be_begun(
    head: Any, random_lm: Callable, prompts: list[list[int]], protocol: Protocol
) -> None:
    engine = Engine(Policy(random_lm("llama"), head))
    with pytest.raises(UsageError, match="only thoughts in tokens can have a prefix"):
        engine.start(prompts, protocol, seed=0, prefix=[[1]] * 4)


def test_every_question_may_begin_at_a_sample_of_its_own(
    random_lm: Callable, prompts: list[list[int]], protocol: Protocol
) -> None:
    engine = Engine(Policy(random_lm("llama"), TokenHead()))
    first = np.array([5, 0, 2, 7])
    together = prefixed_rollouts(engine, prompts, protocol, None, group_size=G, first_sample=first)
    assert together.sample_N.reshape(4, G).tolist() == [[n, n + 1, n + 2] for n in first]
    for i, number in enumerate(first.tolist()):
        alone = prefixed_rollouts(
            engine,
            [prompts[i]],
            protocol,
            None,
            group_size=G,
            first_sample=number,
            question_Q=[i],
        )
        same(together.select(np.arange(G) + G * i), alone)
