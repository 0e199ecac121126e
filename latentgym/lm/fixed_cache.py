"""A key-value cache whose shapes stay as they are from step to step.

What a row adds to its prompt goes into buffers of a fixed capacity, and which of their positions
are real is a mask. Where the newest position is, only the device knows. So a step is the same
graph each time: `torch.compile` takes it once for each capacity and number of rows.

Legend: N rows, K key-value heads, C capacity, n new positions, D head width.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from latentgym.lm.attention import as_read
from latentgym.lm.cache import GroupedCache

_CAPACITY = 64
_OWN = ("capacity", "_at", "_new_n")


class FixedCache(GroupedCache):
    """A grouped cache with buffers of a fixed capacity.

    Args:
        cache: of prompts that were just read, which is taken over.
    """

    def __init__(self, cache: GroupedCache) -> None:
        self.__dict__ |= cache.__dict__
        keys = self.layers[0].prompt_keys
        self.capacity = 0
        self._at = torch.zeros(1, dtype=torch.int64, device=keys.device)
        self._new_n = self._at  # where the positions that are being appended go
        self.own_mask_NT = torch.zeros(self.n_rows, 0, dtype=torch.bool, device=keys.device)
        self.reserve(0)

    def reserve(self, n: int) -> None:
        """Make room for n more positions, before they are read; capacities double."""
        self.length += n
        if self.length <= self.capacity:
            return
        before, capacity = self.capacity, self.capacity or _CAPACITY
        while capacity < self.length:
            capacity *= 2
        self.capacity = capacity
        assert self.own_mask_NT is not None
        self.own_mask_NT = _widened(self.own_mask_NT, 1, capacity)
        for layer in self.layers:
            if not before:
                _, heads, _, width = layer.prompt_keys.shape
                empty = layer.prompt_keys.new_zeros(self.n_rows, heads, 0, width)
                layer.own_keys = layer.own_values = empty
            assert layer.own_keys is not None and layer.own_values is not None
            layer.own_keys = _widened(layer.own_keys, 2, capacity)
            layer.own_values = _widened(layer.own_values, 2, capacity)

    def update(
        self, keys: Tensor, values: Tensor, layer_idx: int, *_: object, **__: object
    ) -> tuple[Tensor, Tensor]:
        self._layer = layer = self.layers[layer_idx]
        assert layer.own_keys is not None and layer.own_values is not None  # `reserve` was called
        layer.own_keys.index_copy_(2, self._new_n, as_read(keys))
        layer.own_values.index_copy_(2, self._new_n, as_read(values))
        return layer.own_keys, layer.own_values

    def extend_mask(self, mask_Nn: Tensor | None, n: int) -> None:
        assert self.own_mask_NT is not None
        self._new_n = self._at + torch.arange(n, device=self._at.device)
        real_Nn = self.own_mask_NT.new_ones(self.n_rows, n) if mask_Nn is None else mask_Nn
        self.own_mask_NT.index_copy_(1, self._new_n, real_Nn)

    def advance(self, n: int) -> None:
        self._at += n

    def keep(self, rows: Tensor) -> None:
        super().keep(rows)
        self._at = self._at.clone()  # of a fork, which goes on by itself

    def plain(self) -> GroupedCache:
        """The same in buffers that grow, without the room behind what was read."""
        cache = GroupedCache.__new__(GroupedCache)
        cache.__dict__ |= {k: v for k, v in self.__dict__.items() if k not in _OWN}
        cache.layers = [copy.copy(layer) for layer in self.layers]
        for layer in cache.layers:
            layer.own_keys = self._trimmed(layer.own_keys)
            layer.own_values = self._trimmed(layer.own_values)
        if self.own_mask_NT is not None:
            cache.own_mask_NT = self.own_mask_NT[:, : self.length]
        return cache

    def _trimmed(self, own: Tensor | None) -> Tensor | None:
        return None if own is None else own[:, :, : self.length]

    def _own_allowed(self, n: int, t: int, device: torch.device) -> Tensor | None:
        assert self.own_mask_NT is not None
        position, newest = torch.arange(t, device=device), self._new_n[:, None]
        # A padded query sees itself, so that its softmax is defined.
        return (position <= newest) & self.own_mask_NT[:, None] | (position == newest)

    def _own_of(self, own: Tensor, rows: Tensor) -> Tensor:
        return own[rows]


def _widened(x: Tensor, dim: int, size: int) -> Tensor:
    """With zeros behind, so that a dimension is of that size."""
    shape = list(x.shape)
    shape[dim] = size - shape[dim]
    return torch.cat([x, x.new_zeros(shape)], dim=dim)
