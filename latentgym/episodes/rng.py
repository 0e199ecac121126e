"""Seeds that are functions of what they are for, for generators of other libraries.

The numbers behind actions are `latentgym.heads.rng`'s, mixed in the same way.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)

UIntArray = npt.NDArray[np.uint64]


def _mix(x: UIntArray) -> UIntArray:
    with np.errstate(over="ignore"):
        x = x + _GOLDEN
        x = (x ^ (x >> np.uint64(30))) * _MIX_1
        x = (x ^ (x >> np.uint64(27))) * _MIX_2
        mixed: UIntArray = x ^ (x >> np.uint64(31))
    return mixed


def derive(*counters: int) -> int:
    """A 63-bit seed that is a function of all the counters, for generators of other libraries."""
    key = np.zeros((), dtype=np.uint64)
    for counter in counters:
        key = _mix(key ^ np.uint64(counter % 2**64))
    return int(key >> np.uint64(1))
