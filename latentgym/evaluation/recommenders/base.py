"""What a recommender is, and the purchases that it learns from.

Items are entries of a catalogue, numbered from 0. A training row is what somebody bought before,
oldest first, and what next.

Legend: E entries of the catalogue, Q questions.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from latentgym.errors import UsageError

Histories = Sequence[Sequence[int]]
Targets = Sequence[int]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
_End = tuple[bool, tuple[int, ...]]  # purchases, and whether they are all of a customer's

_LEAST_OVERLAP = 2  # one item in common is no sign of the same customer


class Recommender(ABC):
    """Scores all entries of a catalogue by how likely they come next.

    Args:
        seed: of whatever is random in it.

    Attributes:
        name: of the method.
        validates: whether `fit` uses validation rows.
        device: where it computes.
        trained: what there is to tell of `fit`, plain data by name.
    """

    name: ClassVar[str]
    validates: ClassVar[bool] = False
    device: str = "cpu"
    trained: Mapping[str, Any] = MappingProxyType({})

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    @property
    def config(self) -> Mapping[str, Any]:
        """Its settings, plain data by name."""
        return {}

    @abstractmethod
    def fit(
        self,
        histories: Histories,
        targets: Targets,
        n_entries: int,
        valid: tuple[Histories, Targets] | None = None,
    ) -> None:
        """Learn from purchases.

        Args:
            histories: of each training row, oldest first; not empty.
            targets: what was bought next.
            n_entries: of the catalogue.
            valid: rows by which to stop; None for recommenders that do not validate.

        Raises:
            UsageError: no rows, or an entry that the catalogue does not have.
        """

    @abstractmethod
    def scores(self, histories: Histories) -> Floats:
        """A score of every entry after each history, (Q, E), finite; higher is better.

        The caller takes care that Q * E numbers fit into memory.
        """


def purchases(histories: Histories, targets: Targets, n_entries: int) -> list[list[int]]:
    """What customers bought, in order, each purchase once.

    The histories of a customer's rows overlap, and show at most so many of the newest purchases.
    A row goes on with an earlier one of which its history has at least the last two purchases; a
    history shorter than the longest is a customer's whole past, and goes on only with all of an
    earlier row. Rows of one customer must come in time; those of several may be mixed. Who bought
    is not asked, so customers with the very same past may be taken for each other, which changes
    no count.

    Args:
        histories, targets: training rows.
        n_entries: of the catalogue.

    Returns:
        The sequences, each of two purchases or more.

    Raises:
        UsageError: no rows, a row without history, or an entry that the catalogue does not have.
    """
    if not histories or len(histories) != len(targets):
        raise UsageError(
            f"there are {len(histories)} histories and {len(targets)} targets; give as many of "
            "both, at least one."
        )
    window = max(map(len, histories))
    found: list[list[int]] = []
    # Which sequences a row may go on with, the latest last; a dict, as one is removed at once.
    ends: dict[_End, dict[int, None]] = defaultdict(dict)
    for history, target in zip(histories, targets, strict=True):
        row = [*history, target]
        if len(row) < 2 or min(row) < 0 or max(row) >= n_entries:
            raise UsageError(
                f"a row of {row} does not fit a catalogue of {n_entries} entries; give one or more "
                "purchases and what came next, by their entries."
            )
        number, known = _earlier(row, window, ends)
        if known:
            for end in _ends(found[number], window):
                del ends[end][number]
                if not ends[end]:
                    del ends[end]
            found[number] += row[known:]
        else:
            number = len(found)
            found.append(row)
        for end in _ends(found[number], window):
            ends[end][number] = None
    return found


def _earlier(
    row: Sequence[int], window: int, ends: Mapping[_End, dict[int, None]]
) -> tuple[int, int]:
    """Which sequence a row goes on with, and how many of the row's purchases that has already."""
    whole = len(row) - 1 < window
    for known in range(len(row) - 1, _LEAST_OVERLAP - 1, -1):
        if there := ends.get((whole, tuple(row[:known]))):
            return next(reversed(there)), known
    return 0, 0


def _ends(sequence: Sequence[int], window: int) -> Iterator[_End]:
    """What the history of a row may begin with to go on with this sequence."""
    for length in range(_LEAST_OVERLAP, min(window, len(sequence)) + 1):
        yield False, tuple(sequence[-length:])
    if len(sequence) <= window:
        yield True, tuple(sequence)


def counts(sequences: Sequence[Sequence[int]], n_entries: int) -> Ints:
    """How often each entry was bought, (E,)."""
    return np.bincount(np.concatenate([*map(np.asarray, sequences)]), minlength=n_entries)


def ranks(scores_QE: Floats, entry_Q: Ints) -> Ints:
    """The rank of one entry in each row of scores, 1 for the best; equals rank by number.

    Args:
        scores_QE: higher is better; an entry of minus infinity is not ranked.
        entry_Q: whose rank is asked for.

    Returns:
        int64 (Q,), 0 for an entry that is not ranked.
    """
    own_Q1 = np.take_along_axis(scores_QE, entry_Q[:, None], axis=1)
    before_QE = np.arange(scores_QE.shape[1]) < entry_Q[:, None]
    rank_Q = 1 + ((scores_QE > own_Q1) | (scores_QE == own_Q1) & before_QE).sum(1)
    return np.where(np.isneginf(own_Q1[:, 0]), 0, rank_Q)


def best(scores_E: Floats, most: int) -> Ints:
    """The entries of the highest scores, best first; equals by number, unranked ones left out."""
    most = min(most, len(scores_E))
    edge = np.partition(scores_E, -most)[-most]
    rivals = np.flatnonzero((scores_E >= edge) & ~np.isneginf(scores_E))
    return rivals[np.argsort(-scores_E[rivals], kind="stable")][:most]
