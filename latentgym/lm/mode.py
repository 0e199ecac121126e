"""Training and evaluation mode, for a while; and the precision of weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer


@contextmanager
def mode(module: nn.Module, *, training: bool) -> Iterator[None]:
    """Within it, a module is in that mode; afterwards it is as before, part by part.

    A part may be in another mode than the whole: a frozen one that is kept in evaluation, say.
    """
    before = [(part, part.training) for part in module.modules()]
    module.train(training)
    try:
        yield
    finally:
        for part, trained in before:
            part.training = trained


@contextmanager
def recomputing(module: nn.Module) -> Iterator[None]:
    """Within it, blocks keep their inputs alone for the backward pass, in evaluation mode too.

    transformers recomputes in training mode alone, and a policy learns in evaluation mode, as it
    acts. Blocks that are in training mode are left to it.
    """
    blocks = [
        part
        for part in module.modules()
        if isinstance(part, GradientCheckpointingLayer) and not part.training
    ]
    for block in blocks if torch.is_grad_enabled() else ():
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)
    try:
        yield
    finally:
        for block in blocks:
            block.__dict__.pop("forward", None)  # its class has its own


def round_weights(module: nn.Module, dtype: torch.dtype) -> None:
    """Put the parameters of a module in that precision, in place, and nothing else.

    `module.to(dtype)` rounds buffers too: of frequencies of rotary embeddings eight bits are left,
    which is a turn of many degrees after a few hundred positions.
    """
    for parameter in module.parameters():
        if parameter.is_floating_point():  # weights in 4 bits are bytes
            parameter.data = parameter.data.to(dtype)
