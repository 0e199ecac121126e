"""Training and evaluation mode, for a while; and the precision of weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


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


def round_weights(module: nn.Module, dtype: torch.dtype) -> None:
    """Put the parameters of a module in that precision, in place, and nothing else.

    `module.to(dtype)` rounds buffers too: of frequencies of rotary embeddings eight bits are left,
    which is a turn of many degrees after a few hundred positions.
    """
    for parameter in module.parameters():
        parameter.data = parameter.data.to(dtype)
