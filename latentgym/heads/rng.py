"""Counter-based randomness: every draw is a pure function of what it is for.

The uniform behind each draw depends on (seed, question, sample, step, draw) and on nothing else:
not on the batch a row is in, the order of rows, the number of workers, or what was drawn before.
So the same seed gives the same rollouts at any batch size and after any resume; on any device, up
to the last place of its logarithms and cosines. The numbers are made where the model is: nothing
is copied between host and device, and nothing waits.

The mixing function is SplitMix64's finaliser (Steele, Lea and Flood, 2014), chained over the
counters, in int64: torch multiplies no others.

Legend: B rows, J numbers per row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


def _signed(x: int) -> int:
    """The int64 with the bits of an unsigned number."""
    return x - (1 << 64) if x >> 63 else x


_GOLDEN = _signed(0x9E3779B97F4A7C15)
_MIX_1 = _signed(0xBF58476D1CE4E5B9)
_MIX_2 = _signed(0x94D049BB133111EB)


def _shifted(x: Tensor, by: int) -> Tensor:
    """Shifted to the right, with zeros behind."""
    return (x >> by) & ((1 << (64 - by)) - 1)


def _mix(x: Tensor) -> Tensor:
    x = x + _GOLDEN
    x = (x ^ _shifted(x, 30)) * _MIX_1
    x = (x ^ _shifted(x, 27)) * _MIX_2
    return x ^ _shifted(x, 31)


Counters = Tensor | npt.NDArray[np.int64]


@dataclass(frozen=True)
class CounterRNG:
    """The randomness of one step of B rows: all that a head may draw.

    Attributes:
        key_B: int64 of shape (B,): a hash of (seed, question, sample, step) per row.
        noise_free_B: rows whose normal numbers are all zero; None for none.
    """

    key_B: Tensor
    noise_free_B: Tensor | None = None

    @classmethod
    def at(
        cls,
        seed: int,
        question_B: Counters,
        sample_B: Counters,
        step_B: Counters,
        device: torch.device | None = None,
    ) -> CounterRNG:
        """The random numbers of the rows that answer `question_B` for the `sample_B`-th time.

        Args:
            seed: of all numbers.
            question_B, sample_B, step_B: what they are for, int64 (B,).
            device: where they are made; None is where the counters are.
        """
        return cls.of_rows(seed, question_B, sample_B, device).at_step(step_B)

    @classmethod
    def of_rows(
        cls,
        seed: int,
        question_B: Counters,
        sample_B: Counters,
        device: torch.device | None = None,
    ) -> CounterRNG:
        """What the random numbers of all steps of some rows are made of; see `at`."""
        question, sample = (
            torch.as_tensor(x, dtype=torch.int64, device=device) for x in (question_B, sample_B)
        )
        key = _mix(torch.full_like(question, _signed(seed % 2**64)))
        return cls(_mix(_mix(key ^ question) ^ sample))

    def at_step(self, step_B: Counters) -> CounterRNG:
        """The random numbers of one step of rows; see `of_rows`."""
        step = torch.as_tensor(step_B, dtype=torch.int64, device=self.key_B.device)
        return CounterRNG(_mix(self.key_B ^ step), self.noise_free_B)

    def __getitem__(self, rows: Any) -> CounterRNG:
        """Of some rows, by their numbers or a mask."""
        at = torch.as_tensor(rows, device=self.key_B.device)
        noise_free = None if self.noise_free_B is None else self.noise_free_B[at]
        return CounterRNG(self.key_B[at], noise_free)

    def joined(self, other: CounterRNG) -> CounterRNG:
        """Those of the rows of both."""
        masks = [
            torch.zeros_like(rng.key_B, dtype=torch.bool)
            if rng.noise_free_B is None
            else rng.noise_free_B
            for rng in (self, other)
        ]
        none = self.noise_free_B is None and other.noise_free_B is None
        key_B = torch.cat([self.key_B, other.key_B])
        return CounterRNG(key_B, None if none else torch.cat(masks))

    def noise_free(self, rows_B: Tensor | npt.NDArray[np.bool_]) -> CounterRNG:
        """The same numbers, but the normal numbers of these rows are all zero."""
        return CounterRNG(self.key_B, torch.as_tensor(rows_B, device=self.key_B.device))

    def apart(self, purpose: int) -> CounterRNG:
        """Numbers for another purpose, independent of these: none is the same or noise-free.

        Args:
            purpose: a number of its own for each, 0 or more.
        """
        # A counter that `uniform` never reaches, whatever its stream.
        return CounterRNG(_mix(_mix(self.key_B) ^ _signed(1 << 63 | purpose)))

    def uniform(self, count: int, stream: int = 0) -> Tensor:
        """Uniform numbers in the open interval (0, 1), float64 of shape (B, count).

        Args:
            count: numbers per row.
            stream: rejection samplers take a new stream each round.
        """
        counter_J = torch.arange(count, device=self.key_B.device) + (stream << 32)
        # 52 bits, as with 53 the half would be rounded away, and a one could come out.
        bits_BJ = _shifted(_mix(_mix(self.key_B)[:, None] ^ counter_J), 12)
        return (bits_BJ.double() + 0.5) * 2.0**-52

    def normal(self, count: int, stream: int = 0) -> Tensor:
        """Standard normal numbers by Box and Muller, float64 of shape (B, count)."""
        u = self.uniform(2 * count, stream)
        radius = torch.sqrt(-2.0 * torch.log(u[:, :count]))
        normal = radius * torch.cos(2.0 * torch.pi * u[:, count:])
        if self.noise_free_B is not None:
            normal = torch.where(self.noise_free_B[:, None], 0.0, normal)
        return normal

    def log_gamma(self, alpha_BJ: Tensor) -> Tensor:
        """Logarithms of Gamma(alpha, 1) numbers, float64 of shape (B, J).

        Marsaglia and Tsang (2000) with their boost for alpha < 1. It stays in logarithms because a
        Dirichlet with tiny concentrations has components far below the smallest float. It looks at
        the numbers to see whether all are accepted, so it waits for the device.
        """
        alpha_BJ = alpha_BJ.double()
        count = alpha_BJ.shape[1]
        d = alpha_BJ + 1.0 - 1.0 / 3.0  # the boost makes every shape at least one
        c = 1.0 / torch.sqrt(9.0 * d)
        log_g = torch.full_like(alpha_BJ, torch.nan)
        pending = torch.ones_like(alpha_BJ, dtype=torch.bool)
        stream = 1
        while bool(pending.any()):
            x = self.normal(count, stream)
            u = self.uniform(count, stream + 1)
            v = (1.0 + c * x) ** 3
            log_v = torch.log(v)  # NaN where v is negative, which is not accepted
            accept = torch.log(u) < 0.5 * x.square() + d - d * v + d * log_v
            fresh = pending & (v > 0) & accept
            log_g = torch.where(fresh, torch.log(d) + log_v, log_g)
            pending &= ~fresh
            stream += 2
        return log_g + torch.log(self.uniform(count)) / alpha_BJ
