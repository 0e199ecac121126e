"""Co-occurrence against sums by hand, and on a shop whose law is known."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest

from latentgym.evaluation.recommenders.cooccurrence import CoOccurrence
from latentgym.evaluation.recommenders.popularity import Popularity


def test_rules_by_hand() -> None:
    """Customers 0, 1, 2 and 0, 2: from 0 to 1 weighs 1, from 0 to 2 1/2 + 1; from 1 to 2 1."""
    made = CoOccurrence()
    made.fit([[0], [0, 1], [0]], [1, 2, 2], 4)
    after_0, after_1, after_both = made.scores([[0], [1], [0, 1]])
    assert after_0[[1, 2]] == pytest.approx([1 / 2.5, 1.5 / 2.5])
    assert after_1[2] == pytest.approx(1.0)
    assert after_both[[1, 2]] == pytest.approx([0.5 * 1 / 2.5, 1.0 + 0.5 * 1.5 / 2.5])
    # The others follow by popularity: 2 of 5 purchases were 0, none was 3.
    assert after_both[[0, 3]] == pytest.approx([2 / 5 - 1, -1.0])


def test_an_item_counts_as_often_as_it_is_shown() -> None:
    made = CoOccurrence()
    made.fit([[0], [2]], [1, 3], 4)
    assert made.scores([[0, 0]])[0, 1] == pytest.approx(1.5)


def test_memory_goes_with_pairs() -> None:
    """A table of all pairs would take 20 GB."""
    made, rng = CoOccurrence(), np.random.default_rng(0)
    histories = rng.integers(50_000, size=(300, 10)).tolist()
    tracemalloc.start()
    made.fit(histories, rng.integers(50_000, size=300).tolist(), 50_000)
    assert made.scores(histories[:2]).shape == (2, 50_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50e6


def test_between_popularity_and_the_law(small_shop: Any) -> None:
    law = np.stack([small_shop.shop.law(h) for h in small_shop.rows["test"][0]])
    popularity, found = map(small_shop.measured, (Popularity(), CoOccurrence()))
    assert popularity + 0.1 < found < small_shop.value(law) - 0.1
