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
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.cache_utils import DynamicCache
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

ATTENTION = "latentgym"
_FIRST_CAPACITY = 16


class _Layer:
    """Keys and values of one layer: the prompts' part, and the rows' own."""

    __slots__ = ("own_keys", "own_values", "prompt_keys", "prompt_values")

    def __init__(self, prompt_keys: Tensor, prompt_values: Tensor) -> None:
        self.prompt_keys = _as_read(prompt_keys)  # (Q, K, P, D)
        self.prompt_values = _as_read(prompt_values)
        self.own_keys: Tensor | None = None  # (N, K, capacity, D)
        self.own_values: Tensor | None = None


class GroupedCache:
    """Cache of N rows over Q prompts; a model reads behind it within `reading`.

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
        keys, values = _as_read(keys), _as_read(values)
        layer.own_keys = _grown(layer.own_keys, keys, end)
        layer.own_values = _grown(layer.own_values, values, end)
        layer.own_keys[:, :, self.length : end] = keys
        layer.own_values[:, :, self.length : end] = values
        return layer.own_keys[:, :, :end], layer.own_values[:, :, :end]

    # What the rollout engine asks.

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Within it, attention of the models we load is behind this cache.

        Not an argument of the model: some do not hand what they do not know to their attention,
        which would then see the newest positions alone.
        """
        token = _behind.set(self)
        try:
            yield
        finally:
            _behind.reset(token)

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
        self.n_prompts, self.group, self.n_rows = len(kept), int(counts.max()), len(rows)
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
                layer.own_keys = layer.own_keys[:, :, : self.length][rows]
                layer.own_values = layer.own_values[:, :, : self.length][rows]

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
        kv_heads, t, p = keys.shape[1], keys.shape[2], layer.prompt_keys.shape[2]
        rep = heads // kv_heads
        q_NKXD = (query * scaling).reshape(n_rows, kv_heads, rep * n, -1)
        prompt = _capped(self.to_grid(q_NKXD) @ layer.prompt_keys.transpose(2, 3), softcap)
        if self.prompt_mask_QP is not None:
            prompt = prompt.masked_fill(~self.prompt_mask_QP[:, None, None], -torch.inf)
        prompt = self.from_grid(prompt, rep * n)
        own = _capped(q_NKXD @ keys.transpose(2, 3), softcap)
        near = (None, None) if window is None else self._near(window, n, t, p)
        prompt = _masked(prompt, near[0])
        own = _masked(_masked(own, near[1]), self._own_allowed(n, t, own.device))
        scores = [prompt, own]
        if sink_H is not None:
            sink_KX1 = sink_H.to(own).view(kv_heads, rep).repeat_interleave(n, dim=1)[..., None]
            scores.append(sink_KX1.expand(n_rows, -1, -1, -1))
        weights = torch.cat(scores, dim=-1).softmax(-1, dtype=torch.float32).to(query.dtype)
        read = self.to_grid(weights[..., :p]) @ layer.prompt_values
        out = self.from_grid(read, rep * n) + weights[..., p : p + t] @ values
        return out.reshape(n_rows, heads, n, -1).transpose(1, 2).contiguous()

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


def _as_read(x: Tensor) -> Tensor:
    """Keys or values in the type that attention reads: autocast would cast them at every step."""
    kind = x.device.type
    return x.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else x


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


def _capped(scores: Tensor, softcap: float | None) -> Tensor:
    return scores if softcap is None else softcap * torch.tanh(scores / softcap)


def _masked(scores_NKXT: Tensor, allowed: Tensor | None) -> Tensor:
    """Scores where something is allowed, (n, T) or (N, n, T) for all heads; None allows all."""
    if allowed is None:
        return scores_NKXT
    n_rows, heads, _, t = scores_NKXT.shape
    n = allowed.shape[-2]
    allowed = allowed.expand(n_rows, n, t)[:, None, None]
    by_head = scores_NKXT.view(n_rows, heads, -1, n, t).masked_fill(~allowed, -torch.inf)
    return by_head.view(scores_NKXT.shape)


def _plain(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float,
    dropout: float,
    softcap: float | None,
    sink_H: Tensor | None,
) -> Tensor:
    """Attention written out, for what torch's own cannot do; the mask is bool, None for causal."""
    n, t = query.shape[2], key.shape[2]
    if attention_mask is None:
        attention_mask = torch.ones(n, t, dtype=torch.bool, device=query.device).tril(t - n)
    rep = query.shape[1] // key.shape[1]
    scores = _capped(query @ repeat_kv(key, rep).transpose(2, 3) * scaling, softcap)
    # Not -inf: padded queries see nothing, and what they read must be a number.
    scores = scores.masked_fill(~attention_mask, torch.finfo(scores.dtype).min)
    if sink_H is not None:
        sink = sink_H.to(scores).view(1, -1, 1, 1).expand(len(scores), -1, n, 1)
        scores = torch.cat([scores, sink], dim=-1)
    weights = scores.softmax(-1, dtype=torch.float32).to(query.dtype)[..., :t]
    weights = nn.functional.dropout(weights, dropout)
    return (weights @ repeat_kv(value, rep)).transpose(1, 2).contiguous()


def _attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    sliding_window: int | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention function of the models we load: grouped while decoding, else SDPA where it can."""
    cache = _behind.get()
    if cache is None and softcap is None and s_aux is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    special: dict[str, Any] = {"scaling": scale, "softcap": softcap, "sink_H": s_aux}
    if cache is None:
        return _plain(query, key, value, attention_mask, dropout=dropout, **special), None
    return cache.attend(query, key, value, window=sliding_window, **special), None


_behind: ContextVar[GroupedCache | None] = ContextVar("latentgym_cache", default=None)

AttentionInterface.register(ATTENTION, _attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)
