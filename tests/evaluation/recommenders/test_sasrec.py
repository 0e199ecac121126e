"""SASRec: better than popularity within seconds, the same twice, quiet, and tidy."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from latentgym.errors import UsageError
from latentgym.evaluation.recommenders import make_recommender
from latentgym.evaluation.recommenders.popularity import Popularity
from latentgym.evaluation.recommenders.sasrec import SASRec, SASRecSettings, _pieces

FAST = SASRecSettings(width=16, heads=1, dropout=0.1, lr=0.01, batch=32, epochs=3)


def needs_rectools() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("rectools.models", reason="needs RecTools (extra recommend)")
        pytest.importorskip("pytorch_lightning", reason="needs RecTools (extra recommend)")


def test_every_purchase_is_a_target_once() -> None:
    assert list(_pieces([[0, 1, 2, 3, 4, 5], [6, 7]], 2)) == [[0, 1, 2], [2, 3, 4], [4, 5], [6, 7]]


def test_it_learns_the_same_twice_and_leaves_everything_as_it_was(
    small_shop: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    needs_rectools()
    monkeypatch.chdir(tmp_path)
    random, strict = torch.get_rng_state(), torch.are_deterministic_algorithms_enabled()
    made = small_shop.fitted(SASRec(3, FAST))
    again = small_shop.fitted(SASRec(3, FAST))
    histories = small_shop.rows["test"][0]
    score_QE = made.scores(histories)
    assert np.array_equal(score_QE, again.scores(histories))
    assert np.allclose(score_QE[:3], made.scores(histories[:3]), atol=1e-5)
    assert small_shop.value(score_QE) > small_shop.measured(Popularity()) + 0.1
    assert 1 <= made.trained["best_epoch"] <= made.trained["epochs"] == FAST.epochs
    assert capfd.readouterr() == ("", "") and os.listdir() == []
    assert torch.equal(random, torch.get_rng_state())
    assert strict == torch.are_deterministic_algorithms_enabled()


def test_what_training_never_saw() -> None:
    needs_rectools()
    made = SASRec(0, SASRecSettings(width=4, heads=1, epochs=2))
    made.fit([[0], [0, 1], [3]], [1, 2, 2], 6, ([[0], [5]], [1, 4]))
    known, unknown = made.scores([[5, 0], [4, 5]])
    assert max(known[[4, 5]]) < min(known[:4])
    assert unknown.tolist() == pytest.approx([1 / 5, 1 / 5, 2 / 5, 1 / 5, 0, 0])


def test_it_wants_validation_rows() -> None:
    needs_rectools()
    with pytest.raises(UsageError, match="validation rows"):
        SASRec().fit([[0]], [1], 2)


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "latentgym.evaluation.recommenders._rectools", raising=False)
    monkeypatch.delattr("latentgym.evaluation.recommenders._rectools", raising=False)
    monkeypatch.setitem(sys.modules, "rectools", None)
    with pytest.raises(UsageError, match=r"pip install --no-deps rectools"):
        make_recommender("sasrec")
