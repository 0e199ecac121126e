"""Rows that a language model reads step by step, each of which begins and ends by itself.

`Session` takes a batch from its prompts to its answers; here rows are started, read and started
anew in any order, as an environment with a model inside needs it. Prompts that several rows share
are read once.

Legend: N rows, B of them that read now, n positions, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache

from latentgym.errors import UsageError
from latentgym.lm.model import LatentLM, right_pad
from latentgym.lm.row_cache import RowCache
from latentgym.rollout.rollouts import IntArray
from latentgym.text.lengths import SHORTER

_MOST_POSITIONS = 1 << 14  # of prompts that are read in one pass

Ids = Sequence[Sequence[int]]


class RowDecoder:
    """What a model has read of N rows. All methods belong within `LatentLM.decoding`.

    Args:
        lm: the model.
        n_rows: N.

    Attributes:
        hidden_ND: last hidden state of each row.
    """

    def __init__(self, lm: LatentLM, n_rows: int) -> None:
        self.lm, self._cache = lm, RowCache(n_rows)
        self.hidden_ND = torch.zeros(n_rows, lm.hidden_size, dtype=lm.dtype, device=lm.device)

    def start(self, rows: IntArray, prompts: Ids, more: int) -> None:
        """Begin rows anew.

        Args:
            rows: which.
            prompts: theirs, none of them empty.
            more: positions that may follow, for which room is made.

        Raises:
            UsageError: the model has too few positions for that, or the machine too little memory.
        """
        most = max(map(len, prompts)) + more
        self._check(most)
        number: dict[tuple[int, ...], int] = {}
        number_B = np.array([number.setdefault(tuple(p), len(number)) for p in prompts])
        first = 0
        for some in _bounded(list(number)):
            of = (number_B >= first) & (number_B < first + len(some))
            self._start(rows[of], [list(p) for p in some], number_B[of] - first, most)
            first += len(some)

    def _start(
        self, rows: IntArray, prompts: list[list[int]], number_B: IntArray, room: int
    ) -> None:
        lm, cache = self.lm, DynamicCache()
        ids_QP, mask_QP = right_pad(prompts, lm.tokenizer.pad_id, lm.device)
        hidden_QPD = lm.hidden(lm.embed(ids_QP), mask_QP, cache)
        lengths_B = np.array([len(prompt) for prompt in prompts])[number_B]
        self._cache.start(rows, cache, number_B, lengths_B, room)
        at = self._to_device(number_B), self._to_device(lengths_B - 1)
        self._set(rows, hidden_QPD[at])

    def read(self, rows: IntArray, x_BD: Tensor) -> None:
        """Read one more position in each of some rows: its input embedding."""
        self._set(rows, self._extend(rows, x_BD[:, None], None)[:, 0])

    def read_tokens(self, rows: IntArray, ids: Ids) -> None:
        """Read some tokens, at least one, in each of some rows."""
        hidden_BnD, last_B = self._read_tokens(rows, ids)
        self._set(rows, hidden_BnD[torch.arange(len(rows), device=last_B.device), last_B])

    def log_prob_of(self, rows: IntArray, before: Ids, ids: Ids) -> Tensor:
        """How likely a row would say some tokens: log-probability, the mean over them, (B,).

        Nothing of that is read for good.

        Args:
            rows: which.
            before: tokens that each would read first, or none.
            ids: tokens whose probability is asked for, at least one in each row.
        """
        lm = self.lm
        whole = [[*a, *b] for a, b in zip(before, ids, strict=True)]
        start = self.hidden_ND[self._to_device(rows), None]
        with self._cache.peeking():
            hidden_BnD, _ = self._read_tokens(rows, whole)
        hidden_BnD = torch.cat([start, hidden_BnD], dim=1)
        found = []
        for row, (first, said) in enumerate(zip(map(len, before), ids, strict=True)):
            logits_nV = lm.logits(hidden_BnD[row, first : first + len(said)])
            token_n1 = torch.tensor(list(said), device=lm.device)[:, None]
            found.append(logits_nV.log_softmax(-1).gather(-1, token_n1).mean())
        return torch.stack(found)

    def _check(self, most: int) -> None:
        limit = self.lm.max_positions
        if limit is not None and most > limit:
            raise UsageError(
                f"an episode may take {most} positions, but the model has {limit}; {SHORTER}."
            )

    def _read_tokens(self, rows: IntArray, ids: Ids) -> tuple[Tensor, Tensor]:
        """Hidden states of further tokens, (B, n, D), and which of them is the last, (B,)."""
        lm = self.lm
        self._check(int((self._cache.length_N[rows] + [len(i) for i in ids]).max()))
        ids_Bn, mask_Bn = right_pad([list(i) for i in ids], lm.tokenizer.pad_id, lm.device)
        mask = None if bool(mask_Bn.all()) else mask_Bn
        return self._extend(rows, lm.embed(ids_Bn), mask), mask_Bn.sum(1) - 1

    def _extend(self, rows: IntArray, x_BnD: Tensor, mask_Bn: Tensor | None) -> Tensor:
        position_Bn = self._cache.length_N[rows][:, None] + np.arange(x_BnD.shape[1])
        with self._cache.only(rows):
            return self.lm.extend(x_BnD, self._to_device(position_Bn), self._cache, mask_Bn)

    def _set(self, rows: IntArray, hidden_BD: Tensor) -> None:
        self.hidden_ND[self._to_device(rows)] = hidden_BD.to(self.hidden_ND.dtype)

    def _to_device(self, array: Any) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.lm.device)


def _bounded(prompts: list[tuple[int, ...]]) -> Iterator[list[tuple[int, ...]]]:
    """Prompts in runs that are not too much for one pass, in their order."""
    some: list[tuple[int, ...]] = []
    for prompt in prompts:
        longest = max(map(len, [*some, prompt]))
        if some and longest * (len(some) + 1) > _MOST_POSITIONS:
            yield some
            some = []
        some.append(prompt)
    yield some
