"""What a reset of several rows is asked for, and the generators that choose their questions.

Shapes: N rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium.utils import seeding

from latentgym.errors import UsageError, told
from latentgym.system.options.keywords import Keyword, Option

BoolArray = npt.NDArray[np.bool_]

_GROUP = Keyword("group_size", (int,), 1, Option("", least=1))


@dataclass(frozen=True)
class Reset:
    """The options of a reset.

    Attributes:
        mask_N: the rows that start.
        group_size: so many neighbouring rows share a question.
        index: numbers of questions as they were given; None for any.
    """

    mask_N: BoolArray
    group_size: int
    index: Any

    @classmethod
    def of(cls, options: Mapping[str, Any] | None, n: int) -> Reset:
        """What `options` ask for, of an environment of n rows.

        Raises:
            UsageError: there is no such option, or a value cannot be meant.
        """
        if not isinstance(options, Mapping | None):
            raise UsageError(
                f"reset options are a mapping of names to values, not {told(options)}."
            )
        options = dict(options or {})
        mask_N = np.asarray(options.pop("reset_mask", np.ones(n, dtype=bool)))
        if mask_N.shape != (n,) or mask_N.dtype != bool:
            raise UsageError(f"reset_mask must hold {n} booleans, one per row.")
        group = options.pop("group_size", 1)
        _GROUP.check(group, "a reset")
        if (rows := int(mask_N.sum())) % group:
            raise UsageError(f"group_size {group} does not divide the {rows} rows that start.")
        index = options.pop("index", None)
        if options:
            raise UsageError(
                f"unknown reset options {sorted(map(str, options))}; known are index, reset_mask, "
                "group_size."
            )
        return cls(mask_N, int(group), index)


def numbers_of(chosen: Any) -> npt.NDArray[Any]:
    """Numbers of questions, as somebody has given them, in one dimension.

    Raises:
        UsageError: they are no whole numbers, or have more dimensions.
    """
    try:
        index = np.asarray(chosen)
    except (TypeError, ValueError):  # lists of unequal length
        index = np.empty((0, 0))
    if index.ndim > 1 or index.dtype.kind not in "iu":
        raise UsageError(
            "index is the number of a question, or one for each row that starts, not "
            f"{told(chosen)}."
        )
    return np.atleast_1d(index)


class RowGenerators:
    """The generator that each of n rows draws its questions with; made when it is first needed."""

    def __init__(self, n: int) -> None:
        self._rows: list[tuple[np.random.Generator, int] | None] = [None] * n

    def __getitem__(self, row: int) -> np.random.Generator:
        return self._known(row)[0]

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seed of each; -1 where somebody has given another generator."""
        return tuple(self._known(row)[1] for row in range(len(self._rows)))

    def seed(self, seed: int | Sequence[int | None] | None, mask_N: BoolArray) -> None:
        """Seed the rows that start, with `seed + row` or a seed for each; the others go on.

        Raises:
            UsageError: it is no seed, or not as many as there are rows.
        """
        if seed is None:
            return
        n = len(self._rows)
        if not isinstance(seed, Integral | Sequence | np.ndarray):
            raise UsageError(f"a seed is a whole number, or one for each row, not {told(seed)}.")
        seeds: list[Any] = (
            [int(seed) + i for i in range(n)] if isinstance(seed, Integral) else list(seed)
        )
        if len(seeds) != n:
            raise UsageError(f"{len(seeds)} seeds for {n} rows.")
        for row, value in enumerate(seeds):
            if value is not None and mask_N[row]:
                # NumPy's whole numbers are none for Gymnasium.
                number = int(value) if isinstance(value, Integral) else value
                self._rows[row] = seeding.np_random(number)

    def use(self, row: int, generator: np.random.Generator, seed: int = -1) -> None:
        """Let a row draw its questions with a generator of the caller's."""
        self._rows[row] = generator, seed

    def _known(self, row: int) -> tuple[np.random.Generator, int]:
        known = self._rows[row]
        if known is None:
            known = self._rows[row] = seeding.np_random(None)
        return known
