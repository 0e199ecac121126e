"""Numbers of single positions, pooled by what stands there.

Means are over positions, all sequences together; so a long sequence counts for more. The first
position of a sequence is left out but where a name says that it is in: language models keep a sink
there that is a hundred times as large as all else.

Legend: N rows, T positions.
"""

from __future__ import annotations

from math import isfinite
from typing import Any

import torch
from torch import Tensor

from latentgym.analysis.sequences import PositionKind, Sequences

ALL, WITH_FIRST = "all", "with_first"
DEFINITION = (
    "mean and max over positions, all sequences pooled; 'all' and each kind of position without "
    "the first position of a sequence, 'with_first' with it"
)


def groups(sequences: Sequences) -> dict[str, Tensor]:
    """Which positions are pooled together, bool (N, T), by the name of the group."""
    mask, first = sequences.mask_NT, sequences.first_NT
    kinds = {
        kind.name.lower(): (sequences.kind_NT == kind) & ~first
        for kind in PositionKind
        if kind != PositionKind.PAD
    }
    return {ALL: mask & ~first, WITH_FIRST: mask, **kinds}


class Pool:
    """Sums, counts and maxima of numbers at positions, one for each cell of a table.

    Args:
        shape: of the table, such as (L,) for layers.
    """

    def __init__(self, *shape: int) -> None:
        self.shape = shape
        self._sum: dict[str, Tensor] = {}
        self._max: dict[str, Tensor] = {}
        self._count: dict[str, Tensor] = {}

    def add(self, cell: tuple[int, ...], value_NT: Tensor, where: dict[str, Tensor]) -> None:
        """Count the numbers of some sequences into one cell.

        Args:
            cell: its indices.
            value_NT: one number for each position.
            where: the groups that positions belong to, see `groups`.
        """
        for name, where_NT in where.items():
            chosen = value_NT[where_NT].double().cpu()
            if not len(chosen):
                continue
            if name not in self._sum:
                self._sum[name] = torch.zeros(self.shape, dtype=torch.double)
                self._count[name] = torch.zeros(self.shape, dtype=torch.double)
                self._max[name] = torch.full(self.shape, float("-inf"), dtype=torch.double)
            self._sum[name][cell] += chosen.sum()
            self._count[name][cell] += len(chosen)
            self._max[name][cell] = torch.maximum(self._max[name][cell], chosen.max())

    @property
    def groups(self) -> tuple[str, ...]:
        """The groups of which anything was counted."""
        return tuple(self._sum)

    def mean(self, group: str = ALL) -> Tensor:
        """Means of a group, fp64 of the table's shape; nan where nothing was counted."""
        return self._sum[group] / self._count[group]

    def max(self, group: str = ALL) -> Tensor:
        """Maxima of a group; nan where nothing was counted."""
        return self._max[group].masked_fill(self._count[group] == 0, float("nan"))

    def as_dict(self) -> dict[str, dict[str, Any]]:
        """All of it by group, for a record; None where nothing was counted."""
        return {
            name: {
                "mean": plain(self.mean(name)),
                "max": plain(self.max(name)),
                "positions": int(self._count[name].max()),
            }
            for name in self._sum
        }


def plain(table: Tensor) -> Any:
    """Nested lists for a record, with None for what is not finite."""
    if table.dim() > 1:
        return [plain(row) for row in table]
    return [x if isfinite(x) else None for x in table.tolist()]
