"""What sources without a model say of attempts made by hand."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from latentgym.agents.search.rewards import (
    ConfidenceReward,
    ConstantReward,
    FunctionReward,
    PerfectSparseReward,
    Verdict,
)
from latentgym.errors import UsageError
from latentgym.evaluation.accounting import Positions


def test_the_oracle_is_told_by_the_grader(attempt: Callable) -> None:
    attempts = [attempt(score=score) for score in (0.0, 1.0, 0.99)]
    verdicts = PerfectSparseReward()(attempts, seed=0)
    assert verdicts == [Verdict(-1.0), Verdict(0.0), Verdict(-1.0)]
    assert verdicts[0].positions == Positions() and not verdicts[0].checks


def test_the_control_says_the_same_of_everything(attempt: Callable) -> None:
    attempts = [attempt(score=1.0), attempt()]
    assert ConstantReward()(attempts, seed=0) == [Verdict(-1.0)] * 2


def test_confidence_is_the_mean_probability_minus_one(attempt: Callable) -> None:
    sure, unsure = attempt(log_prob=0.0), attempt(log_prob=math.log(0.25), score=1.0)
    rewards = [verdict.reward for verdict in ConfidenceReward()([sure, unsure], seed=0)]
    assert rewards == pytest.approx([0.0, -0.75])
    (nothing,) = ConfidenceReward()([attempt(log_prob=-math.inf)], seed=0)  # no token was decoded
    assert nothing.reward == -1.0


def test_only_the_perfect_reward_is_an_oracle() -> None:
    sources = (PerfectSparseReward, ConstantReward, ConfidenceReward, FunctionReward)
    assert [source.oracle for source in sources] == [True, False, False, False]


def test_a_function_of_a_users_own_never_sees_the_gold_answer(attempt: Callable) -> None:
    seen: list[Mapping[str, Any]] = []

    def reward(info: Mapping[str, Any]) -> float:
        seen.append(info)
        return -len(info["completion"]) / 10

    tried = [attempt("abc"), attempt("abcde", score=1.0, **{"reward/length": 0.5})]
    assert [v.reward for v in FunctionReward(reward)(tried, seed=0)] == [-0.3, -0.5]
    hidden = {"target", "score", "status", "reward/correct", "reward/format", "reward/length"}
    for info, each in zip(seen, tried, strict=True):
        assert info == {k: v for k, v in each.info.items() if k not in hidden}
        assert {"question", "completion", "answer", "parsed"} <= info.keys()
    assert tried[0].info["target"] == "4"  # what is hidden is not lost


@pytest.mark.parametrize("value", [math.nan, math.inf, None, "much"])
def test_what_is_no_number_is_no_reward(value: Any, attempt: Callable) -> None:
    with pytest.raises(UsageError, match="question 7"):
        FunctionReward(lambda info: value)([attempt(index=7)], seed=0)
