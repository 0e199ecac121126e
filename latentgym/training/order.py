"""In which order questions are asked."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from latentgym.episodes.rng import derive
from latentgym.errors import Notice, UsageError
from latentgym.text.lengths import how_long, too_long

IntArray = npt.NDArray[np.int64]
_SKIP = "or leave them out with --skip-long"


def batch_indices(n: int, size: int, seed: int, number: int) -> IntArray:
    """The items of batch `number`: epochs of shuffled items, as a function of its arguments.

    Args:
        n: items in all.
        size: of a batch; it may span epochs.
        seed: of the shuffles.
        number: of the batch, from 0.

    Returns:
        int64 (size,).
    """
    positions = np.arange(number * size, (number + 1) * size)
    epochs = positions // n
    out = np.empty(size, dtype=np.int64)
    for epoch in np.unique(epochs):
        order = np.random.default_rng(derive(seed, int(epoch))).permutation(n)
        out[epochs == epoch] = order[positions[epochs == epoch] % n]
    return out


class Order:
    """The questions of each batch.

    Args:
        n: questions of the environment.
        size: of a batch.
        seed: of the shuffles.
        spare: most questions that may be asked in the place of others of a batch.

    Attributes:
        kept: the questions that are asked, all of them unless some are left out; int64.
    """

    def __init__(self, n: int, size: int, seed: int, spare: int = 0) -> None:
        self.kept: IntArray = np.arange(n)
        self.size, self.seed, self.spare = size, seed, spare

    def batch(self, number: int) -> IntArray:
        """The questions of batch `number`, int64 (size,)."""
        return self.kept[batch_indices(len(self.kept), self.size, self.seed, number)]

    def others(self, number: int) -> IntArray:
        """Questions that batch `number` does not ask, in an order of its own; at most `spare`.

        They are a function of the arguments, so asking them moves no batch that comes after.
        """
        if not self.spare:
            return self.kept[:0]
        rest = np.setdiff1d(self.kept, self.batch(number))
        rng = np.random.default_rng(derive(self.seed, number, 1))
        found: IntArray = rng.permutation(rest)[: self.spare]
        return found

    def asked(self, batches: int) -> IntArray:
        """The questions that the first so many batches may ask, each once."""
        if batches * self.size >= len(self.kept):
            return self.kept
        first = [self.batch(i) for i in range(batches)]
        return np.unique(np.concatenate([*first, *map(self.others, range(batches))]))

    def leave_out(self, questions: Sequence[int]) -> None:
        """Never ask these.

        Raises:
            UsageError: none would be left.
        """
        kept = np.setdiff1d(self.kept, np.array(questions, dtype=np.int64))
        if not len(kept):
            raise UsageError(
                f"all {len(self.kept)} questions are held out, so none is left to train on; train "
                "on more, or give --eval-split."
            )
        self.kept = kept

    def fit(
        self, batches: int, positions: Callable[[int], int], limit: int | None, *, skip_long: bool
    ) -> None:
        """Make sure that the model can read what it will be asked, or leave out what it cannot.

        Args:
            batches: that will be asked.
            positions: the most that an episode of a question can take.
            limit: positions of the model; None for no limit.
            skip_long: leave questions out that are too long, of all that there are.

        Raises:
            UsageError: some are too long, or with `skip_long` all.
        """
        questions = self.kept if skip_long else self.asked(batches)
        long = too_long(questions, positions, limit)
        if not long:
            return
        if not skip_long:
            raise UsageError(how_long(long, len(questions), limit, _SKIP))
        self.kept = np.setdiff1d(self.kept, np.fromiter(long, np.int64))
        if not len(self.kept):
            raise UsageError(how_long(long, len(questions), limit))
        warnings.warn(
            f"{len(long)} of {len(questions)} questions are left out, as they need more than the "
            f"model's {limit} positions.",
            Notice,
            stacklevel=2,
        )
