"""A key-value cache whose rows begin and end by themselves.

The rows of a batch of environments are not in step: one starts another question while its neighbour
is in the middle of an answer. So each has a buffer from column 0 on, which is its own, and its own
length; it starts anew by writing over what was there.

Legend: N rows, B of them that read now, H heads, K key-value heads, R = H / K, T columns, n new
positions, X = R n queries of a row that share a key-value head, D head width.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache

from latentgym.lm.attention import as_read, capped, masked, part_of, query_parts, with_sink
from latentgym.lm.memory import require

IntArray = npt.NDArray[np.int64]
_FIRST_CAPACITY = 64


class RowCache:
    """Cache of N rows; `LatentLM.extend` reads behind it.

    Args:
        n_rows: N.

    Attributes:
        length_N: how many positions of each row were read, int64 on the host.
    """

    def __init__(self, n_rows: int) -> None:
        self.n_rows = n_rows
        self.length_N: IntArray = np.zeros(n_rows, dtype=np.int64)
        self._keys: list[Tensor] = []  # of each layer, (N, K, capacity, D)
        self._values: list[Tensor] = []
        self._rows: IntArray = np.arange(n_rows)
        self._capacity = _FIRST_CAPACITY

    def start(
        self, rows: IntArray, read: DynamicCache, row_of: IntArray, lengths: IntArray, room: int
    ) -> None:
        """Begin rows with what was read of their prompts.

        Args:
            rows: that begin, (B,).
            read: a cache of some prompts, padded on the right.
            row_of: the row of each one's prompt in it, (B,).
            lengths: of their prompts, (B,).
            room: positions to make room for, so that nothing is copied as rows grow.

        Raises:
            UsageError: there is too little memory for that.
        """
        layers: list[Any] = read.layers
        if room > self._capacity:
            self._require(layers, room)
            self._capacity = room
        for i, layer in enumerate(layers):
            if len(self._keys) == i:
                self._keys.append(self._room(layer.keys))
                self._values.append(self._room(layer.values))
            width = layer.keys.shape[2]
            self._grow(i, width)
            here, there = (torch.from_numpy(x).to(layer.keys.device) for x in (rows, row_of))
            # What is padding lies behind the row's length, where nobody looks.
            self._keys[i][here, :, :width] = as_read(layer.keys)[there]
            self._values[i][here, :, :width] = as_read(layer.values)[there]
        self.length_N[rows] = lengths

    @contextmanager
    def only(self, rows: IntArray) -> Iterator[None]:
        """Within it, these rows read on, in this order; all others stay as they are."""
        self._rows, before = rows, self._rows
        try:
            yield
        finally:
            self._rows = before

    @contextmanager
    def peeking(self) -> Iterator[None]:
        """Within it, rows read ahead; behind it, they have read nothing of that."""
        before = self.length_N.copy()
        try:
            yield
        finally:
            self.length_N = before

    # What a transformers model asks of a cache.

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Positions so far; only used for default position ids, which are always given."""
        return int(self.length_N.max())

    def update(
        self, keys: Tensor, values: Tensor, layer_idx: int, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """Append (B, K, n, D) keys and values; the rows' own so far, (B, K, T, D)."""
        self._grow(layer_idx, self._end)
        found = []
        for buffer, new in ((self._keys[layer_idx], keys), (self._values[layer_idx], values)):
            new = as_read(new)
            if self._first is not None:
                buffer[:, :, self._first : self._end] = new
            else:
                buffer[self._at_B1, :, self._column_Bn] = new.transpose(1, 2)
            whole = buffer[:, :, : self._end]
            found.append(whole if self._all else whole[self._at_B1[:, 0]])
        return found[0], found[1]

    # What `LatentLM.extend` asks.

    def extend_mask(self, mask_Bn: Tensor | None, n: int) -> None:
        """Say which of the n positions about to be appended are real; None means all.

        What is not real is padding on the right, and is written over by what comes next.
        """
        device = self._keys[0].device
        length_B = self.length_N[self._rows]
        self._new_B = np.full(len(length_B), n) if mask_Bn is None else mask_Bn.sum(1).cpu().numpy()
        self._end = int(length_B.max()) + n
        self._all = len(self._rows) == self.n_rows and bool((np.diff(self._rows) > 0).all())
        level = self._all and bool((length_B == length_B[0]).all())
        # Rows in step need no places of their own to write to, and one new position no mask.
        self._first = int(length_B[0]) if level else None
        self._at_B1 = torch.from_numpy(self._rows[:, None]).to(device)
        self._column_Bn = torch.from_numpy(length_B[:, None] + np.arange(n)).to(device)
        self._see_all = level and n == 1

    def advance(self, n: int) -> None:
        """Count what was appended, after the forward pass that appended it."""
        self.length_N[self._rows] += self._new_B

    def attend(
        self,
        query: Tensor,
        keys: Tensor,
        values: Tensor,
        *,
        scaling: float,
        window: int | None = None,
        softcap: float | None = None,
        sink_H: Tensor | None = None,
    ) -> Tensor:
        """Attention of (B, H, n, D) queries; see `GroupedCache.attend`.

        Returns:
            (B, n, H, D).
        """
        n_rows, heads, n, _ = query.shape
        kv_heads, t = keys.shape[1], keys.shape[2]
        allowed, parts = self._allowed(t, window), []
        for some in query_parts(n, n_rows * heads * t):
            q = query[:, :, some] * scaling
            q_BKXD = q.reshape(n_rows, kv_heads, heads // kv_heads * q.shape[2], -1)
            scores = capped(q_BKXD @ keys.transpose(2, 3), softcap)
            scores = with_sink(masked(scores, part_of(allowed, some)), sink_H, q.shape[2])
            weights = scores.softmax(-1, dtype=torch.float32)[..., :t].to(query.dtype)
            parts.append((weights @ values).reshape(q.shape[:3] + values.shape[-1:]))
        out = parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)
        return out.transpose(1, 2).contiguous()

    def _allowed(self, t: int, window: int | None) -> Tensor | None:
        """Which columns the new positions may see, (B, n, T); None means all."""
        if self._see_all and (window is None or t <= window):
            return None
        at_Bn1 = self._column_Bn[..., None]
        column_T = torch.arange(t, device=at_Bn1.device)
        allowed = column_T <= at_Bn1
        return allowed if window is None else allowed & (column_T > at_Bn1 - window)

    def _require(self, layers: list[Any], room: int) -> None:
        """Raise `UsageError` where buffers of so many positions would be too large."""
        kept = [as_read(part) for layer in layers for part in (layer.keys, layer.values)]
        each = sum(part.shape[1] * part.shape[3] * part.element_size() for part in kept)
        require(
            self.n_rows * room * each,
            layers[0].keys.device,
            f"keys and values of {self.n_rows} rows of {room} positions",
            "make fewer rows, or lower the budgets",
        )

    def _room(self, like: Tensor) -> Tensor:
        _, k, _, d = like.shape
        # Zeros, as what is masked is multiplied all the same, and must be a number.
        return as_read(like).new_zeros(self.n_rows, k, self._capacity, d)

    def _grow(self, layer: int, end: int) -> None:
        """Room for `end` positions in a layer."""
        capacity = self._keys[layer].shape[2]
        if max(end, self._capacity) <= capacity:
            return
        for buffers in (self._keys, self._values):
            old = buffers[layer]
            n, k, _, d = old.shape
            grown = old.new_zeros(n, k, max(end, self._capacity, 2 * capacity), d)
            grown[:, :, :capacity] = old
            buffers[layer] = grown
