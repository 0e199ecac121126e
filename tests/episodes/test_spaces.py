"""Actions of the three families: what they are read by, and which are refused."""

from __future__ import annotations

from collections import Counter
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from latentgym.episodes.spaces import CONTINUOUS, FAMILIES, HYBRID, TOKEN, dominant, family
from latentgym.errors import ActionError, UsageError

V, D, K, N = 11, 4, 3, 5
NAMES = sorted(FAMILIES)


def batch(name: str) -> Any:
    return gym.vector.utils.batch_space(family(name).space(V, D, K), N)


@pytest.mark.parametrize("name", NAMES)
@given(tokens=hnp.arrays(np.int64, N, elements=st.integers(0, V - 1)))
def test_what_is_spoken_is_in_the_space_and_read_back(name: str, tokens: Any) -> None:
    action = family(name).speak(tokens, D, K)
    assert action in batch(name)
    assert family(name).read(action, V).tolist() == tokens.tolist()


@pytest.mark.parametrize("name", NAMES)
def test_random_actions_are_read(name: str) -> None:
    space = batch(name)
    space.seed(0)
    tokens = family(name).read(space.sample(), V)
    assert tokens.shape == (N,) and tokens.dtype == np.int64
    assert 0 <= tokens.min() <= tokens.max() < V


@given(
    hnp.arrays(np.int64, (4, K), elements=st.integers(0, 3)),
    # Quarters add up without rounding, so that ties are ties.
    hnp.arrays(np.int64, (4, K), elements=st.integers(0, 4)),
)
def test_dominant_is_the_first_id_of_greatest_total_weight(ids: Any, quarters: Any) -> None:
    for row, weights, found in zip(ids, quarters, dominant(ids, quarters / 4), strict=True):
        total = Counter[int]()
        for token, weight in zip(row.tolist(), weights.tolist(), strict=True):
            total[token] += weight
        best = max(total.values())
        assert found == next(token for token in row if total[int(token)] == best)


def continuous(**changes: Any) -> dict[str, Any]:
    return {"ids": np.array([[1, 2]]), "weights": np.array([[0.5, 0.5]]), **changes}


def hybrid(**changes: Any) -> dict[str, Any]:
    vector = np.zeros((1, D), dtype=np.float32)
    return {"token": np.array([1]), "latent": vector, "gate": vector, **changes}


NAN = np.array([[np.nan, 0.5]])


@pytest.mark.parametrize(
    ("kind", "action", "sentence"),
    [
        (TOKEN, np.array([V]), r"must lie in \[0, 11\), but 11 does not"),
        (TOKEN, np.array([-1]), "but -1 does not"),
        (TOKEN, np.array([1.0]), "integer type, not float64"),
        (TOKEN, {"token": np.array([1])}, "integer type"),
        (HYBRID, np.array([1]), "dict with the keys .*not ndarray"),
        (HYBRID, {"token": np.array([1])}, r"not \['token'\]"),
        (HYBRID, hybrid(latent=np.full((1, D), np.inf)), "latent .*NaN or infinity"),
        (HYBRID, hybrid(gate=np.full((1, D), np.nan)), "gate .*NaN or infinity"),
        (HYBRID, hybrid(gate=np.full((1, D), 1.5)), r"gate .*\[0, 1\]"),
        (HYBRID, hybrid(token=np.array([V])), "token of a hybrid action"),
        (CONTINUOUS, np.array([1]), "dict with the keys"),
        (CONTINUOUS, continuous(extra=1), "dict with the keys"),
        (CONTINUOUS, continuous(weights=NAN), "weights .*NaN or infinity"),
        (CONTINUOUS, continuous(weights=np.array([[-0.1, 1.0]])), r"weights .*\[0, 1\]"),
        (CONTINUOUS, continuous(weights=np.array([[0.1, 1.1]])), r"weights .*\[0, 1\]"),
        (CONTINUOUS, continuous(weights=np.zeros((1, 2))), "cannot all be zero"),
        (CONTINUOUS, continuous(weights=np.array([[1.0]])), r"\(1, 2\) and weights of shape"),
        (CONTINUOUS, continuous(ids=np.array([[1, V]])), "but 11 does not"),
    ],
)
def test_bad_actions_are_refused_with_a_sentence(kind: Any, action: Any, sentence: str) -> None:
    with pytest.raises(ActionError, match=sentence):
        kind.read(action, V)


def test_a_superposition_wider_than_the_vocabulary_is_refused() -> None:
    with pytest.raises(UsageError, match="support <= 11"):
        CONTINUOUS.space(V, D, V + 1)


def test_an_unknown_family_suggests_one() -> None:
    with pytest.raises(UsageError, match="did you mean 'hybrid'"):
        family("hybird")
