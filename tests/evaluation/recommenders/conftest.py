"""A small shop whose law is known, as rows of training, validation and test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from latentgym.data import DATASETS
from latentgym.data.recommendation import generated, shop_of
from latentgym.data.shop import Shop, ShopSettings
from latentgym.evaluation.ranking import ranking_metrics
from latentgym.evaluation.recommenders.base import Floats, ranks


@dataclass(frozen=True)
class SmallShop:
    """A shop, and its rows by split: histories and targets."""

    shop: Shop
    rows: dict[str, tuple[list[list[int]], list[int]]]

    @property
    def entries(self) -> int:
        return len(self.shop.titles)

    def value(self, score_QE: Floats) -> float:
        """NDCG@10 of scores of the test rows."""
        rank_Q = ranks(score_QE, np.array(self.rows["test"][1]))
        return float(ranking_metrics(rank_Q)["ndcg@10"].mean())

    def fitted(self, recommender: Any) -> Any:
        valid = self.rows["valid"] if recommender.validates else None
        recommender.fit(*self.rows["train"], self.entries, valid)
        return recommender

    def measured(self, recommender: Any) -> float:
        return self.value(self.fitted(recommender).scores(self.rows["test"][0]))


@pytest.fixture(scope="session")
def small_shop() -> SmallShop:
    settings = ShopSettings(items=60, customers=400, purchases=10, genres=3)
    rows = {}
    for split in ("train", "valid", "test"):
        data, catalogue = generated(DATASETS["MovieLens"], split, settings)
        extra = [question.extra for question in data]
        histories = [[catalogue.entry_of[i] for i in e["history"]] for e in extra]
        rows[split] = histories, [catalogue.entry_of[e["item"]] for e in extra]
    return SmallShop(shop_of(settings), rows)
