"""A key-value cache that holds each prompt once, however many rollouts share it.

A group of G rollouts reads the same prompt. Repeating the prompt's keys and values G times costs
memory and, at every decoding step, the time to read them again. Here the prompt's part stays one
per prompt, and the queries of a group attend to it together; only what each rollout adds is kept
per row, in buffers that grow by doubling. The softmax runs over both parts at once, so the result
is that of ordinary attention: sliding windows, capped scores (Gemma 2) and sinks (GPT-OSS)
included.

Legend: Q prompts, G rows per prompt, N rows, H heads, K key-value heads, R = H / K, P prompt
positions, T positions after the prompt, n new positions, X = R n queries of a row that share a
key-value head, D head width.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache

from latentgym.lm.attention import as_read, capped, masked, part_of, query_parts, with_sink

_FIRST_CAPACITY = 16


class _Layer:
    """Keys and values of one layer: the prompts' part, and the rows' own."""

    __slots__ = ("own_keys", "own_values", "prompt_keys", "prompt_values")

    def __init__(self, prompt_keys: Tensor, prompt_values: Tensor) -> None:
        self.prompt_keys = as_read(prompt_keys)  # (Q, K, P, D)
        self.prompt_values = as_read(prompt_values)
        self.own_keys: Tensor | None = None  # (N, K, capacity, D)
        self.own_values: Tensor | None = None


class GroupedCache:
    """Cache of N rows over Q prompts; `LatentLM.extend` reads behind it.

    Args:
        prefill: the cache of one forward pass over the Q prompts.
        prompt_mask_QP: which prompt positions are real, bool.
        group_size: rows per prompt; rows of a prompt are neighbours.
    """

    def __init__(self, prefill: DynamicCache, prompt_mask_QP: Tensor, group_size: int) -> None:
        layers: list[Any] = prefill.layers
        self.layers = [_Layer(layer.keys, layer.values) for layer in layers]
        self.prompt_mask_QP = None if bool(prompt_mask_QP.all()) else prompt_mask_QP
        self.prompt_length_Q = prompt_mask_QP.sum(1)
        self.n_prompts, self.group = len(prompt_mask_QP), group_size
        self.length = 0
        self._layer: _Layer  # the one that was updated last
        # Where each row stands in the (Q, G) grid; None while the grid is full and in order.
        self.slot_N: Tensor | None = None
        self.own_mask_NT: Tensor | None = None  # None while every own position is real
        self.n_rows = self.n_prompts * group_size

    # What a transformers model asks of a cache.

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Positions so far; only used for default position ids, which are always given."""
        return self.length

    def update(
        self, keys: Tensor, values: Tensor, layer_idx: int, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """Append (N, K, n, D) keys and values; the rows' own part so far, as views."""
        self._layer = layer = self.layers[layer_idx]
        end = self.length + keys.shape[2]
        keys, values = as_read(keys), as_read(values)
        layer.own_keys = _grown(layer.own_keys, keys, end)
        layer.own_values = _grown(layer.own_values, values, end)
        layer.own_keys[:, :, self.length : end] = keys
        layer.own_values[:, :, self.length : end] = values
        return layer.own_keys[:, :, :end], layer.own_values[:, :, :end]

    # What the rollout engine asks.

    def extend_mask(self, mask_Nn: Tensor | None, n: int) -> None:
        """Say which of the n positions about to be appended are real; None means all."""
        if mask_Nn is None and self.own_mask_NT is None:
            return
        if self.own_mask_NT is None:
            device = self.layers[0].prompt_keys.device
            self.own_mask_NT = torch.ones(self.n_rows, self.length, dtype=torch.bool, device=device)
        if mask_Nn is None:
            mask_Nn = self.own_mask_NT.new_ones(self.n_rows, n)
        self.own_mask_NT = torch.cat([self.own_mask_NT, mask_Nn], dim=1)

    def reserve(self, n: int) -> None:
        """Say that n positions will be appended; buffers grow by themselves here."""

    def advance(self, n: int) -> None:
        """Count n appended positions, after the forward pass that appended them."""
        self.length += n

    def fork(self, rows: Tensor) -> GroupedCache:
        """Another cache of these rows, which goes on by itself; see `keep`."""
        other = copy.copy(self)
        other.layers = [copy.copy(layer) for layer in self.layers]
        other.keep(rows)
        return other

    def keep(self, rows: Tensor) -> None:
        """Keep only these rows, and the prompts that they need.

        Args:
            rows: indices in the order of their prompts; a row may be there several times.
        """
        if self.slot_N is None:
            self.slot_N = torch.arange(self.n_rows, device=rows.device)
        prompt_N = self.slot_N[rows] // self.group
        kept, prompt_N = torch.unique(prompt_N, return_inverse=True)
        counts = torch.bincount(prompt_N, minlength=len(kept))
        first = torch.cumsum(counts, 0) - counts
        rank_N = torch.arange(len(rows), device=rows.device) - first[prompt_N]
        fewer_prompts = len(kept) < self.n_prompts
        self.n_prompts, self.n_rows = len(kept), len(rows)
        self.group = int(counts.max()) if self.n_rows else self.group
        self.slot_N = prompt_N * self.group + rank_N
        if self.n_rows == self.n_prompts * self.group:
            self.slot_N = None
        if self.own_mask_NT is not None:
            self.own_mask_NT = self.own_mask_NT[rows]
        if fewer_prompts:
            self.prompt_length_Q = self.prompt_length_Q[kept]
        if fewer_prompts and self.prompt_mask_QP is not None:
            self.prompt_mask_QP = self.prompt_mask_QP[kept]
        for layer in self.layers:
            if fewer_prompts:
                layer.prompt_keys = layer.prompt_keys[kept]
                layer.prompt_values = layer.prompt_values[kept]
            if layer.own_keys is not None and layer.own_values is not None:
                layer.own_keys = self._own_of(layer.own_keys, rows)
                layer.own_values = self._own_of(layer.own_values, rows)

    def _own_of(self, own: Tensor, rows: Tensor) -> Tensor:
        """What some rows have in a buffer of keys or values, without the room behind it."""
        return own[:, :, : self.length][rows]

    # Attention.

    def to_grid(self, x_NKXD: Tensor) -> Tensor:
        """(N, K, X, D) of the rows as (Q, K, G * X, D) of the prompts; empty slots are zero."""
        _, k, x, d = x_NKXD.shape
        if self.slot_N is not None:
            grid = x_NKXD.new_zeros(self.n_prompts * self.group, k, x, d)
            x_NKXD = grid.index_copy(0, self.slot_N, x_NKXD)
        grid = x_NKXD.view(self.n_prompts, self.group, k, x, d).transpose(1, 2)
        return grid.reshape(self.n_prompts, k, self.group * x, d)

    def from_grid(self, x_QKXD: Tensor, x: int) -> Tensor:
        """The inverse of `to_grid`."""
        q, k, _, d = x_QKXD.shape
        rows = x_QKXD.view(q, k, self.group, x, d).transpose(1, 2).reshape(-1, k, x, d)
        return rows if self.slot_N is None else rows[self.slot_N]

    def _of_rows(self, x_Q: Tensor) -> Tensor:
        """What each row's prompt has, (Q, ...) to (N, ...)."""
        x_N = x_Q.repeat_interleave(self.group, dim=0)
        return x_N if self.slot_N is None else x_N[self.slot_N]

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
        """Attention of (N, H, n, D) queries in the layer that was updated last.

        Args:
            query: of the n newest positions.
            keys, values: the rows' own, (N, K, T, D).
            scaling: of the scores.
            window: how many positions each sees, itself included; None for all.
            softcap: bound of the scores, cap * tanh(score / cap).
            sink_H: a score per head that takes part in the softmax and reads nothing.

        Returns:
            (N, n, H, D).
        """
        layer = self._layer
        if keys.shape[1::2] != layer.prompt_keys.shape[1::2]:
            raise ValueError("attention changes keys that come from the cache")
        n_rows, heads, n, _ = query.shape
        t, p = keys.shape[2], layer.prompt_keys.shape[2]
        near = (None, None) if window is None else self._near(window, n, t, p)
        own = self._own_allowed(n, t, keys.device)
        parts = [
            self._read(
                query[:, :, some] * scaling,
                keys,
                values,
                softcap,
                sink_H,
                [part_of(allowed, some) for allowed in (*near, own)],
            )
            for some in query_parts(n, n_rows * heads * (p + t))
        ]
        out = parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)
        return out.transpose(1, 2).contiguous()

    def _read(
        self,
        query: Tensor,
        keys: Tensor,
        values: Tensor,
        softcap: float | None,
        sink_H: Tensor | None,
        allowed: list[Tensor | None],
    ) -> Tensor:
        """What some scaled queries read, (N, H, n, D); see `attend`.

        Args:
            allowed: what of the prompt is in their windows, what of their own, and what of their
                own they may see at all.
        """
        layer, (n_rows, heads, n, _) = self._layer, query.shape
        kv_heads, t, p = keys.shape[1], keys.shape[2], layer.prompt_keys.shape[2]
        rep = heads // kv_heads
        q_NKXD = query.reshape(n_rows, kv_heads, rep * n, -1)
        prompt = capped(self.to_grid(q_NKXD) @ layer.prompt_keys.transpose(2, 3), softcap)
        if self.prompt_mask_QP is not None:
            prompt = prompt.masked_fill(~self.prompt_mask_QP[:, None, None], -torch.inf)
        prompt = masked(self.from_grid(prompt, rep * n), allowed[0])
        own = capped(q_NKXD @ keys.transpose(2, 3), softcap)
        own = masked(masked(own, allowed[1]), allowed[2])
        scores = with_sink(torch.cat([prompt, own], dim=-1), sink_H, n)
        weights = scores.softmax(-1, dtype=torch.float32).to(query.dtype)
        read = self.to_grid(weights[..., :p]) @ layer.prompt_values
        out = self.from_grid(read, rep * n) + weights[..., p : p + t] @ values
        return out.reshape(n_rows, heads, n, -1)

    def _own_allowed(self, n: int, t: int, device: torch.device) -> Tensor | None:
        """Which own positions the n newest may see: causal, and real; None means all."""
        if n == 1 and self.own_mask_NT is None:
            return None
        position = torch.arange(t, device=device)
        newest = position[t - n :, None]
        if self.own_mask_NT is None:
            return position <= newest
        # A padded query sees itself, so that its softmax is defined.
        return (position <= newest) & self.own_mask_NT[:, None] | (position == newest)

    def _near(self, window: int, n: int, t: int, p: int) -> tuple[Tensor | None, Tensor | None]:
        """Which prompt positions (N, n, P) and own ones (N, n, T) are in the newest n's windows."""
        if p + t <= window:
            return None, None
        length_N = self._of_rows(self.prompt_length_Q)
        at_NT = torch.arange(t, device=length_N.device).expand(self.n_rows, t)
        if self.own_mask_NT is not None:
            at_NT = self.own_mask_NT.cumsum(1) - 1
        first_Nn1 = length_N[:, None, None] + at_NT[:, t - n :, None] - window + 1
        at_NT = length_N[:, None] + at_NT
        if self.prompt_mask_QP is None:
            at_NP = torch.arange(p, device=length_N.device).expand(self.n_rows, p)
        else:
            at_NP = self._of_rows(self.prompt_mask_QP.cumsum(1) - 1)
        return at_NP[:, None] >= first_Nn1, at_NT[:, None] >= first_Nn1


def _grown(buffer: Tensor | None, new: Tensor, end: int) -> Tensor:
    """A buffer with room for `end` positions: the same one, or one of twice the size."""
    if buffer is not None and buffer.shape[2] >= end:
        return buffer
    n, k, _, d = new.shape
    capacity = max(_FIRST_CAPACITY, end)
    if buffer is not None:
        capacity = max(capacity, 2 * buffer.shape[2])
    grown = new.new_empty(n, k, capacity, d)
    if buffer is not None:
        grown[:, :, : buffer.shape[2]] = buffer
    return grown
