"""ExactGrader and ChoiceGrader."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentgym.rewards import ChoiceGrader, ExactGrader, GraderError

truth = ChoiceGrader(("True", "False"))


@pytest.mark.parametrize(
    ("answer", "gold", "score"),
    [
        ("Paris", "paris", 1.0),
        ("#### the  Seine. ", "The Seine", 1.0),
        ("I think.\nThe answer is: Paris!", "Paris", 1.0),
        ("Paris or Rome", "Paris", 0.0),
        ("Parisian", "Paris", 0.0),
    ],
)
def test_exact(answer: str, gold: str, score: float) -> None:
    result = ExactGrader()(answer, gold)
    assert (result.score, result.status) == (score, "ok")


def test_exact_without_answer() -> None:
    assert ExactGrader()("", "x").status == "no_answer"
    assert ExactGrader()("#### ...", "x").status == "no_answer"
    assert ExactGrader()("x" * 300_000, "x").status == "too_long"
    with pytest.raises(GraderError):
        ExactGrader()("x", "...")


@pytest.mark.parametrize(
    ("answer", "gold", "score", "status"),
    [
        ("True", "True", 1.0, "ok"),
        ("#### false.", "False", 1.0, "ok"),
        ("Ada is tall. True would be small.\nThe answer is False.", "False", 1.0, "ok"),
        ("False", "True", 0.0, "ok"),
        ("True or False", "True", 0.0, "invalid"),
        ("#### True False", "True", 0.0, "invalid"),
        ("Truest", "True", 0.0, "no_answer"),
        ("", "True", 0.0, "no_answer"),
        ("True " * 100_000, "True", 0.0, "too_long"),
    ],
)
def test_truth(answer: str, gold: str, score: float, status: str) -> None:
    result = truth(answer, gold)
    assert (result.score, result.status) == (score, status)


def test_choices_in_sentences() -> None:
    grade = ChoiceGrader(("talvin", "red gomvin"))
    gold = "Mia is a red gomvin."
    assert grade("Every talvin is a nelvin.\nMia is a red gomvin.", gold).score == 1.0
    assert grade("Mia is a red Gomvin", gold).score == 1.0
    assert grade("Mia is a gomvin", gold).status == "no_answer"
    assert grade("Mia is a talvin or a red gomvin", gold).status == "invalid"


def test_last_word_without_choices() -> None:
    grade = ChoiceGrader()
    assert grade("She is a dralpin", "Mia is a dralpin.").score == 1.0
    assert grade("Mia is a dralpin or forpin.", "Mia is a dralpin.").score == 0.0
    assert grade("...", "Mia is a dralpin.").status == "no_answer"


@pytest.mark.parametrize("gold", ["", "Maybe", "True or False"])
def test_gold_must_name_one_choice(gold: str) -> None:
    with pytest.raises(GraderError):
        truth("True", gold)
    with pytest.raises(GraderError):
        ChoiceGrader()("True", "...")


@given(st.text(max_size=100))
def test_text_never_raises_nor_scores(text: str) -> None:
    assert ExactGrader()(text, "no such answer at all").score == 0.0
    assert ChoiceGrader(("qqqqqqqqqq", "rrrrrrrrrr"))(text, "qqqqqqqqqq").score == 0.0


@pytest.mark.parametrize(
    ("grader", "answer", "gold", "score"),
    [
        (ChoiceGrader(("A", "B")), "not B", "B", 0),
        (ChoiceGrader(("True", "False")), "It is not true.", "True", 0),
        (ChoiceGrader(), "Mia is not a dralpin.", "Mia is a dralpin.", 0),
        (ChoiceGrader(), "She isn't a dralpin.", "Mia is a dralpin.", 0),
        (ChoiceGrader(), "Mia is not a dralpin.", "Mia is not a dralpin.", 1),
    ],
)
def test_what_is_denied_is_not_chosen(
    grader: ChoiceGrader, answer: str, gold: str, score: int
) -> None:
    assert grader.alone(answer, gold).score == score
