"""The curves of a suite's methods: accuracy against cost, for every value of a knob."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from latentgym.evaluation.columns import COSTS
from latentgym.evaluation.equal_cost import Points
from latentgym.evaluation.suites.cells import Cell, results_of


def curves(cells: Sequence[Cell], out: Path, cost: str) -> dict[str, Points]:
    """The curve of each method; one without a knob has a single point.

    Args:
        cells: of one task. Values under several seeds are their means; those without results are
            left out.
        out: folder of the suite's runs.
        cost: name of one of `COSTS`.
    """
    found: dict[str, Points] = {}
    for cell in cells:
        results = [result for _, result in results_of([cell], out)]
        if results:
            paid = float(np.mean([COSTS[cost].of(r) for r in results]))
            reached = float(np.mean([r.accuracy for r in results]))
            name = cell.name if cell.knob is None else cell.knob.of
            found.setdefault(name, []).append((paid, reached))
    return {name: sorted(points) for name, points in found.items()}
