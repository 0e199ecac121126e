"""A function of the user's own as a grader."""

from __future__ import annotations

from typing import Any

import pytest

from latentgym.rewards import GraderError, OwnGrader
from latentgym.rewards.extract import MAX_TEXT


def same(answer: str, gold: str, **columns: Any) -> bool:
    print("to people")
    return answer == gold and columns == {"level": 3}


GRADER = OwnGrader("mine:same", same, {"level": 3})


def test_it_reads_answers_where_others_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert GRADER("so\n#### red\n", "red").score == GRADER("The answer is red", "red").score == 1
    assert GRADER.alone("red", "red").score == 1 and GRADER.alone("blue", "red").score == 0
    assert GRADER.alone(" ", "red").status == "no_answer"
    assert GRADER.alone("r" * (MAX_TEXT + 1), "red").status == "too_long"
    assert GRADER.fallback("one\nred") == "red"
    assert capsys.readouterr().out == ""  # which holds results


def test_a_score_between_is_a_reward_and_no_right_answer() -> None:
    grade = OwnGrader("mine:half", lambda answer, gold: 0.5).alone("red", "red")
    assert grade.score == 0.5 and grade.components["correct"] == 0


@pytest.mark.parametrize("given", [1.5, -0.1, float("nan"), "1", None, [1.0]])
def test_what_is_no_grade_is_an_error(given: Any) -> None:
    with pytest.raises(GraderError, match=r"the grader mine:odd gives .* number from 0 to 1"):
        OwnGrader("mine:odd", lambda answer, gold: given).alone("red", "red")
