"""HR, NDCG and MRR against their definitions."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from latentgym.evaluation.ranking import CUTS, ranking_metrics


def test_some_ranks_by_hand() -> None:
    found = {name: value.tolist() for name, value in ranking_metrics([1, 2, 4, 0]).items()}
    assert found["hr@1"] == [1, 0, 0, 0] and found["hr@3"] == [1, 1, 0, 0]
    assert found["hr@5"] == [1, 1, 1, 0]
    assert found["ndcg@1"] == [1, 0, 0, 0]
    assert np.allclose(found["ndcg@5"], [1, 1 / math.log2(3), 1 / math.log2(5), 0])
    assert found["mrr"] == [1, 0.5, 0.25, 0]


@given(st.lists(st.integers(1, 30), min_size=1))
def test_ndcg_is_dcg_over_its_ideal(ranks: list[int]) -> None:
    metrics = ranking_metrics(ranks)
    for k in CUTS:
        for i, rank in enumerate(ranks):
            gains = [float(place == rank) for place in range(1, k + 1)]
            dcg = sum(gain / math.log2(place + 1) for place, gain in enumerate(gains, start=1))
            assert math.isclose(metrics[f"ndcg@{k}"][i], dcg)
            assert metrics[f"hr@{k}"][i] == sum(gains)


def test_longer_lists_find_no_less() -> None:
    metrics = ranking_metrics(np.arange(0, 40))
    for name in ("hr", "ndcg"):
        values = [metrics[f"{name}@{k}"] for k in CUTS]
        assert all((b >= a).all() for a, b in pairwise(values))
