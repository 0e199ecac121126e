"""What is computed of logits row by row, in chunks: a row of logits is as wide as the vocabulary.

Legend: M rows.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

Columns = tuple[Tensor, ...]


def in_chunks(compute: Callable[..., Columns], most: int, *columns: Tensor) -> Columns:
    """What a function gives of M rows, of some of them at a time.

    With gradients, what a chunk has computed in between is computed again on the way back, so that
    one chunk's is held at once.

    Args:
        compute: takes some rows of each column; gives tensors of as many rows.
        most: rows at once.
        columns: tensors of M rows.

    Returns:
        Tensors of M rows.
    """
    if len(columns[0]) <= most:
        return compute(*columns)
    # Split, not indexed: the gradient of an index is as large as all rows, for each chunk.
    parts = zip(*(torch.split(column, most) for column in columns), strict=True)
    if torch.is_grad_enabled():
        found = [checkpoint(compute, *part, use_reentrant=False) for part in parts]
    else:
        found = [compute(*part) for part in parts]
    return tuple(torch.cat(column) for column in zip(*found, strict=True))
