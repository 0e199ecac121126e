"""Training and evaluation mode, for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

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
