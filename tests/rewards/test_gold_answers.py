"""Every gold answer of the real data sets scores 1; empty and garbage answers score 0."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from latentgym.data import DATASETS, Dataset
from latentgym.data.recommendation import THINGS
from latentgym.rewards import ChoiceGrader, Grader, MathGrader, NumberGrader, SpanGrader, maths

GRADERS: dict[str, tuple[Grader, str]] = {
    "GSM8K": (NumberGrader(), "#### {}"),
    "GSM8KAug": (NumberGrader(), "#### {}"),
    "GSMHard": (NumberGrader(rel_tol=1e-6), "#### {}"),
    "SVAMP": (NumberGrader(), "#### {}"),
    "MultiArith": (NumberGrader(), "#### {}"),
    "MATH": (MathGrader(), "\\boxed{{{}}}"),
    "MATH500": (MathGrader(), "\\boxed{{{}}}"),
    "AIME2024": (NumberGrader(integer_range=(0, 999)), "#### {}"),
    "AIME2025": (NumberGrader(integer_range=(0, 999)), "#### {}"),
    "ProsQA": (ChoiceGrader(), "#### {}"),
    "ProntoQA": (ChoiceGrader(("True", "False")), "#### {}"),
    # With all their forms: `test_span_grader`.
    "NQ": (SpanGrader(), "#### {}"),
    "TriviaQA": (SpanGrader(), "#### {}"),
    "HotpotQA": (SpanGrader(), "#### {}"),
    "2WikiMultihopQA": (SpanGrader(), "#### {}"),
    "Bamboogle": (SpanGrader(), "#### {}"),
}
PAIRS = [(name, split) for name in GRADERS for split in DATASETS[name].splits]


def test_every_data_set_has_a_grader() -> None:
    # Titles are graded by the catalogue that they are from: `test_data_recommendation`.
    assert {*GRADERS, *THINGS} == set(DATASETS)


@pytest.mark.parametrize(("name", "split"), PAIRS)
def test_gold_scores_one(
    name: str, split: str, monkeypatch: pytest.MonkeyPatch, real_dataset: Callable[..., Dataset]
) -> None:
    def refuse(gold: str, answer: str) -> str:
        raise AssertionError(f"{answer!r} for {gold!r} went to the worker")

    monkeypatch.setattr(maths._SANDBOX, "compare", refuse)
    grader, form = GRADERS[name]
    for question in real_dataset(name, split):
        grade = grader(f"Let me think.\n{form.format(question.gold)}", question.gold)
        expected = {"correct", "format"}
        assert grade.status == "ok" and grade.components.keys() >= expected, (question, grade)
        assert set(grade.components.values()) == {grade.score} == {1.0}, (question, grade)
        for garbage in ("", "I do not know.", form.format(""), form.format("qwertz")):
            assert grader(garbage, question.gold).score == 0.0, (question, garbage)


@pytest.mark.parametrize("split", ["train", "test"])
def test_rewritten_gold_through_the_worker(
    split: str, real_dataset: Callable[..., Dataset]
) -> None:
    questions = real_dataset("MATH", split)
    # Plain expressions: no lists, sets, equations, words or other notation.
    plain = sorted(
        {
            q.gold
            for q in questions
            if not set(q.gold) & set(",=[:_<>|!'&")
            and not any(w in q.gold for w in ("text", "box", "cup", "%", "circ", "$", "pm"))
        }
    )
    golds = [g for g in plain if "\\" in g or "^" in g]
    chosen = golds[:: max(1, len(golds) // 150)][:150]
    assert len(chosen) == 150
    grade = MathGrader()
    missed = [g for g in chosen if not grade(f"\\boxed{{\\dfrac{{2 \\cdot ({g})}}{{2}}}}", g).score]
    assert not missed
    fooled = [g for g in chosen[::3] if grade(f"\\boxed{{1 + {g}}}", g).score]
    assert not fooled
