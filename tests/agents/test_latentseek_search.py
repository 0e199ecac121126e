"""LatentSeek over whole questions: when it stops, what it answers, what it costs."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from types import ModuleType
from typing import Any
from zlib import crc32

import numpy as np
import pytest
import torch

from latentgym.agents.cot import CoT, CoTConfig
from latentgym.agents.latentseek import LatentSeek, LatentSeekConfig
from latentgym.agents.search import Try, VerifierConfig
from latentgym.evaluation.answers import Answer
from latentgym.evaluation.evaluate import evaluate
from latentgym.lm import LatentLM
from latentgym.rollout import Engine, collect

FEW, MANY = np.arange(8), np.arange(24)
BOLD: dict[str, Any] = {"reward": "constant", "lr": 3.0, "ratio": 0.6}


@pytest.fixture
def lm(random_lm: Callable) -> LatentLM:
    model: LatentLM = random_lm("llama")
    return model


class Seek:
    """Searches with settings, and remembers what was tried."""

    def __init__(self, lm: LatentLM, **config: Any) -> None:
        self.agent, self.tries = LatentSeek(LatentSeekConfig(**config)), list[Try]()
        self.agent.watch = lambda new, _: self.tries.append(new)
        self.policy = self.agent.policy(lm, acting=True)

    def __call__(self, env: Any, questions: Any = FEW, seed: int = 0) -> list[Answer]:
        return self.agent.answer(self.policy, env, questions, seed, lambda done: None)

    def of(self, index: int) -> list[Try]:
        return [each for each in self.tries if each.attempt.index == index]


def greedy(lm: LatentLM, env: Any, questions: Any = FEW) -> list[Answer]:
    agent = CoT(CoTConfig())
    return agent.answer(agent.policy(lm, acting=True), env, questions, 0, lambda done: None)


def infos(answers: list[Answer]) -> list[dict[str, Any]]:
    return [answer.info for answer in answers]


@pytest.mark.parametrize(
    ("settings", "steps"),
    [
        ({"threshold": -1.5}, 0),  # all is good enough
        ({"ratio": 0.0}, 0),  # nothing to search
        ({"lr": 0.0}, 10),
        *(
            pytest.param(*each, marks=pytest.mark.thorough)
            for each in (
                ({"iterations": 0}, 0),
                ({"most": 0}, 0),
                ({"start": 1.0}, 0),
                ({"update": "noise", "sigma": 0.0}, 10),
            )
        ),
    ],
)
def test_where_nothing_moves_the_answer_is_the_greedy_one(
    settings: dict[str, Any], steps: int, lm: LatentLM, guessing: Callable
) -> None:
    seek = Seek(lm, **{**BOLD, **settings})
    answers, expected = seek(guessing()), greedy(lm, guessing())
    assert infos(answers) == infos(expected)
    assert [a.thoughts for a in answers] == [e.thoughts for e in expected]
    assert len(seek.tries) == len(FEW) and not any(t.changed for t in seek.tries)
    # A short chain may have nothing to search.
    assert {a.metrics["search/iterations"] for a in answers} <= {0, steps}
    assert max(a.metrics["search/iterations"] for a in answers) == steps
    assert all(("search/changed" in a.metrics) == bool(a.positions.gradient) for a in answers)


def test_a_right_answer_is_left_alone(lm: LatentLM, guessing: Callable) -> None:
    answers = Seek(lm, reward="psrm", lr=3.0, ratio=0.6)(guessing(), MANY)
    expected = greedy(lm, guessing(), MANY)
    right = [i for i in MANY if expected[i].info["score"] == 1.0]
    assert 0 < len(right) < len(MANY)
    for i in right:
        assert answers[i].info == expected[i].info
        assert answers[i].metrics["search/iterations"] == 0


def test_the_oracles_accuracy_never_falls(lm: LatentLM, guessing: Callable) -> None:
    scores = []
    for iterations in (0, 1, 2, 4):
        seek = Seek(lm, reward="psrm", lr=3.0, ratio=0.6, iterations=iterations)
        scores.append([info["score"] for info in infos(seek(guessing(12), MANY))])
    for fewer, more in pairwise(scores):
        assert all(a <= b for a, b in zip(fewer, more, strict=True))
    assert sum(scores[-1]) > sum(scores[0])


@pytest.mark.parametrize(
    ("family", "start"),
    [
        ("token", 0.3),
        *(
            pytest.param(family, start, marks=pytest.mark.thorough)
            for family, start in (("token", 0.0), ("hybrid", 0.0), ("hybrid", 0.3))
        ),
    ],
)
def test_behind_the_searched_tokens_the_chain_is_greedy(
    family: str, start: float, lm: LatentLM, guessing: Callable
) -> None:
    env = guessing(family=family, asks=True)
    seek = Seek(lm, **BOLD, start=start, iterations=3)
    seek(env)
    steered = 0
    for index in FEW.tolist():
        first, *later = seek.of(index)
        length = int(first.attempt.own_T.sum())
        begin = int(start * length)
        end = min(begin + int(0.6 * length), first.attempt.free())
        before = first.attempt.token_T
        for each in later:
            token_T, own_T = each.attempt.token_T, each.attempt.own_T
            known = min(end, each.attempt.free())  # what stands behind it was left out
            assert token_T[: min(begin, known)].tolist() == before[: min(begin, known)].tolist()
            ids = torch.tensor([[*env.unwrapped.prompt(index), *token_T]])
            with torch.no_grad():
                hidden_1TD = lm.hidden(lm.embed(ids), torch.ones_like(ids).bool())
                best_T = lm.logits(hidden_1TD)[0].argmax(-1)[-len(token_T) - 1 : -1].numpy()
            free_T = own_T & (np.arange(len(own_T)) >= known)
            assert token_T[free_T].tolist() == best_T[free_T].tolist()
            steered += int((token_T[:known] != best_T[:known]).sum())
    assert steered > 0  # the searched ones are not


def test_tokens_are_counted_as_they_change(lm: LatentLM, guessing: Callable) -> None:
    seek = Seek(lm, **BOLD, iterations=6)
    for answer in seek(guessing()):
        tries = seek.of(answer.index)
        searched = int(0.6 * tries[0].attempt.own_T.sum())
        assert answer.positions.gradient == searched * answer.metrics["search/iterations"]
        assert tries[0].changed == 0 and all(0 < t.changed <= searched for t in tries[1:])
        assert [t.attempt.number for t in tries] == list(range(len(tries)))
        steps = [t.iteration for t in tries]
        assert steps == sorted(set(steps)) and steps[-1] <= 6
        for one, other in pairwise(tries):
            a, b = (t.attempt.token_T[:searched] for t in (one, other))
            if len(a) == len(b) == searched:  # neither ended within
                assert (a != b).sum() == other.changed


NOISY = {**BOLD, "update": "noise", "sigma": 20.0}


@pytest.mark.parametrize(
    ("reward", "settings"),
    [
        ("constant", NOISY),
        pytest.param("self", BOLD, marks=pytest.mark.thorough),
        pytest.param("constant", BOLD, marks=pytest.mark.thorough),
        pytest.param("self", NOISY, marks=pytest.mark.thorough),
    ],
)
def test_answers_depend_neither_on_rows_nor_on_order(
    settings: dict[str, Any], reward: str, lm: LatentLM, guessing: Callable
) -> None:
    verifier = VerifierConfig(tokens=1, temperature=2.0)
    config = {**settings, "reward": reward, "iterations": 2, "verifier": verifier}
    seek = Seek(lm, **config)
    expected = seek(guessing(8))
    assert [answer.index for answer in expected] == FEW.tolist()
    order = np.array([5, 0, 7, 2])
    for rows, questions in ((1, FEW[:2]), (2, FEW), (3, order)):
        found = Seek(lm, **config)(guessing(rows), questions)
        assert [answer.index for answer in found] == questions.tolist()
        for answer in found:
            other = expected[answer.index]
            assert answer.info == other.info and answer.trace == other.trace
            assert answer.metrics == other.metrics
            costs = [{**a.positions.as_dict(), "discarded": 0} for a in (answer, other)]
            assert costs[0] == costs[1]


def test_noise_comes_from_the_seed(lm: LatentLM, guessing: Callable) -> None:
    config = {**BOLD, "update": "noise", "sigma": 20.0, "iterations": 2}
    one, again, other = (Seek(lm, **config)(guessing(), seed=seed) for seed in (1, 1, 2))
    assert infos(one) == infos(again) != infos(other)


@pytest.fixture
def lengths() -> Iterator[str]:
    """A reward of a user's own that is never content, by name."""
    module = ModuleType("own_lengths")
    module.reward = (  # type: ignore[attr-defined]
        lambda info: -0.5 - crc32(info["completion"].encode()) % 5 / 10
    )
    sys.modules["own_lengths"] = module
    yield "own_lengths:reward"
    del sys.modules["own_lengths"]


