"""Caches of rows that began at different times, as one.

Legend: Q prompts, N rows, K key-value heads, P prompt positions, T own positions, D head width.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from latentgym.lm.cache import GroupedCache


def joined(one: GroupedCache, other: GroupedCache) -> GroupedCache:
    """The rows of one cache, and behind them those of another.

    Prompts and own positions are aligned at their ends, so that all rows append at one place; what
    stands before shorter ones is masked.

    Args:
        one, other: neither is changed.
    """
    caches, cache = (one, other), copy.copy(one)
    prompt_mask_QP = end_to_end(_prompt_mask(one), _prompt_mask(other))
    width = prompt_mask_QP.shape[1]
    cache.prompt_mask_QP = None if bool(prompt_mask_QP.all()) else prompt_mask_QP
    cache.prompt_length_Q = torch.cat([c.prompt_length_Q for c in caches])
    cache.n_prompts, cache.n_rows = (
        one.n_prompts + other.n_prompts,
        one.n_rows + other.n_rows,
    )
    cache.group = max(one.group, other.group)
    slot_N = torch.cat([_slots(one, cache.group, 0), _slots(other, cache.group, one.n_prompts)])
    full = cache.n_rows == cache.n_prompts * cache.group
    cache.slot_N = None if full else slot_N
    cache.length = max(one.length, other.length)
    own_mask_NT = torch.cat([_wide(_own_mask(c), cache.length, dim=1) for c in caches])
    used_T = own_mask_NT.any(0)
    first = int(used_T.int().argmax()) if bool(used_T.any()) else cache.length
    cache.length -= first  # nobody has anything in the columns before
    own_mask_NT = own_mask_NT[:, first:]
    cache.own_mask_NT = None if bool(own_mask_NT.all()) else own_mask_NT
    cache.layers = [copy.copy(layer) for layer in one.layers]
    for i, layer in enumerate(cache.layers):
        for name in ("prompt_keys", "prompt_values"):
            parts = [_wide(getattr(c.layers[i], name), width, dim=2) for c in caches]
            setattr(layer, name, torch.cat(parts))
        for name in ("own_keys", "own_values"):
            whole = torch.cat([_own(c, i, name, cache.length + first) for c in caches])
            setattr(layer, name, whole[:, :, first:] if cache.length else None)
    return cache


def end_to_end(one_QP: Tensor, other_QP: Tensor) -> Tensor:
    """Two tensors (Q, P, ...) as one, aligned at their last position, zeros before the shorter."""
    width = max(one_QP.shape[1], other_QP.shape[1])
    return torch.cat([_wide(x, width, dim=1) for x in (one_QP, other_QP)])


def _prompt_mask(cache: GroupedCache) -> Tensor:
    if cache.prompt_mask_QP is not None:
        return cache.prompt_mask_QP
    keys = cache.layers[0].prompt_keys
    return torch.ones(cache.n_prompts, keys.shape[2], dtype=torch.bool, device=keys.device)


def _own_mask(cache: GroupedCache) -> Tensor:
    if cache.own_mask_NT is not None:
        return cache.own_mask_NT
    device = cache.layers[0].prompt_keys.device
    return torch.ones(cache.n_rows, cache.length, dtype=torch.bool, device=device)


def _slots(cache: GroupedCache, group: int, prompts_before: int) -> Tensor:
    """Where the rows stand in a grid of groups of that size, behind other prompts."""
    slot_N = cache.slot_N
    if slot_N is None:
        slot_N = torch.arange(cache.n_rows, device=cache.layers[0].prompt_keys.device)
    return (slot_N // cache.group + prompts_before) * group + slot_N % cache.group


def _own(cache: GroupedCache, layer: int, name: str, length: int) -> Tensor:
    """The rows' own keys or values, (N, K, T, D)."""
    own = getattr(cache.layers[layer], name)
    if own is None:
        _, heads, _, width = cache.layers[layer].prompt_keys.shape
        own = cache.layers[layer].prompt_keys.new_zeros(cache.n_rows, heads, 0, width)
    return _wide(own[:, :, : cache.length], length, dim=2)


def _wide(x: Tensor, size: int, *, dim: int) -> Tensor:
    """With zeros before, so that a dimension is of that size."""
    shape = list(x.shape)
    shape[dim] = size - shape[dim]
    return torch.cat([x.new_zeros(shape), x], dim=dim) if shape[dim] else x
