"""Counter-based randomness: every draw is a pure function of what it is for.

The uniform behind each draw depends on (seed, question, sample, step, draw) and on nothing else:
not on the batch a row is in, the order of rows, the number of workers, or what was drawn before.
So the same seed gives the same rollouts at any batch size and after any resume.

The mixing function is SplitMix64's finaliser (Steele, Lea and Flood, 2014), chained over the
counters. Shapes: B rows, J numbers per row.
"""

from __future__ import annotations

from dataclasses import dataclass

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


@dataclass(frozen=True)
class CounterRNG:
    """The randomness of one step of B rows.

    Attributes:
        key_B: uint64 of shape (B,): a hash of (seed, question, sample, step) per row.
        noise_free_B: rows whose normal numbers are all zero; None for none.
    """

    key_B: UIntArray
    noise_free_B: npt.NDArray[np.bool_] | None = None

    @classmethod
    def at(
        cls,
        seed: int,
        question_B: npt.NDArray[np.int64],
        sample_B: npt.NDArray[np.int64],
        step_B: npt.NDArray[np.int64],
    ) -> CounterRNG:
        """The random numbers of the rows that answer `question_B` for the `sample_B`-th time."""
        key = _mix(np.full(question_B.shape, seed % 2**64, dtype=np.uint64))
        for counter in (question_B, sample_B, step_B):
            key = _mix(key ^ counter.astype(np.uint64))
        return cls(key)

    def __getitem__(self, rows: npt.NDArray[np.int64] | npt.NDArray[np.bool_]) -> CounterRNG:
        return CounterRNG(
            self.key_B[rows], None if self.noise_free_B is None else self.noise_free_B[rows]
        )

    def noise_free(self, rows_B: npt.NDArray[np.bool_]) -> CounterRNG:
        """The same numbers, but the normal numbers of these rows are all zero."""
        return CounterRNG(self.key_B, rows_B if rows_B.any() else None)

    def apart(self, purpose: int) -> CounterRNG:
        """Numbers for another purpose, independent of these: none is the same or noise-free.

        Args:
            purpose: a number of its own for each, 0 or more.
        """
        # A counter that `uniform` never reaches, whatever its stream.
        return CounterRNG(_mix(_mix(self.key_B) ^ np.uint64(1 << 63 | purpose)))

    def uniform(self, count: int, stream: int = 0) -> npt.NDArray[np.float64]:
        """Uniform numbers in the open interval (0, 1), float64 of shape (B, count).

        Args:
            count: numbers per row.
            stream: rejection samplers take a new stream each round.
        """
        counters = np.arange(count, dtype=np.uint64) + np.uint64(stream << 32)
        # 52 bits, as with 53 the half would be rounded away, and a one could come out.
        bits = _mix(_mix(self.key_B)[:, None] ^ counters) >> np.uint64(12)
        unit: npt.NDArray[np.float64] = (bits.astype(np.float64) + 0.5) * 2.0**-52
        return unit

    def normal(self, count: int, stream: int = 0) -> npt.NDArray[np.float64]:
        """Standard normal numbers by Box and Muller, float64 of shape (B, count)."""
        u = self.uniform(2 * count, stream)
        radius = np.sqrt(-2.0 * np.log(u[:, :count]))
        normal: npt.NDArray[np.float64] = radius * np.cos(2.0 * np.pi * u[:, count:])
        if self.noise_free_B is not None:
            normal[self.noise_free_B] = 0.0
        return normal

    def log_gamma(self, alpha_BJ: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Logarithms of Gamma(alpha, 1) numbers, float64 of shape (B, J).

        Marsaglia and Tsang (2000) with their boost for alpha < 1. It stays in logarithms because a
        Dirichlet with tiny concentrations has components far below the smallest float.
        """
        count = alpha_BJ.shape[1]
        d = alpha_BJ + 1.0 - 1.0 / 3.0  # the boost makes every shape at least one
        c = 1.0 / np.sqrt(9.0 * d)
        log_g = np.full(alpha_BJ.shape, np.nan)
        pending = np.ones(alpha_BJ.shape, dtype=bool)
        stream = 1
        while pending.any():
            x = self.normal(count, stream)
            u = self.uniform(count, stream + 1)
            v = (1.0 + c * x) ** 3
            with np.errstate(invalid="ignore", divide="ignore"):
                log_v = np.log(v)
                accept = np.log(u) < 0.5 * x**2 + d - d * v + d * log_v
            fresh = pending & (v > 0) & accept
            log_g[fresh] = (np.log(d) + log_v)[fresh]
            pending &= ~fresh
            stream += 2
        boosted: npt.NDArray[np.float64] = log_g + np.log(self.uniform(count)) / alpha_BJ
        return boosted
