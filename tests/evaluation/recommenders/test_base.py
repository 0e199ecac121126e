"""Purchases are counted once each, and ranks are exact."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentgym.errors import UsageError
from latentgym.evaluation.recommenders import RECOMMENDERS, make_recommender
from latentgym.evaluation.recommenders.base import best, purchases, ranks


def shown(sequence: list[int], window: int) -> tuple[list[list[int]], list[int]]:
    """The rows that a customer's purchases make."""
    places = range(1, len(sequence))
    return [sequence[max(0, t - window) : t] for t in places], [sequence[t] for t in places]


@given(st.lists(st.permutations(range(12)), min_size=1, max_size=4), st.integers(2, 5))
def test_rows_of_a_customer_become_what_the_customer_bought(
    customers: list[list[int]], window: int
) -> None:
    """Mixed in time, as in a generated shop."""
    owned = [[i + 12 * n for i in items] for n, items in enumerate(customers)]
    rows = [row for step in zip(*(zip(*shown(s, window), strict=True) for s in owned), strict=True)
            for row in step]  # fmt: skip
    histories, targets = map(list, zip(*rows, strict=True))
    assert sorted(purchases(histories, targets, 12 * len(owned))) == sorted(owned)


def test_rows_with_gaps_between_them_are_joined_where_they_overlap() -> None:
    histories = [[0, 1, 2, 3], [2, 3, 4, 5], [9, 8, 7, 6]]
    assert purchases(histories, [4, 6, 5], 10) == [[0, 1, 2, 3, 4, 5, 6], [9, 8, 7, 6, 5]]


def test_a_short_history_is_a_whole_past() -> None:
    """Somebody who begins with what another ended with is not that other."""
    histories = [[0, 1, 2, 3], [3, 4]]
    assert purchases(histories, [4, 5], 6) == [[0, 1, 2, 3, 4], [3, 4, 5]]


@given(st.lists(st.lists(st.integers(0, 2), min_size=2, max_size=6), min_size=1, max_size=8))
def test_customers_who_are_alike_are_all_counted(customers: list[list[int]]) -> None:
    rows = [row for s in customers for row in zip(*shown(s, 9), strict=True)]
    histories, targets = map(list, zip(*rows, strict=True))
    made = purchases(histories, targets, 3)
    assert Counter(map(tuple, made)) == Counter(map(tuple, customers))


@pytest.mark.parametrize(
    ("histories", "targets", "says"),
    [
        ([], [], "at least one"),
        ([[0]], [1, 2], "as many of both"),
        ([[]], [1], "one or more purchases"),
        ([[0]], [4], "catalogue of 4 entries"),
        ([[-1]], [1], "catalogue of 4 entries"),
    ],
)
def test_rows_that_cannot_be_learned_from(
    histories: list[list[int]], targets: list[int], says: str
) -> None:
    with pytest.raises(UsageError, match=says):
        purchases(histories, targets, 4)


def test_ranks_with_equals_and_without_the_unranked() -> None:
    score = np.array([[0.5, 2.0, 0.5, 1.0, -np.inf]])
    ranked = [int(ranks(score, np.array([entry]))[0]) for entry in range(5)]
    assert ranked == [3, 1, 4, 2, 0]
    assert best(score[0], 3).tolist() == [1, 3, 0]
    assert best(score[0], 20).tolist() == [1, 3, 0, 2]


@given(st.lists(st.integers(0, 3), min_size=1, max_size=9), st.integers(1, 9))
def test_the_best_are_those_of_the_first_ranks(scores: list[int], most: int) -> None:
    score = np.array([scores], dtype=np.float64)
    by_rank = sorted(range(len(scores)), key=lambda e: int(ranks(score, np.array([e]))[0]))
    assert best(score[0], most).tolist() == by_rank[:most]


def test_names() -> None:
    with pytest.raises(UsageError, match="did you mean 'popularity'"):
        make_recommender("popularty")
    with pytest.raises(UsageError, match="from 0 on"):
        make_recommender("popularity", -1)
    for name in ("popularity", "cooccurrence"):
        assert make_recommender(name).name == name and name in RECOMMENDERS


def test_one_row_is_enough() -> None:
    for name in ("popularity", "cooccurrence"):
        made: Any = make_recommender(name)
        made.fit([[0]], [1], 3)
        assert (
            best(made.scores([[0]])[0], 3).tolist()
            == ([0, 1, 2], [1, 0, 2])[name == "cooccurrence"]
        )
