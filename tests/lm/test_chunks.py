"""Rows in chunks: the same numbers and gradients as all rows at once."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from latentgym.lm.chunks import in_chunks


@pytest.mark.parametrize("most", [1, 3, 7, 100])
def test_they_are_the_whole(most: int) -> None:
    head, x, label = nn.Linear(4, 50), torch.randn(7, 4, requires_grad=True), torch.arange(7)
    sizes = []

    def loss(hidden: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        sizes.append(len(hidden))
        logits = head(hidden)
        return nn.functional.cross_entropy(logits, label, reduction="none"), logits.argmax(-1)

    found = []
    for size in (7, most):
        head.zero_grad()
        x.grad = None
        value, best = in_chunks(loss, size, x, label)
        (value * torch.arange(7)).sum().backward()
        found.append([value.detach(), best, x.grad, *(p.grad for p in head.parameters())])
    for one, other in zip(*found, strict=True):
        assert_close(one, other)
    assert max(sizes[1:]) == min(most, 7)
    sizes.clear()
    with torch.no_grad():
        in_chunks(loss, most, x, label)
    assert sum(sizes) == 7  # nothing is computed twice
