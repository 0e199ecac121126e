"""The quick top-k is that of torch."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from latentgym.heads.top import top_k


def check(x: torch.Tensor, k: int) -> None:
    values, ids = top_k(x, k)
    assert torch.equal(values, x.topk(k, dim=-1).values)
    assert torch.equal(x.gather(-1, ids), values)
    assert all(len(set(row)) == k for row in ids.reshape(-1, k).tolist())
    # Without equal values there is one answer only.
    if all(len(set(row)) == len(row) for row in x.reshape(-1, x.shape[-1]).tolist()):
        assert torch.equal(ids, x.topk(k, dim=-1).indices)


@settings(max_examples=60, deadline=None)
@given(
    width=st.integers(1, 9000),
    k=st.integers(1, 70),
    rows=st.lists(st.integers(1, 3), max_size=2),
    levels=st.sampled_from([1, 2, 7, 100, 0]),
    seed=st.integers(0, 2**31),
)
def test_top_k_is_that_of_torch(
    width: int, k: int, rows: list[int], levels: int, seed: int
) -> None:
    """Any shape, and values that are all different, often equal, or all equal."""
    generator = torch.Generator().manual_seed(seed)
    shape = (*rows, width)
    if levels:
        x = torch.randint(levels, shape, generator=generator).float()
        x = x.masked_fill(x == 3, -torch.inf)
    else:
        x = torch.randn(shape, generator=generator, dtype=torch.float64)
    check(x, min(k, width))


@pytest.mark.parametrize("place", [0, 5000, 8191, 8192, 8199])
@pytest.mark.parametrize("ramp", [1.0, -1.0])
def test_the_largest_may_crowd_anywhere(place: int, ramp: float) -> None:
    """In one block, next to each other, at the ends, or in the rest that fills no block."""
    for stride in (1, 256):
        x = ramp * torch.arange(8200, dtype=torch.float64).repeat(2, 1)
        x[:, torch.arange(place, min(place + 20 * stride, 8200), stride)] += 1e5
        check(x, 20)


def test_a_row_has_its_top_whatever_stands_beside_it() -> None:
    x = torch.randint(5, (6, 8200), generator=torch.Generator().manual_seed(0)).float()
    together, alone = top_k(x, 9)[1], torch.cat([top_k(row[None], 9)[1] for row in x])
    assert torch.equal(together, alone)


def test_gradients_go_through() -> None:
    x = torch.randn(1, 8200, dtype=torch.float64, requires_grad=True)
    top_k(x, 3)[0].sum().backward()
    assert x.grad is not None and x.grad.sum() == 3
