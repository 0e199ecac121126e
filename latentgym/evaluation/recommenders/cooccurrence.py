"""Co-occurrence: what was bought after the items of a history.

Sequential rules (Ludewig and Jannach, User Modeling and User-Adapted Interaction 28, 2018): every
pair of purchases a, later b, of one customer is a rule from a to b whose weight is 1 / distance,
and a rule counts in proportion to the weights that leave a. Theirs speaks for the last item alone;
here every item of the history speaks, with weight 1 / place counted from the newest.

Legend: R rules, E entries of the catalogue, Q questions, N places in histories.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from latentgym.evaluation.recommenders.base import (
    Floats,
    Histories,
    Ints,
    Recommender,
    Targets,
    counts,
    purchases,
)

WINDOW = 10


class CoOccurrence(Recommender):
    """Scores an entry by the rules that lead to it; entries without any follow, by popularity.

    Memory goes with the number of different pairs within `WINDOW` of each other, not with E * E.
    """

    name = "cooccurrence"

    @property
    def config(self) -> Mapping[str, Any]:
        return {"window": WINDOW}

    def fit(
        self,
        histories: Histories,
        targets: Targets,
        n_entries: int,
        valid: tuple[Histories, Targets] | None = None,
    ) -> None:
        sequences = purchases(histories, targets, n_entries)
        count_E = counts(sequences, n_entries)
        self._behind_E: Floats = count_E / count_E.sum() - 1.0  # less than any rule's weight
        pair_R, self._weight_R = _rules(sequences, n_entries)
        from_R, self._to_R = np.divmod(pair_R, n_entries)
        leaving_E = np.bincount(from_R, self._weight_R, minlength=n_entries)
        self._weight_R /= leaving_E[from_R]
        # The rules of entry e are those from start_E[e] to start_E[e + 1].
        self._start_E = np.searchsorted(from_R, np.arange(n_entries + 1))

    def scores(self, histories: Histories) -> Floats:
        size = len(self._behind_E)
        lengths = [len(history) for history in histories]
        question_N = np.repeat(np.arange(len(histories)), lengths)
        item_N = np.concatenate([np.asarray(history, dtype=np.int64) for history in histories])
        share_N = np.concatenate([1.0 / np.arange(length, 0, -1) for length in lengths])
        rules_N = self._start_E[item_N + 1] - self._start_E[item_N]
        place_R = np.repeat(np.arange(len(item_N)), rules_N)
        first_N = self._start_E[item_N] - np.cumsum(rules_N) + rules_N
        rule_R = np.arange(len(place_R)) + first_N[place_R]
        cell_R = question_N[place_R] * size + self._to_R[rule_R]
        weight_R = self._weight_R[rule_R] * share_N[place_R]
        total = np.bincount(cell_R, weight_R, minlength=len(histories) * size)
        score_QE = total.reshape(len(histories), size)
        return np.where(score_QE > 0, score_QE, self._behind_E)


def _rules(sequences: Histories, n_entries: int) -> tuple[Ints, Floats]:
    """All pairs as from * E + to, in order, and their weights."""
    item_N = np.concatenate([np.asarray(s, dtype=np.int64) for s in sequences])
    customer_N = np.repeat(np.arange(len(sequences)), [len(s) for s in sequences])
    pairs: list[Ints] = []
    weights: list[Floats] = []
    for distance in range(1, min(WINDOW, len(item_N) - 1) + 1):
        same = customer_N[distance:] == customer_N[:-distance]
        pair = item_N[:-distance][same] * n_entries + item_N[distance:][same]
        pairs.append(pair)
        weights.append(np.full(len(pair), 1.0 / distance))
    pair_R, rule_of = np.unique(np.concatenate(pairs), return_inverse=True)
    weight_R: Floats = np.bincount(rule_of.ravel(), np.concatenate(weights)).astype(np.float64)
    return pair_R, weight_R
