"""Faster linear layers for training on the CPU.

With many rows a product takes longer than packing its weight (see `latentgym.lm.packed`), so where
oneDNN's kernel is the faster one a weight is packed anew at every call, forward and backward, and
the copy is dropped: nothing has to be held, and an optimiser's step needs no notice.

    y = x W^T + b        packed W
    dL/dx = dL/dy W      packed W^T
    dL/dW = (dL/dy)^T x  plain, as no weight is streamed

Where MKL, which computes plain layers, has a kernel as wide, this loses: with AVX2 (Zen 3), one
thread and SmolLM2-135M's layers, time of plain over packed was .7 to .9 forward and .4 to .8 for
dL/dx at 256 to 2,048 rows. On AMD's processors with AVX-512 it was 1.6 at 256 rows and 2 from 1,024
on. The same measurement decides as for decoding.

Legend: x (..., I) and y (..., O), W (O, I), b (O,), R rows.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from latentgym.lm.packed import Worth, packable, replaced, wider

_MANY = Worth(range(256, sys.maxsize), 1 << 16)
_NOWHERE = Worth(range(0), sys.maxsize)


def worth() -> Worth:
    """Where packing anew pays on this processor."""
    return _MANY if wider() else _NOWHERE


@contextmanager
def packed_training(model: nn.Module) -> Iterator[None]:
    """Within it, large fp32 linear layers of `model` on the CPU pack their weights at each call.

    Forward and backward pass belong inside, as recomputed activations are computed in the backward
    pass. Results and gradients are those of plain layers up to rounding; second derivatives are
    refused. What is autocast to another type computes as ever.
    """

    def forward_of(layer: nn.Linear) -> Any:
        weight_OI = layer.weight
        if weight_OI.dtype != torch.float32 or not packable(layer):
            return None
        rows = worth().rows_for(weight_OI)
        return _Layer(layer, rows) if rows else None

    with replaced(model, forward_of):
        yield


class _Layer:
    """A layer's forward method, with gradients."""

    __slots__ = ("module", "rows")

    def __init__(self, module: nn.Linear, rows: range) -> None:
        self.module, self.rows = module, rows

    def __call__(self, x: Tensor) -> Tensor:
        weight, bias = self.module.weight, self.module.bias
        cast = x.dtype != weight.dtype or torch.is_autocast_enabled("cpu")
        if cast or x.numel() // x.shape[-1] not in self.rows:
            return nn.functional.linear(x, weight, bias)
        y: Tensor = _Linear.apply(x, weight, bias)  # type: ignore[no-untyped-call]
        return y


class _Linear(torch.autograd.Function):
    """x W^T + b."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_OI: Tensor, bias_O: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight_OI)
        return _product(x, weight_OI, bias_O)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight_OI = ctx.saved_tensors
        need_x, need_weight, need_bias = ctx.needs_input_grad
        dy_RO, x_RI = (t.reshape(-1, t.shape[-1]) for t in (dy, x))
        return (
            _product(dy, weight_OI.t().contiguous()) if need_x else None,
            dy_RO.t() @ x_RI if need_weight else None,
            dy_RO.sum(0) if need_bias else None,
        )


def _product(x: Tensor, weight_OI: Tensor, bias_O: Tensor | None = None) -> Tensor:
    rows = x.numel() // x.shape[-1]
    copy = torch.ops.mkldnn._reorder_linear_weight(weight_OI.detach(), rows)
    y: Tensor = torch.ops.mkldnn._linear_pointwise(x, copy, bias_O, "none", [], "")
    return y
