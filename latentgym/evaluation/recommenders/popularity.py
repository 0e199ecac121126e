"""Popularity: what is bought most, whoever asks."""

from __future__ import annotations

import numpy as np

from latentgym.evaluation.recommenders.base import (
    Floats,
    Histories,
    Recommender,
    Targets,
    counts,
    purchases,
)


class Popularity(Recommender):
    """Scores an entry by its share of the training purchases, each of them counted once."""

    name = "popularity"

    def fit(
        self,
        histories: Histories,
        targets: Targets,
        n_entries: int,
        valid: tuple[Histories, Targets] | None = None,
    ) -> None:
        count_E = counts(purchases(histories, targets, n_entries), n_entries)
        self._share_E: Floats = count_E / count_E.sum()

    def scores(self, histories: Histories) -> Floats:
        return np.tile(self._share_E, (len(histories), 1))
