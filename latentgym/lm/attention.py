"""The attention of the models that we load: behind a cache of ours, or as torch has it.

Legend: N rows, H heads, K key-value heads, R = H / K, T positions, n new positions, X = R n queries
of a row that share a key-value head, D head width.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

ATTENTION = "latentgym"
_MOST_SCORES = 1 << 26  # held at once


class Attends(Protocol):
    """A cache behind which attention reads, see `GroupedCache.attend`."""

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
    ) -> Tensor: ...


_behind: ContextVar[Attends | None] = ContextVar("latentgym_cache", default=None)


@contextmanager
def behind(cache: Attends) -> Iterator[None]:
    """Within it, attention of the models we load is behind this cache.

    Not an argument of the model: some do not hand what they do not know to their attention, which
    would then see the newest positions alone.
    """
    token = _behind.set(cache)
    try:
        yield
    finally:
        _behind.reset(token)


def as_read(x: Tensor) -> Tensor:
    """Keys or values in the type that attention reads: autocast would cast them at every step."""
    kind = x.device.type
    return x.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else x


def capped(scores: Tensor, softcap: float | None) -> Tensor:
    return scores if softcap is None else softcap * torch.tanh(scores / softcap)


def query_parts(n: int, each: int) -> Iterator[slice]:
    """The n newest positions in parts whose scores are held together.

    Text that is inserted into many rows has n queries each, whose scores against a long context
    would not fit: 62 GB at 128 rows of 9 heads, 512 positions and a context of 4,096.

    Args:
        n: positions.
        each: scores of one position, over all rows and heads.
    """
    size = max(1, _MOST_SCORES // max(1, each))
    return (slice(start, min(n, start + size)) for start in range(0, n, size))


def part_of(allowed: Tensor | None, some: slice) -> Tensor | None:
    """What some of the positions are allowed to see, of (..., n, T)."""
    return None if allowed is None else allowed[..., some, :]


def masked(scores_NKXT: Tensor, allowed: Tensor | None) -> Tensor:
    """Scores where something is allowed, (n, T) or (N, n, T) for all heads; None allows all."""
    if allowed is None:
        return scores_NKXT
    n_rows, heads, _, t = scores_NKXT.shape
    n = allowed.shape[-2]
    allowed = allowed.expand(n_rows, n, t)[:, None, None]
    by_head = scores_NKXT.view(n_rows, heads, -1, n, t).masked_fill(~allowed, -torch.inf)
    return by_head.view(scores_NKXT.shape)


def with_sink(scores_NKXT: Tensor, sink_H: Tensor | None, n: int) -> Tensor:
    """Scores with a last column that takes part in the softmax and reads nothing, if there is one.

    Args:
        scores_NKXT: of n queries of each head.
        sink_H: the score of each head.
        n: how many queries.
    """
    if sink_H is None:
        return scores_NKXT
    n_rows, kv_heads, x, _ = scores_NKXT.shape
    sink_KX1 = sink_H.to(scores_NKXT).view(kv_heads, x // n).repeat_interleave(n, dim=1)[..., None]
    return torch.cat([scores_NKXT, sink_KX1.expand(n_rows, -1, -1, -1)], dim=-1)


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
    scores = capped(query @ repeat_kv(key, rep).transpose(2, 3) * scaling, softcap)
    # Not -inf: padded queries see nothing, and what they read must be a number.
    scores = scores.masked_fill(~attention_mask, torch.finfo(scores.dtype).min)
    if sink_H is not None:
        sink = sink_H.to(scores).view(1, -1, 1, 1).expand(len(scores), -1, n, 1)
        scores = torch.cat([scores, sink], dim=-1)
    weights = scores.softmax(-1, dtype=torch.float32).to(query.dtype)[..., :t]
    weights = nn.functional.dropout(weights, dropout)
    values_BHTD: Tensor = repeat_kv(value, rep)
    return (weights @ values_BHTD).transpose(1, 2).contiguous()


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
        out: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
        return out
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    special: dict[str, Any] = {"scaling": scale, "softcap": softcap, "sink_H": s_aux}
    if cache is None:
        return _plain(query, key, value, attention_mask, dropout=dropout, **special), None
    return cache.attend(query, key, value, window=sliding_window, **special), None


AttentionInterface.register(ATTENTION, _attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)
