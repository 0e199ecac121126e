"""Popularity against counts by hand."""

from __future__ import annotations

from latentgym.evaluation.recommenders.popularity import Popularity


def test_each_purchase_counts_once_whatever_histories_repeat() -> None:
    # One customer bought 3, 1, 1, 2; another 1, 2.
    made = Popularity()
    made.fit([[3], [3, 1], [3, 1, 1], [1]], [1, 1, 2, 2], 5)
    assert made.scores([[0], [1, 2]]).tolist() == [[0.0, 3 / 6, 2 / 6, 1 / 6, 0.0]] * 2
