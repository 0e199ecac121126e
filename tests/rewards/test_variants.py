"""Gold answers written otherwise are right, and answers that only look like them are wrong."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from latentgym.data import DATASETS, load
from latentgym.rewards import Grader, MathGrader, NumberGrader
from latentgym.testing import right_variants, wrong_variants

GRADERS: dict[str, Grader] = {
    "MATH": MathGrader(),
    "MATH500": MathGrader(),
    "GSM8K": NumberGrader(),
    "AIME2024": NumberGrader(integer_range=(0, 999)),
    "AIME2025": NumberGrader(integer_range=(0, 999)),
}
# Three letters behind `\triangle` are read as a word, and words are compared as they stand.
EXCEPTIONS = {(r"\dfrac{1}{7}\triangle ABC", r"\frac{1}{7}\triangle ABC")}
PAIRS_OF_REAL_DATA = 60_000


def golds(name: str, source: str | None) -> set[str]:
    found: set[str] = set()
    for split in DATASETS[name].splits:
        found |= {question.gold for question in load(DATASETS[name], split, source=source)}
    return found


def verdicts(name: str, source: str | None) -> Iterator[tuple[str, str, float, float, str]]:
    """Answer, gold answer, the score that is right, the score, and the status."""
    grader = GRADERS[name]
    for gold in sorted(golds(name, source)):
        for score, variants in ((1.0, right_variants(gold)), (0.0, wrong_variants(gold))):
            for _, answer in variants:
                if (answer, gold) not in EXCEPTIONS:
                    grade = grader.alone(answer, gold)
                    yield answer, gold, score, grade.score, grade.status


@pytest.mark.parametrize("name", GRADERS)
def test_variants_of_the_samples(name: str) -> None:
    missed = [v for v in verdicts(name, "sample") if v[2] != v[3] or v[4] == "refused"]
    assert not missed


def test_variants_of_all_gold_answers(real_data: str) -> None:
    count, missed = 0, []
    for name in GRADERS:
        for verdict in verdicts(name, None):
            count += 1
            missed += [verdict] * (verdict[2] != verdict[3] or verdict[4] == "refused")
    assert not missed
    assert count > PAIRS_OF_REAL_DATA
