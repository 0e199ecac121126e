"""Demonstrations cut into steps, with room for a prefix of vectors before each.

Legend: B demonstrations, P prompt positions, L positions of prefixes and tokens, S steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from latentgym.analysis.sequences import PositionKind
from latentgym.lm import LatentLM
from latentgym.lm.model import left_pad

if TYPE_CHECKING:
    from latentgym.envs.task import Demonstration

IntArray = npt.NDArray[np.int64]


class Stepped(NamedTuple):
    """Demonstrations with room for a prefix before each step.

    Attributes:
        prompt_BP, prompt_mask_BP: prompts, padded left.
        token_BL: token ids, padded right; of a prefix anything.
        kind_BL: `PositionKind` of each position, HYBRID where a state is read: of prefixes or,
            without them, of thoughts.
        word_BL: which positions are tokens.
        step_BL, place_BL: of which step a position is, and its number in it (among its prefix or
            among its tokens).
        count_BS: tokens of each step; 0 where there is none.
        question_B: numbers of the questions.
    """

    prompt_BP: Tensor
    prompt_mask_BP: Tensor
    token_BL: Tensor
    kind_BL: Tensor
    word_BL: Tensor
    step_BL: Tensor
    place_BL: Tensor
    count_BS: Tensor
    question_B: IntArray

    @property
    def latent_BL(self) -> Tensor:
        return self.kind_BL == PositionKind.HYBRID


def cut(demonstration: Demonstration, step_end: IntArray) -> list[int]:
    """Tokens of each step; the answer belongs to the last.

    Args:
        demonstration: of one token a step.
        step_end: ids that end a step, where they are thoughts.
    """
    ids, length = demonstration.ids_TS[: demonstration.thoughts, 0], len(demonstration.ids_TS)
    ends = (np.isin(ids, step_end).nonzero()[0] + 1).tolist()
    cuts = [0, *(end for end in ends if end < length), length]
    return [after - before for before, after in pairwise(cuts)]


def stepped(
    items: Sequence[tuple[list[int], Demonstration]],
    cuts: Sequence[list[int]],
    prefix: int,
    questions: IntArray,
    lm: LatentLM,
    *,
    marked: bool,
) -> Stepped:
    """Prompts and demonstrations as tensors.

    Args:
        items: B of both.
        cuts: tokens of each step.
        prefix: positions before each step; with none states are read with the thoughts themselves.
        questions: numbers of the questions, (B,).
        lm: whose padding and device.
        marked: the last thought is the end of a marker, which episodes read as a plain token.
    """
    shape = (len(items), max(sum(counts) + prefix * len(counts) for counts in cuts))
    token, kind, step, place = (np.zeros(shape, np.int64) for _ in range(4))
    word = np.zeros(shape, np.bool_)
    count = np.zeros((len(items), max(map(len, cuts))), np.int64)
    for row, ((_, d), counts) in enumerate(zip(items, cuts, strict=True)):
        at = done = 0
        count[row, : len(counts)] = counts
        for s, n in enumerate(counts):
            vectors, words = slice(at, at + prefix), slice(at + prefix, at + prefix + n)
            step[row, at : words.stop] = s
            kind[row, vectors], place[row, vectors] = PositionKind.HYBRID, range(prefix)
            token[row, words], place[row, words] = d.ids_TS[done : done + n, 0], range(n)
            number = np.arange(done, done + n)
            latent = (number < d.thoughts - marked) & (prefix == 0)
            plain = np.where(number < d.thoughts, PositionKind.CHAIN, PositionKind.ANSWER)
            kind[row, words] = np.where(latent, PositionKind.HYBRID, plain)
            word[row, words] = True
            at, done = words.stop, done + n
    prompt, prompt_mask = left_pad([p for p, _ in items], lm.tokenizer.pad_id, lm.device)
    token_BL, kind_BL, word_BL, step_BL, place_BL, count_BS = (
        torch.from_numpy(array).to(lm.device) for array in (token, kind, word, step, place, count)
    )
    return Stepped(
        *(prompt, prompt_mask),
        *(token_BL, kind_BL, word_BL, step_BL, place_BL, count_BS),
        question_B=questions,
    )