def test_the_last_answer_or_the_best(lm: LatentLM, guessing: Callable, lengths: str) -> None:
    config = {**BOLD, "reward": lengths, "iterations": 5}
    differ = 0
    for keep in ("last", "best"):
        seek = Seek(lm, **config, keep=keep)
        for answer in seek(guessing()):
            tries = seek.of(answer.index)
            rewards = [t.verdict.reward for t in tries]
            chosen = len(tries) - 1 if keep == "last" else rewards.index(max(rewards))
            assert answer.info == tries[chosen].attempt.info
            differ += chosen != len(tries) - 1
    assert differ > 0


@pytest.mark.thorough
def test_positions_by_hand(lm: LatentLM, guessing: Callable) -> None:
    """The prompt once, the first chain's searched part, and of each try what has changed."""
    env = guessing(1)
    verifier = VerifierConfig(tokens=2)
    seek = Seek(lm, **{**BOLD, "reward": "self"}, iterations=4, verifier=verifier, threshold=0.0)
    for answer in seek(env, FEW[:4]):
        first, *later = seek.of(answer.index)
        searched = int(0.6 * first.attempt.own_T.sum()) if later else 0
        read = len(env.unwrapped.prompt(answer.index)) + searched
        known, drawn = first.attempt.token_T[:searched].tolist(), len(first.attempt.token_T)
        for each in later:
            prefix = each.attempt.token_T[:searched].tolist()
            same = [a == b for a, b in zip(known, prefix, strict=False)]
            read += len(prefix) - (same.index(False) if False in same else len(same))
            drawn += len(each.attempt.token_T) - len(prefix)
            known = prefix
        cost = answer.positions
        assert (cost.prompt, cost.thought + cost.answer) == (read, drawn)
        assert cost.gradient == searched * answer.metrics["search/iterations"]
        assert cost.discarded == 0
        spent = [t.verdict.positions for t in (first, *later)]
        assert cost.verifier == sum(p.verifier for p in spent) > 0
        assert cost.verifier_prompt == sum(p.verifier_prompt for p in spent) > 0
        chain = seek.of(answer.index)[-1].attempt.token_T
        assert answer.context == len(env.unwrapped.prompt(answer.index)) + len(chain)


