"""Rows that end and begin in one batch are what they would be in any other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from latentgym.episodes.protocol import Protocol
from latentgym.errors import UsageError
from latentgym.heads import PolicyHead
from latentgym.lm.model import LatentLM
from latentgym.registry import make_vector_env
from latentgym.rollout import Engine, Policy, Rollouts
from latentgym.rollout.collect import collect
from latentgym.rollout.queue import Queue

from .conftest import HEADS
from .test_choices import Router, SubTokens

G = 2
ALL = {**HEADS, "router": Router, "sub-tokens": lambda: SubTokens(3)}
FEW = ("ratt", "router")


def same(one: Rollouts, other: Rollouts) -> None:
    steps = one.token_NT.shape[1]
    assert other.token_NT.shape[1] == steps
    assert one.prompts == other.prompts
    for name in ("token_NT", "kind_NT", "question_N", "sample_N", "terminated_N", "truncated_N"):
        assert np.array_equal(getattr(one, name), getattr(other, name)), name
    for name, value in one.actions.items():
        assert_close(value, other.actions[name], rtol=1e-3, atol=1e-4)
    assert one.logp_NT is not None and other.logp_NT is not None
    assert_close(one.logp_NT, other.logp_NT, rtol=1e-3, atol=1e-4)


def one_after_the_other(engine: Engine, prompts: Any, protocol: Protocol) -> dict[int, Rollouts]:
    """Two questions at once: where one is through, the next begins."""

    def start(question: int) -> Any:
        return engine.start(
            [prompts[question]], protocol, seed=1, group_size=G, question_Q=[question]
        )

    session, left, found = start(0), list(range(1, len(prompts))), {}
    session.join(start(left.pop(0)))
    while len(found) < len(prompts):
        session.run(until=len(session.done) + 1)
        ended = np.isin(np.arange(len(session.prompt_N)), session.done).reshape(-1, G).all(1)
        rows = np.flatnonzero(np.repeat(ended, G))
        if not rows.size:
            continue
        record = session.take(rows)
        for row in range(0, len(record), G):
            found[int(record.question_N[row])] = record.select([row, row + 1])
        if left:
            new = start(left.pop(0))
            if len(session.prompt_N):
                session.join(new)
            else:
                session = new
    return found


@pytest.mark.parametrize("compact_every", [1, pytest.param(0, marks=pytest.mark.thorough)])
@pytest.mark.parametrize(
    "name", [n if n in FEW else pytest.param(n, marks=pytest.mark.thorough) for n in ALL]
)
@pytest.mark.parametrize("arch", ["llama", pytest.param("gpt2", marks=pytest.mark.thorough)])
def test_a_row_is_what_it_is_alone(
    arch: str, name: str, compact_every: int, random_lm: Callable, prompts: Any, protocol: Protocol
) -> None:
    head: PolicyHead = ALL[name]()
    policy = Policy(random_lm(arch), head)
    engine = Engine(policy, record_log_probs=True, compact_every=compact_every)
    prompts = [*prompts, *(prompt[::-1] for prompt in prompts)]
    found = one_after_the_other(engine, prompts, protocol)
    for question, prompt in enumerate(prompts):
        alone = engine.rollout([prompt], protocol, seed=1, group_size=G, question_Q=[question])
        same(found[question], alone)


@pytest.mark.parametrize("name", ["ratt", "router"])
def test_rows_are_taken_in_any_order_and_join_whoever_is_left(
    name: str, random_lm: Callable, prompts: Any, protocol: Protocol
) -> None:
    """Nobody, in the end: those that are left may have ended, and left the batch, long before."""
    engine = Engine(Policy(random_lm("llama"), ALL[name]()), record_log_probs=True, compact_every=1)

    def start(questions: list[int]) -> Any:
        some = [prompts[question] for question in questions]
        return engine.start(some, protocol, seed=1, group_size=G, question_Q=questions)

    every = list(range(len(prompts)))
    alone = {question: start([question]) for question in every}
    for each in alone.values():
        each.run()
    last = max(every, key=lambda question: alone[question].finish().length_N.max())
    session = start(every)
    for questions in (every, [last]):
        session.run()
        order = [last, *(question for question in questions if question != last)]
        for question in order:
            rows = np.flatnonzero(session.question_N == question)
            same(session.take(rows), alone[question].finish())
        assert not session.done.size and not session.prompts
        session.join(start([last]))


def test_rows_that_are_taken_leave_others_what_they_were_given(
    random_lm: Callable, prompts: Any, protocol: Protocol
) -> None:
    engine = Engine(Policy(random_lm("llama"), HEADS["token"]()))
    given = torch.randn(len(prompts), 2, 32)
    session = engine.start(prompts, protocol, seed=1, given_QkD=given)
    session.run()
    for question in range(len(prompts)):
        record = session.take(np.array([0]))
        assert record.given_QkD is not None and torch.equal(record.given_QkD[0], given[question])


def test_what_cannot_join_is_told(random_lm: Callable, prompts: Any, protocol: Protocol) -> None:
    policy, given = Policy(random_lm("llama"), HEADS["token"]()), torch.zeros(len(prompts), 1, 32)
    plain = Engine(policy).start(prompts, protocol, seed=1)
    others = [
        Engine(policy).start(prompts, protocol, seed=1, given_QkD=given),
        Engine(policy, compile=True).start(prompts, protocol, seed=1),
    ]
    for one, other in [(plain, others[0]), *((each, plain) for each in others)]:
        with pytest.raises(UsageError, match="cannot join others; let each session run by itself"):
            one.join(other)


@pytest.mark.parametrize(
    "rows", [5, *(pytest.param(n, marks=pytest.mark.thorough) for n in (2, 6))]
)
def test_every_question_is_answered_once(rows: int, random_lm: Callable) -> None:
    env = make_vector_env("latent/GSM8K-token", rows, source="sample", think=12, answer=6)
    lm: LatentLM = random_lm("llama")
    engine = Engine(Policy(lm, HEADS["token"]()), record_log_probs=True)
    questions = np.array([3, 1, 4, 0, 5, 9, 2])
    queue = Queue(engine, env, questions, G, seed=4)
    found: dict[int, Any] = {}
    for places, episodes in queue.run():
        assert len(episodes.rollouts) == G * len(places) == len(episodes.infos)
        for i, place in enumerate(places.tolist()):
            at = [G * i, G * i + 1]
            assert place not in found
            found[place] = (
                episodes.rollouts.select(at),
                episodes.reward_N[at].tolist(),
                [episodes.infos[row] for row in at],
            )
    assert sorted(found) == list(range(len(questions)))
    alone = make_vector_env("latent/GSM8K-token", G, source="sample", think=12, answer=6)
    for place, (rollouts, rewards, infos) in found.items():
        episodes = collect(engine, alone, [questions[place]], group_size=G, seed=4)
        same(rollouts, episodes.rollouts)
        assert rewards == episodes.reward_N.tolist() and infos == episodes.infos


def test_a_group_that_has_no_room_is_a_sentence(random_lm: Callable) -> None:
    env = make_vector_env("latent/GSM8K-token", 2, source="sample")
    with pytest.raises(UsageError, match=r"5 samples .* has 2 rows; make it with num_envs=5"):
        Queue(Engine(Policy(random_lm("llama"), HEADS["token"]())), env, np.array([0]), 5, seed=0)
