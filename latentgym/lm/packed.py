"""Faster linear layers for decoding on the CPU.

Plain layers are computed by MKL. oneDNN reads a weight in a blocked layout of its own, and takes
AVX-512 on every processor that has it. `packed(model)` keeps copies of the large weights in that
layout while decoding and steps aside where they would not pay, for gradients and on other devices.
A copy is made when a layer first needs it, and again when its weight has changed.

Where they pay was measured, as time of plain over packed, fp32, one thread, with the layers of
SmolLM2-135M (576 and 1,536 wide) in the order of a pass, so that no cache holds them:

| rows                              | 1   | 8    | 16   | 32   | 64  | 128 | 256 | 1,024 |
| AVX2 (Zen 3)                      | .91 | 1.22 | 1.14 | 1.04 | .96 | .94 | .90 | .86   |
| of these, weights of 110,592      | .63 | .85  | .83  | .83  | .84 | .89 | .90 | .91   |
| AVX2, language-model head         | 1.2 | 1.8  | 1.5  | 1.3  | 1.2 | 1.1 | 1.1 | .96   |

With few rows the weights' way from memory counts, with many the kernel. With AVX-512, on AMD's
processors, packed is about twice as fast with 128 to 2,048 rows too: there MKL keeps to AVX2.
So the instruction set decides, and no stopwatch: the two kernels round differently, and a choice
that noise can turn would part a run that is resumed from one that was never stopped.

Weights in bf16 are packed where the processor multiplies bf16 (AVX-512 with its extension).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Worth:
    """Where packed weights are faster than plain ones.

    Attributes:
        rows: numbers of rows.
        size: the fewest elements of a weight.
    """

    rows: range
    size: int


_AVX512 = Worth(range(1, sys.maxsize), 1 << 16)
_NARROWER = Worth(range(2, 33), 1 << 17)

_copies: WeakKeyDictionary[nn.Module, tuple[object, Tensor]] = WeakKeyDictionary()


def available(dtype: torch.dtype = torch.float32) -> bool:
    """Whether torch has oneDNN's prepacked linear here, for weights of that type."""
    mkldnn: Any = torch.backends.mkldnn
    ops: Any = torch.ops.mkldnn
    if not (mkldnn.is_available() and hasattr(ops, "_linear_pointwise")):
        return False
    return dtype == torch.float32 or (
        dtype == torch.bfloat16 and bool(ops._is_mkldnn_bf16_supported())
    )


def worth() -> Worth:
    """Where packed weights pay on this processor."""
    return _AVX512 if torch.backends.cpu.get_cpu_capability() == "AVX512" else _NARROWER


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


@contextmanager
def packed(model: nn.Module) -> Iterator[None]:
    """Within it, the large linear layers of `model` on the CPU use packed copies where they pay.

    Use it under `torch.inference_mode` only: the packed kernels have no gradients. In fp32 results
    are those of plain layers up to rounding.
    """
    swapped: list[nn.Linear] = []
    pays = worth()
    for module in model.modules():
        weight = module.weight if type(module) is nn.Linear else None
        if weight is None or weight.device.type != "cpu" or not available(weight.dtype):
            continue
        if weight.numel() >= pays.size:
            assert isinstance(module, nn.Linear)
            module.forward = _Packed(module, pays.rows)  # type: ignore[method-assign, assignment]
            swapped.append(module)
    try:
        yield
    finally:
        for module in swapped:
            del module.forward


class _Packed:
    """A layer's forward method; as an attribute of the instance it shadows that of the class."""

    __slots__ = ("copy", "module", "rows")

    def __init__(self, module: nn.Linear, rows: range) -> None:
        self.module, self.rows = module, rows
        self.copy: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        module = self.module
        if x.numel() // x.shape[-1] not in self.rows:
            return nn.functional.linear(x, module.weight, module.bias)
        if self.copy is None:
            self.copy = _copy_of(module)
        linear = torch.ops.mkldnn._linear_pointwise
        out: Tensor = linear(x, self.copy, module.bias, "none", [], "")
        return out
