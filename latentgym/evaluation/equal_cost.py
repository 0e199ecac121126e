"""Methods at equal cost: their curves of accuracy against cost, read at the same places.

A method with a knob, such as the number of samples, has a curve. Between two measured values it is
taken as straight in the logarithm of the cost; beyond the cheapest and the dearest it is not known.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

Points = list[tuple[float, float]]
"""Cost and accuracy of each value of a knob, the cheapest first; of a method without one, one."""

_MOST = 5  # costs


def at_cost(curve: Points, cost: float) -> float | None:
    """The accuracy of a curve at a cost; None where nothing was measured on both sides of it."""
    costs = [paid for paid, _ in curve]
    if not costs[0] <= cost <= costs[-1] or costs[0] <= 0:
        return None
    return float(np.interp(math.log(cost), np.log(costs), [reached for _, reached in curve]))


def equal_costs(found: Mapping[str, Points]) -> list[float]:
    """Costs that were measured and that a curve and another method can be read at, a few of them.

    Args:
        found: curve of each method.
    """
    measured = sorted({paid for curve in found.values() for paid, _ in curve})
    shared = []
    for cost in measured:
        there = [curve for curve in found.values() if at_cost(curve, cost) is not None]
        if len(there) > 1 and any(len(curve) > 1 for curve in there):
            shared.append(cost)
    if len(shared) <= _MOST:
        return shared
    return [shared[round(i)] for i in np.linspace(0, len(shared) - 1, _MOST)]
