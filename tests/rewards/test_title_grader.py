"""Titles are graded exactly, whatever a model says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentgym.rewards import GraderError, TitleGrader

TITLES = ("Hot", "Hot Rocks", 'Say "Hi"', '"Heroes"', "<span class=x", "Amélie")
GRADER = TitleGrader(TITLES)


@pytest.mark.parametrize("title", TITLES)
def test_a_title_is_right_with_and_without_quotes(title: str) -> None:
    for said in (f'"{title}"', f'  "{title}"\n', title):
        grade = GRADER(said, title)
        assert grade.score == 1 and grade.components == {"correct": 1.0, "format": 1.0}


@pytest.mark.parametrize(
    ("said", "status", "known"),
    [
        ('"Hot"', "ok", 1.0),
        ('"hot rocks"', "ok", 0.0),
        ("Hot Rocks and more", "ok", 0.0),
        ("", "no_answer", 0.0),
        ('""', "no_answer", 0.0),
        ("x" * (1 << 19), "too_long", 0.0),
    ],
)
def test_anything_else_is_wrong(said: str, status: str, known: float) -> None:
    grade = GRADER(said, "Hot Rocks")
    assert (grade.score, grade.status, grade.components["format"]) == (0, status, known)


@given(st.text())
def test_no_text_makes_it_raise(said: str) -> None:
    grade = GRADER(said, "Hot")
    assert (grade.score == 1) == (grade.parsed == "Hot")


def test_a_gold_title_outside_the_catalogue_is_the_datas_fault() -> None:
    with pytest.raises(GraderError, match="no title"):
        GRADER("Hot", "Cold")
