"""Sequences that are read again and again, each time from where they have changed.

A search over answers reads nearly the same sequence many times: the prompt stays, and of the chain
behind it all that stands before the first changed token. A `PrefixCache` keeps the cache of what it
has read between calls, and reads of each sequence the rest only.

Legend: N sequences, T positions, J positions kept, n positions read now, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache

from latentgym.lm.cache import GroupedCache
from latentgym.lm.model import LatentLM, Prefill, right_pad
from latentgym.rollout.rollouts import IntArray


class PrefixCache:
    """What a model has read of some sequences, by key.

    Args:
        lm: the model; as long as the reading is used, its weights must stay as they are.

    Attributes:
        fresh_N: how many positions of each sequence the last call had to read, int64 (N,).
    """

    def __init__(self, lm: LatentLM) -> None:
        self.lm = lm
        self.fresh_N: IntArray = np.zeros(0, dtype=np.int64)
        self._row: dict[int, int] = {}
        self._ids: list[IntArray] = []
        self._cache = DynamicCache()
        device = lm.device
        self._mask_NT = torch.zeros(0, 0, dtype=torch.bool, device=device)
        self._hidden_NTD = torch.zeros(0, 0, lm.hidden_size, device=device)

    def read(
        self, keys: Sequence[int], sequences: Sequence[Sequence[int]], group_size: int = 1
    ) -> Prefill:
        """Read sequences; a key that was read before is read from its first changed token.

        Sequences that are not asked for again are forgotten.

        Args:
            keys: what each sequence is known by, N different numbers.
            sequences: token ids, none empty.
            group_size: rows that will go on behind each sequence.

        Returns:
            As `LatentLM.prefill` gives it, with memory.
        """
        lm, ids = self.lm, [np.asarray(sequence, dtype=np.int64) for sequence in sequences]
        old_N = np.array([self._row.get(key, -1) for key in keys])
        kept_N = np.array(
            [
                common(self._ids[row], new) if row >= 0 else 0
                for row, new in zip(old_N, ids, strict=True)
            ]
        )
        with lm.decoding():
            self._keep(torch.from_numpy(old_N.clip(min=0)), torch.from_numpy(kept_N))
            self._extend([new[kept:].tolist() for new, kept in zip(ids, kept_N, strict=True)])
        self._row, self._ids = {key: row for row, key in enumerate(keys)}, ids
        self.fresh_N = np.array([len(new) for new in ids]) - kept_N
        width = self._mask_NT.shape[1]
        last_N = width - 1 - self._mask_NT.flip(1).int().argmax(1)
        hidden_ND = self._hidden_NTD[torch.arange(len(ids), device=last_N.device), last_N]
        return Prefill(
            cache=GroupedCache(self._cache, self._mask_NT, group_size),
            hidden_ND=hidden_ND.repeat_interleave(group_size, dim=0),
            memory_QPD=self._hidden_NTD,
            memory_mask_QP=self._mask_NT,
        )

    def hidden(self, key: int) -> Tensor:
        """Last hidden states of a sequence as it was read last, (T, D)."""
        row = self._row[key]
        return self._hidden_NTD[row][self._mask_NT[row]]

    def _keep(self, old_N: Tensor, kept_N: Tensor) -> None:
        """Keep the first positions of old rows as new rows, flush right; forget all else."""
        width, device = int(kept_N.max()), self.lm.device
        if not width:
            self._cache = DynamicCache()
            self._mask_NT = self._mask_NT.new_zeros(len(old_N), 0)
            self._hidden_NTD = self._hidden_NTD.new_zeros(len(old_N), 0, self.lm.hidden_size)
            return
        old_N, kept_N = old_N.to(device), kept_N.to(device)
        rank_NJ = torch.arange(width, device=device) - (width - kept_N[:, None])
        # The columns of the real positions of each row come first, in their order.
        real_NT = (~self._mask_NT[old_N]).int().argsort(dim=1, stable=True)
        at = old_N[:, None], real_NT.gather(1, rank_NJ.clamp_min(0))
        layers: list[Any] = self._cache.layers
        for layer in layers:
            layer.keys = layer.keys.transpose(1, 2)[at].transpose(1, 2)
            layer.values = layer.values.transpose(1, 2)[at].transpose(1, 2)
        self._mask_NT, self._hidden_NTD = rank_NJ >= 0, self._hidden_NTD[at]

    def _extend(self, rest: list[list[int]]) -> None:
        """Read what is left of each sequence, in one pass."""
        if not any(rest):
            return
        lm = self.lm
        # On the right, so that no padding stands within a sequence: a sliding window counts it.
        ids_Nn, mask_Nn = right_pad(rest, lm.tokenizer.pad_id, lm.device)
        self._mask_NT = torch.cat([self._mask_NT, mask_Nn], dim=1)
        hidden_NnD = lm.hidden(lm.embed(ids_Nn), self._mask_NT, self._cache)
        self._hidden_NTD = torch.cat([self._hidden_NTD.to(hidden_NnD), hidden_NnD], dim=1)


def common(a: npt.ArrayLike, b: npt.ArrayLike) -> int:
    """How many ids two sequences begin with in common."""
    a, b = np.asarray(a), np.asarray(b)
    n = min(len(a), len(b))
    differ = np.flatnonzero(a[:n] != b[:n])
    return int(differ[0]) if differ.size else n
