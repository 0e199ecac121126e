"""Reasoning Gym's tasks, graded by its own scorers."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import pytest

from latentgym.registry import TASKS
from latentgym.rewards import GraderError
from latentgym.testing import paid_garbage

pytest.importorskip("reasoning_gym")
# The package behind arc_agi leaves its file open.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

NAMES = [name.removeprefix("RG_") for name in TASKS if name.startswith("RG_")]
# They take seconds per question; their golds were checked by hand.
SLOW = {"knight_swap", "zebra_puzzles", "futoshiki", "puzzle24", "quantum_lock", "sudoku"}
# The generator knows no answer.
OPEN = {"boxnet", "rush_hour"}


def task(name: str, **options: Any) -> Any:
    return gym.make(f"latent/RG_{name}-token", **{"size": 4, **options}).unwrapped.task


def test_every_name_exists_and_none_is_forgotten() -> None:
    from reasoning_gym.factory import DATASETS

    assert set(NAMES) == set(DATASETS) - {"composite"}


@pytest.mark.parametrize("index", [0, pytest.param(1, marks=pytest.mark.thorough)])
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.thorough] if number % 3 else [])
        for number, name in enumerate(sorted(set(NAMES) - SLOW - OPEN))
    ],
)
def test_gold_answers_score_one(name: str, index: int) -> None:
    """Also those of several lines, and those that are only examples."""
    questions = task(name)
    grade = questions.grade(index, *questions.gold_completion(index))
    assert grade.score == 1 and grade.components["correct"] == 1
    assert not paid_garbage(questions, index)


@pytest.mark.parametrize(
    ("name", "answers"),
    [
        ("game_of_life_halting", ["I do not know", "T", "not {gold}", "{gold} 7", "0"]),
        ("complex_arithmetic", ["nan", "nan + nani", "NaN", "-nan + 1i"]),
        ("coin_flip", ["0", "0.", "0.0001", "nan"]),
        ("gsm_symbolic", ["-{gold}", "{gold} or not", "not {gold}"]),
    ],
)
def test_what_their_scorers_pay_for_nothing_is_not_right_here(
    name: str, answers: list[str]
) -> None:
    questions = task(name, size=8)
    for index in range(8):
        gold = questions.question(index).gold
        assert questions.grade(index, f"#### {gold}", gold).score == 1
        for answer in answers:
            said = answer.format(gold=gold)
            assert questions.grade(index, f"#### {said}", said).score < 1, (index, said, gold)


@pytest.mark.parametrize("name", sorted(set(NAMES) - SLOW))
def test_a_line_break_ends_an_answer_only_if_answers_have_one_line(name: str) -> None:
    questions = task(name)
    several = any("\n" in questions.question(i).gold for i in range(4))
    assert (questions.protocol().stop is None) == several


@pytest.mark.parametrize("name", sorted(OPEN))
def test_a_question_without_a_known_answer_has_an_empty_gold(name: str) -> None:
    assert task(name).question(0).gold == ""


def test_answers_are_read_behind_the_mark() -> None:
    questions = task("gcd")
    gold = questions.question(0).gold
    for text, score in [
        (f"so #### {gold}\nand on", 1),
        (f"#### {gold} apples", 0),
        (f"{gold} ####", 0),
    ]:
        assert (questions.grade(0, text, "").score == 1) == score
    boxed = task("gcd", format="boxed")
    assert boxed.grade(0, f"The answer is \\boxed{{{gold}}}.", "").score == 1
    assert boxed.grade(0, f"The answer is \\boxed{{{gold}", "").status == "no_answer"
    grade = task("gcd", format="json").grade(0, f'so "final answer": {gold}}}', "")
    assert (grade.score, grade.components["format"]) == (1, 0)


@pytest.mark.parametrize("name", ["gcd", "spiral_matrix", "mini_sudoku", "word_sorting", "survo"])
def test_gold_answers_score_one_in_json(name: str) -> None:
    questions = task(name, format="json")
    for index in range(len(questions)):
        grade = questions.grade(index, *questions.gold_completion(index))
        assert grade.score == grade.components["format"] == 1


def test_an_answer_that_breaks_a_scorer_is_invalid() -> None:
    grade = task("prime_factorization").grade(0, "#### two and three", "two and three")
    assert (grade.score, grade.status, grade.parsed) == (0.0, "invalid", "two and three")


def test_a_broken_scorer_is_an_error_and_no_reward() -> None:
    questions = task("gcd")
    questions.question(3).extra["entry"]["answer"] = 7  # theirs expects text, whatever is answered
    with pytest.raises(GraderError, match="scorer of RG_gcd failed on row 3"):
        questions.grade(3, "#### 1", "1")


def test_an_entry_that_cannot_be_sent_is_an_error() -> None:
    questions = task("gcd")
    questions.question(2).extra["entry"]["metadata"]["odd"] = object()
    with pytest.raises(GraderError, match="row 2: object cannot be packed"):
        questions.grade(2, "#### 1", "1")


def test_partial_scores_are_rewards_but_not_correct() -> None:
    grade = task("palindrome_generation").grade(0, "#### nonsense", "nonsense")
    assert 0 < grade.score < 1 and grade.components["correct"] == 0


def test_splits_sizes_and_settings() -> None:
    train, test = task("gcd"), task("gcd", split="test")
    assert train.question(0).text != test.question(0).text
    assert train.question(0).text == task("gcd").question(0).text
    assert len(task("gcd", size=9)) == 9 and len(task("gcd", size=9, limit=3)) == 3
    many = task("gcd", config={"min_numbers": 5, "max_numbers": 5})
    assert many.question(0).text.count(",") == 4
