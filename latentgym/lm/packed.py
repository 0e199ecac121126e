"""Faster linear layers for decoding on the CPU.

A decoding step multiplies few rows by every weight of the model, which is bound by how fast the
weights stream from memory. oneDNN reads a weight in its blocked layout about twice as fast as in
the plain one (measured in `benchmarks/`, group 8, fp32). `packed(model)` keeps such copies of the
large weights while decoding and steps aside for wide inputs, for gradients and on other devices.
A copy is made again when its weight has changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

_MOST_ROWS = 64  # beyond it the plain kernel is as fast
_LEAST_SIZE = 1 << 16  # a smaller weight fits the cache anyway

_copies: WeakKeyDictionary[nn.Module, tuple[object, Tensor]] = WeakKeyDictionary()


def available() -> bool:
    """Whether this build of torch has oneDNN's prepacked linear."""
    mkldnn: Any = torch.backends.mkldnn
    return bool(mkldnn.is_available()) and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def state_of(weight: Tensor) -> object:
    """What is another when a weight has changed."""
    # Writing through `.data`, as adapters do when they merge, leaves the version as it is: hence
    # the sum of a thousand of the numbers.
    flat = weight.detach().flatten()
    sampled = flat[:: max(1, flat.numel() >> 10)].sum(dtype=torch.float64).item()
    return weight.data_ptr(), weight._version, sampled


def _copy_of(module: nn.Linear) -> Tensor:
    weight = module.weight.detach()
    state = state_of(module.weight)
    found = _copies.get(module)
    if found is not None and found[0] == state:
        return found[1]
    copy: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, 8)
    _copies[module] = (state, copy)
    return copy


def _forward(module: nn.Linear, copy: Tensor, x: Tensor) -> Tensor:
    rows = x.numel() // x.shape[-1]
    if rows > _MOST_ROWS:
        return nn.functional.linear(x, module.weight, module.bias)
    out: Tensor = torch.ops.mkldnn._linear_pointwise(x, copy, module.bias, "none", [], "")
    return out


@contextmanager
def packed(model: nn.Module) -> Iterator[None]:
    """Within it, the large fp32 linear layers of `model` on the CPU use their packed copies.

    Use it under `torch.inference_mode` only: the packed kernels have no gradients.
    """
    swapped: list[nn.Linear] = []
    if available():
        for module in model.modules():
            weight = module.weight if type(module) is nn.Linear else None
            if weight is None or weight.device.type != "cpu" or weight.dtype != torch.float32:
                continue
            if weight.numel() >= _LEAST_SIZE:
                assert isinstance(module, nn.Linear)
                copy = _copy_of(module)
                module.forward = _Bound(module, copy)  # type: ignore[method-assign, assignment]
                swapped.append(module)
    try:
        yield
    finally:
        for module in swapped:
            del module.forward


class _Bound:
    """`_forward` bound to a module; an instance attribute shadows the class's method."""

    __slots__ = ("copy", "module")

    def __init__(self, module: nn.Linear, copy: Tensor) -> None:
        self.module, self.copy = module, copy

    def __call__(self, x: Tensor) -> Tensor:
        return _forward(self.module, self.copy, x)
