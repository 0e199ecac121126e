"""What a head sees, at random."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from latentgym.heads import Readout
from latentgym.heads.rng import CounterRNG


@pytest.fixture(scope="session")
def make_read() -> Callable[..., Readout]:
    """`make_read(rows, V=.., D=.., same=..)`: logits and table at random, or equal in all rows."""

    def make(rows: int, V: int = 9, D: int = 6, same: bool = False, seed: int = 0) -> Readout:
        g = torch.Generator().manual_seed(seed)
        logits = 2 * torch.randn(1 if same else rows, V, generator=g)
        table = torch.randn(V, D, generator=g)
        return Readout(logits.expand(rows, V), torch.randn(rows, D, generator=g), table)

    return make


@pytest.fixture(scope="session")
def make_rng() -> Callable[[int], CounterRNG]:
    """`make_rng(rows)`: the random numbers of the first sample of as many questions."""

    def make(rows: int) -> CounterRNG:
        zeros = np.zeros(rows, dtype=np.int64)
        return CounterRNG.at(0, np.arange(rows), zeros, zeros)

    return make
