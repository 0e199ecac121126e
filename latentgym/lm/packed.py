"""Faster linear layers for decoding on the CPU.

Plain layers are computed by MKL; oneDNN reads a weight in a blocked layout of its own.
`packed(model)` keeps copies of the large weights in that layout while decoding and steps aside
where they would not pay, for gradients and on other devices. A copy is made when a layer first
needs it, and again when its weight has changed.

Where they pay was measured, as time of plain over packed, fp32, one thread, with the layers of
SmolLM2-135M (576 and 1,536 wide) in the order of a pass, so that no cache holds them:

| rows, with AVX2 (Zen 3)          | 1   | 8    | 16   | 32   | 64  | 128 | 256 | 1,024 |
| all layers                       | .91 | 1.22 | 1.14 | 1.04 | .96 | .94 | .90 | .86   |
| those with weights of 110,592    | .63 | .85  | .83  | .83  | .84 | .89 | .90 | .91   |
| language-model head              | 1.2 | 1.8  | 1.5  | 1.3  | 1.2 | 1.1 | 1.1 | .96   |

With few rows the weights' way from memory counts, with many the kernel. Here both kernels are
equally wide, but MKL does not divide a small product among threads as well: with two, plain over
packed was 1.5 for the layers at 64 rows and 2.4 for the head, and a rollout of 64 rows took .74 of
the time. On AMD's processors with AVX-512 MKL keeps to AVX2, and packed was found to be twice
as fast with 128 to 2,048 rows too. Which of the two a processor is, is measured once a process.
That is no close call, or noise could turn it: the kernels round differently, and a run that is
resumed must not part from one that was never stopped.

Weights in bf16 are packed where the processor multiplies bf16 (AVX-512 with its extension). There
oneDNN computes plain layers too, and packs at every call.

Legend: R rows, I inputs, O outputs.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from time import thread_time
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
        rows_of_huge: numbers of rows for weights of `HUGE` elements; None for `rows`.
    """

    rows: range
    size: int
    rows_of_huge: range | None = None

    def rows_for(self, weight: Tensor) -> range:
        """With how many rows a weight is better packed; an empty range for never."""
        if weight.numel() < self.size:
            return range(0)
        if self.rows_of_huge is not None and weight.numel() >= HUGE:
            return self.rows_of_huge
        return self.rows


HUGE = 1 << 22  # elements, as in a language-model head: no cache holds it
_ALWAYS = Worth(range(1, sys.maxsize), 1 << 16)
_FEW = Worth(range(2, 65), 1 << 17, range(1, 257))
LEAST = 1 << 16  # elements; a smaller weight fits the cache anyway
_ROUNDS = 9
_MUCH = 1.4  # times as fast; 0.9 and 2 are what was found

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


def packable(layer: nn.Linear) -> bool:
    """Whether a layer can be packed here, and is large enough to be worth a thought."""
    weight_OI = layer.weight
    on_cpu = weight_OI.device.type == "cpu"
    return on_cpu and weight_OI.numel() >= LEAST and available(weight_OI.dtype)


@cache
@torch.inference_mode()
def wider() -> bool:
    """Whether oneDNN's kernel is much faster than the plain one where the way of weights is short.

    Measured when it is first asked for, which takes some 40 ms.
    """
    x_RI, weight_OI = torch.ones(256, 576), torch.ones(576, 576)
    copy_OI = torch.ops.mkldnn._reorder_linear_weight(weight_OI, len(x_RI))
    fastest = [float("inf")] * 2
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # others would be waited for, however long
    try:
        for _ in range(_ROUNDS):
            started = thread_time()  # which does not count what other programs do
            nn.functional.linear(x_RI, weight_OI)
            between = thread_time()
            torch.ops.mkldnn._linear_pointwise(x_RI, copy_OI, None, "none", [], "")
            took = between - started, thread_time() - between
            fastest = [min(pair) for pair in zip(fastest, took, strict=True)]
    finally:
        torch.set_num_threads(threads)
    return fastest[0] > _MUCH * fastest[1]


def worth(dtype: torch.dtype) -> Worth:
    """Where packed weights of a type pay on this processor."""
    return _ALWAYS if dtype == torch.bfloat16 or wider() else _FEW


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

    def forward_of(layer: nn.Linear) -> Any:
        if not packable(layer):
            return None
        rows = worth(layer.weight.dtype).rows_for(layer.weight)
        return _Packed(layer, rows) if rows else None

    with replaced(model, forward_of):
        yield


@contextmanager
def replaced(model: nn.Module, forward_of: Callable[[nn.Linear], Any]) -> Iterator[None]:
    """Within it, linear layers of `model` have other forward methods; hooks run around them.

    Args:
        model: of whose modules those count that are `nn.Linear` itself.
        forward_of: the method of a layer, or None to leave it as it is.
    """
    # An attribute of the instance shadows the method of the class, or an attribute of before.
    before: list[tuple[nn.Linear, Any]] = []
    for layer in model.modules():
        if type(layer) is nn.Linear and (forward := forward_of(layer)) is not None:
            before.append((layer, vars(layer).get("forward")))
            layer.forward = forward  # type: ignore[method-assign]
    try:
        yield
    finally:
        for layer, forward in before:
            if forward is None:
                del layer.forward
            else:
                layer.forward = forward  # type: ignore[method-assign]


class _Packed:
    """A layer's forward method, without gradients."""

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
