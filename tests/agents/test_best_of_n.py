"""Best of n: which samples are drawn, which is kept, and when it is enough."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any
from zlib import crc32

import numpy as np
import pytest

from latentgym.agents.best_of_n import BestOfN, BestOfNConfig
from latentgym.agents.cot import CoT, CoTConfig
from latentgym.agents.search import Try
from latentgym.errors import UsageError
from latentgym.evaluation.answers import Answer
from latentgym.evaluation.evaluate import evaluate
from latentgym.rollout import Engine, collect

MANY = np.arange(24)
RNG: dict[str, Any] = {"samples": 4, "temperature": 0.9, "top_p": 0.95}


@pytest.fixture
def best_of(random_lm: Callable, guessing: Callable) -> Callable[..., Any]:
    """`best_of(rows=8, seed=3, **settings)`: answers, and the tries by question."""

    def run(rows: int = 8, seed: int = 3, **settings: Any) -> Any:
        agent = BestOfN(BestOfNConfig(**{**RNG, **settings}))
        tries: dict[int, list[Try]] = {}
        agent.watch = lambda each, _: tries.setdefault(each.attempt.index, []).append(each)
        policy = agent.policy(random_lm("llama"), acting=True)
        return agent.answer(policy, guessing(rows), MANY, seed, lambda done: None), tries

    return run


@pytest.fixture
def samples(random_lm: Callable, guessing: Callable) -> list[list[dict[str, Any]]]:
    """The final infos of chain-of-thought samples with the same seed."""
    policy = CoT(CoTConfig(**RNG)).policy(random_lm("llama"), acting=True)
    infos = collect(Engine(policy), guessing(24 * 4), MANY, group_size=4, seed=3).infos
    return [infos[4 * i : 4 * i + 4] for i in range(24)]


def scores(answers: list[Answer]) -> list[float]:
    return [answer.info["score"] for answer in answers]


@pytest.mark.parametrize("early", [True, pytest.param(False, marks=pytest.mark.thorough)])
def test_with_the_gold_answer_it_is_any_of_n(
    early: bool, best_of: Callable, samples: list[list[dict[str, Any]]]
) -> None:
    answers, tries = best_of(reward="psrm", early=early)
    assert scores(answers) == [max(info["score"] for info in infos) for infos in samples]
    assert 0 < sum(scores(answers)) < len(MANY)
    for index, infos in enumerate(samples):
        right = [info["score"] == 1.0 for info in infos]
        first = right.index(True) if any(right) else 0
        assert answers[index].info == infos[first]  # the first of the best
        drawn = first + 1 if early and any(right) else 4
        assert [t.attempt.info for t in tries[index]] == infos[:drawn]
        assert answers[index].metrics["search/tries"] == drawn
        assert answers[index].metrics["search/iterations"] == drawn - 1


@pytest.fixture
def own() -> Iterator[str]:
    module = ModuleType("own_taste")
    module.taste = (  # type: ignore[attr-defined]
        lambda info: -float(crc32(info["completion"].encode()) % 3)
    )
    sys.modules["own_taste"] = module
    yield "own_taste:taste"
    del sys.modules["own_taste"]


@pytest.mark.parametrize("keep", ["best", "last"])
def test_the_first_best_is_kept(
    keep: Any, best_of: Callable, own: str, samples: list[list[dict[str, Any]]]
) -> None:
    answers, tries = best_of(reward=own, keep=keep)
    tied = 0
    for index, infos in enumerate(samples):
        rewards = [-float(crc32(info["completion"].encode()) % 3) for info in infos]
        assert [t.verdict.reward for t in tries[index]] == rewards
        chosen = rewards.index(max(rewards)) if keep == "best" else 3
        assert answers[index].info == infos[chosen]
        tied += rewards.count(max(rewards)) > 1
    assert tied > 0


def test_answers_do_not_depend_on_how_many_rows_fit(best_of: Callable) -> None:
    one, other = best_of(rows=7, reward="psrm"), best_of(rows=24, reward="psrm")
    assert [answer.info for answer in one[0]] == [answer.info for answer in other[0]]
    assert [answer.trace for answer in one[0]] == [answer.trace for answer in other[0]]


def test_the_prompt_is_read_once_and_every_sample_paid_for(
    best_of: Callable, guessing: Callable
) -> None:
    answers, tries = best_of(reward="constant")
    for answer in answers:
        cost = answer.positions
        assert cost.prompt == len(guessing(1).unwrapped.prompt(answer.index))
        drawn = sum(len(t.attempt.token_T) for t in tries[answer.index])
        assert cost.thought + cost.answer == drawn and cost.gradient == 0


@pytest.mark.parametrize("wrong", [{"samples": 0}, {"temperature": 0.0}, {"temperature": -1.0}])
def test_settings_that_make_no_sense(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="at least one sample, and a temperature above 0"):
        BestOfNConfig(**wrong)


def test_its_record_is_plain_json(random_lm: Callable, guessing: Callable, tmp_path: Path) -> None:
    agent = BestOfN(BestOfNConfig(reward="psrm"))
    policy = agent.policy(random_lm("llama"), acting=True)
    done = evaluate(
        agent, policy, "latent/Guessing-token", guessing(), limit=4, config=asdict(agent.config)
    )
    done.save(tmp_path)

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    json.loads((tmp_path / "result.json").read_text(), parse_constant=refuse)