def test_the_model_learns_nothing(lm: LatentLM, guessing: Callable) -> None:
    before = [parameter.clone() for parameter in lm.parameters()]
    Seek(lm, **BOLD)(guessing())
    for parameter, kept in zip(lm.parameters(), before, strict=True):
        assert parameter.grad is None and torch.equal(parameter, kept)


def test_the_record_tells_the_search(lm: LatentLM, guessing: Callable) -> None:
    seek, env = Seek(lm, **BOLD, iterations=3), guessing()
    done = evaluate(seek.agent, seek.policy, "latent/Guessing-token", env, limit=8)
    assert done.result.metrics["search/iterations"] > 0
    for answer in seek(guessing()):
        assert json.loads(json.dumps(answer.trace)) == answer.trace
        scores = [step["score"] for step in answer.trace]
        assert answer.metrics["search/any"] == max(scores)
        assert (answer.metrics["search/first"], answer.info["score"]) == (scores[0], scores[-1])


def test_the_first_try_of_a_task_that_asks_back_is_greedy(lm: LatentLM, guessing: Callable) -> None:
    seek = Seek(lm, **BOLD, iterations=2)
    seek(guessing(8, asks=True))
    expected = collect(Engine(seek.policy), guessing(8, asks=True), FEW, seed=0)
    assert (expected.rollouts.kind_NT == 3).any()
    for index in FEW.tolist():
        assert seek.of(index)[0].attempt.info == expected.infos[index]
