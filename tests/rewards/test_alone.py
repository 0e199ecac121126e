"""Answers that stand alone, without the marks that graders look for."""

from __future__ import annotations

import pytest

from latentgym.rewards import (
    ChoiceGrader,
    ExactGrader,
    Grader,
    GraderError,
    MathGrader,
    NumberGrader,
)

AIME = NumberGrader(strict=True, integer_range=(0, 999))
COLOURS = ChoiceGrader(("red", "green"))


@pytest.mark.parametrize(
    ("grader", "answer", "gold", "score", "status"),
    [
        (NumberGrader(), "18", "18", 1, "ok"),
        (NumberGrader(), "$1,018.00 in 3 weeks", "1018", 1, "ok"),
        (NumberGrader(), "x = 18", "18", 1, "ok"),
        (NumberGrader(), "18 #### 5", "5", 0, "invalid"),
        (NumberGrader(), "none", "5", 0, "no_answer"),
        (NumberGrader(), "5/0", "5", 0, "invalid"),
        (AIME, "033", "33", 1, "ok"),
        (AIME, "1000", "33", 0, "invalid"),
        (MathGrader(), r"\dfrac{1}{2}", r"\frac{1}{2}", 1, "ok"),
        (MathGrader(), r"$\frac{1}{2}$", r"\frac{1}{2}", 1, "ok"),
        (MathGrader(), r"\boxed{x^2 + 1}", "1+x^2", 1, "ok"),
        (MathGrader(strict=True), "(1, 2]", "(1,2]", 1, "ok"),
        (MathGrader(), "(1, 2)", "(1,2]", 0, "ok"),
        (MathGrader(), " ", "1", 0, "no_answer"),
        (MathGrader(), "1+" * 300, "1", 0, "too_long"),
        (COLOURS, "It is red.", "red", 1, "ok"),
        (COLOURS, "red\nor green", "red", 0, "invalid"),
        (ChoiceGrader(), "She is a dralpin.", "Mia is a dralpin.", 1, "ok"),
        (ExactGrader(), " Emmy  noether.", "Emmy Noether", 1, "ok"),
        (ExactGrader(), "", "Emmy Noether", 0, "no_answer"),
    ],
)
def test_verdicts(grader: Grader, answer: str, gold: str, score: int, status: str) -> None:
    grade = grader.alone(answer, gold)
    assert (grade.score, grade.status) == (score, status), grade


@pytest.mark.parametrize("grader", [NumberGrader(), MathGrader(), COLOURS, ExactGrader()])
def test_a_damaged_gold_answer_is_an_error(grader: Grader) -> None:
    with pytest.raises(GraderError):
        grader.alone("5", "")
    assert grader.numeric == isinstance(grader, NumberGrader)
