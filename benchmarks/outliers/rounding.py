"""Rounding of weights and activations to few bits, simulated in fp32.

Every linear layer within a block (attention's four and the MLP's; not the embeddings, not the
language-model head, no norm, no product within attention) computes with rounded weights and a
rounded input:

    x -> s round(x / s),     s = max |x| / (2^(bits - 1) - 1)

with one s for a whole weight matrix, and one for the whole input of a call, found in that call. It
is the simplest scheme there is, and the one that outliers hurt most.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from latentgym.analysis.residual import ResidualStream


def rounded(x: Tensor, bits: int) -> Tensor:
    """A tensor on the grid of so many bits, symmetric about 0."""
    scale = x.abs().max() / (2 ** (bits - 1) - 1)
    return torch.where(scale > 0, (x / scale).round() * scale, x)


@contextmanager
def rounding(stream: ResidualStream, bits: int) -> Iterator[None]:
    """Within it, the linear layers of a model's blocks are rounded."""
    layers = [m for block in stream.blocks for m in block.modules() if isinstance(m, nn.Linear)]
    whole = [layer.weight.data for layer in layers]

    def of_input(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return (rounded(args[0], bits), *args[1:])

    hooks = [layer.register_forward_pre_hook(of_input) for layer in layers]
    for layer in layers:
        layer.weight.data = rounded(layer.weight.data, bits)
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for layer, weight in zip(layers, whole, strict=True):
            layer.weight.data = weight
