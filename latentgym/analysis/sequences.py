"""What a model has read, position by position, and what stands there.

Legend: N rows, T positions of prompt and steps, M some of them, D width, S support of a target.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from latentgym.errors import UsageError
from latentgym.heads.superposition import mix
from latentgym.lm import LatentLM
from latentgym.lm.model import left_pad, right_pad
from latentgym.rollout import Policy, Rollouts
from latentgym.rollout.replay import whole_rows
from latentgym.rollout.rollouts import StepKind

if TYPE_CHECKING:
    from latentgym.envs.task import Demonstration


class PositionKind(IntEnum):
    """What stands at a position of a sequence."""

    PAD = 0
    PROMPT = 1
    CHAIN = 2  # a token of the chain of thought
    HYBRID = 3  # a latent of the hybrid family
    LATENT = 4  # a continuous superposition
    INSERTED = 5  # put there by the environment
    ANSWER = 6  # an answer token, or the end of an answer marker


THOUGHTS = (PositionKind.CHAIN, PositionKind.HYBRID, PositionKind.LATENT)
_OF_FAMILY = {"token": THOUGHTS[0], "hybrid": THOUGHTS[1], "continuous": THOUGHTS[2]}
_OF_STEP = {
    StepKind.PLAIN: PositionKind.CHAIN,
    StepKind.TOKEN: PositionKind.ANSWER,
    StepKind.INSERTED: PositionKind.INSERTED,
    StepKind.PROMPT: PositionKind.PROMPT,
    StepKind.GIVEN: PositionKind.PROMPT,
    StepKind.TARGET: PositionKind.ANSWER,
}


@dataclass(frozen=True)
class Sequences:
    """N sequences, padded on either side.

    Attributes:
        token_NT: the token by which each position is read, or the likeliest one of a latent.
        kind_NT: `PositionKind` of each position.
        x_NTD: input embeddings: of tokens, and the latents themselves; without gradient.
    """

    token_NT: Tensor
    kind_NT: Tensor
    x_NTD: Tensor

    def __len__(self) -> int:
        return len(self.token_NT)

    @property
    def mask_NT(self) -> Tensor:
        """Which positions are real."""
        return self.kind_NT != PositionKind.PAD

    @property
    def first_NT(self) -> Tensor:
        """The first real position of each row: language models often keep a sink there."""
        return self.mask_NT & (self.mask_NT.cumsum(1) == 1)

    @property
    def step_NT(self) -> Tensor:
        """The number of each thought among those of its row, from 0; -1 where none is."""
        thought_NT = torch.isin(self.kind_NT, self.kind_NT.new_tensor(THOUGHTS))
        return torch.where(thought_NT, thought_NT.cumsum(1) - 1, -1)

    @property
    def kinds(self) -> tuple[PositionKind, ...]:
        """The kinds that there are, in their order, without padding."""
        return tuple(kind for kind in PositionKind if kind and bool((self.kind_NT == kind).any()))

    def spread_steps(self, most: int) -> list[int]:
        """So many steps of thought at most, evenly spaced from the first to the last of any row."""
        count = int(self.step_NT.max()) + 1
        return sorted({round(x) for x in np.linspace(0, count - 1, min(most, count)).tolist()})

    def counts(self) -> dict[str, Any]:
        """How many `sequences` there are, and how many `positions` of each kind, for a record."""
        positions = {k.name.lower(): int((self.kind_NT == k).sum()) for k in self.kinds}
        return {"sequences": len(self), "positions": positions}

    def select(self, rows: Any) -> Sequences:
        """Some of the rows, without columns that are padding in all of them."""
        kind = self.kind_NT[rows]
        used = (kind != PositionKind.PAD).any(0).nonzero()[:, 0]
        columns = slice(int(used.min()), int(used.max()) + 1)
        return Sequences(self.token_NT[rows, columns], kind[:, columns], self.x_NTD[rows, columns])

    def chunks(self, positions: int) -> Iterator[Sequences]:
        """All rows in their order, at most so many positions at once, but at least one row."""
        rows = max(1, positions // self.token_NT.shape[1])
        for start in range(0, len(self), rows):
            yield self.select(slice(start, start + rows))

    def with_inputs(self, x_NTD: Tensor) -> Sequences:
        """The same positions with other input embeddings."""
        return replace(self, x_NTD=x_NTD)


def kind_of_thoughts(policy: Policy) -> PositionKind:
    """What the thoughts of a policy are."""
    return _OF_FAMILY["token" if policy.thinks_in_tokens else policy.head.family]


@torch.no_grad()
def of_rollouts(policy: Policy, rollouts: Rollouts) -> Sequences:
    """What the model has read in stored rollouts, latents in their place, exactly.

    Args:
        policy: that they are of.
        rollouts: N rows.
    """
    read = whole_rows(policy.lm, rollouts)
    step_NT = read.kind_NT.long()
    x_NTD = policy.inputs(*read, policy.lm.table_VD)
    thought_NT = step_NT == StepKind.THOUGHT
    kind_NT = torch.zeros_like(step_NT).masked_fill(thought_NT, kind_of_thoughts(policy))
    for step, kind in _OF_STEP.items():
        kind_NT[step_NT == step] = kind
    return Sequences(read.token_NT, kind_NT, x_NTD)


@torch.no_grad()
def of_demonstrations(
    lm: LatentLM, items: Iterable[tuple[Sequence[int], Demonstration]]
) -> Sequences:
    """Right answers with their reasoning, as supervised training has them read.

    Args:
        lm: the model.
        items: prompts and demonstrations; a step of several weights is read as their mixture.

    Raises:
        UsageError: there is none, or one is longer than what the model can read.
    """
    items = list(items)
    if not items:
        raise UsageError("there is no demonstration to analyse; give at least one question.")
    longest = max(len(p) + len(d.ids_TS) for p, d in items)
    if lm.max_positions is not None and longest > lm.max_positions:
        raise UsageError(
            f"a demonstration has {longest} tokens with its question, but the model reads "
            f"{lm.max_positions}; choose other questions, or another model."
        )
    device, pad = lm.device, lm.tokenizer.pad_id
    prompt, prompt_mask = left_pad([list(p) for p, _ in items], pad, device)
    tokens, mask = right_pad([d.ids_TS[:, 0].tolist() for _, d in items], pad, device)
    support = max(d.ids_TS.shape[1] for _, d in items)
    ids_NTS = np.zeros((*tokens.shape, support), dtype=np.int64)
    weights_NTS = np.zeros(ids_NTS.shape, dtype=np.float32)
    kind_NT = torch.zeros_like(tokens)
    for row, (_, d) in enumerate(items):
        t, s = d.ids_TS.shape
        ids_NTS[row, :t, :s], weights_NTS[row, :t, :s] = d.ids_TS, d.weights_TS
        mixed = torch.from_numpy((d.weights_TS > 0).sum(1) > 1).to(device)
        kind_NT[row, : d.thoughts] = PositionKind.CHAIN
        kind_NT[row, : d.thoughts][mixed[: d.thoughts]] = PositionKind.LATENT
        kind_NT[row, d.thoughts : t] = PositionKind.ANSWER
        if d.inserted_T is not None:
            inserted = torch.from_numpy(d.inserted_T).to(device)
            kind_NT[row, : len(inserted)][inserted] = PositionKind.INSERTED
        likeliest = d.ids_TS[np.arange(t), d.weights_TS.argmax(1)]
        tokens[row, :t] = torch.from_numpy(likeliest).to(device)
    ids, weights = (torch.from_numpy(x).to(device) for x in (ids_NTS, weights_NTS))
    x_steps = torch.where((weights.sum(-1) > 0)[..., None], mix(ids, weights, lm.table_VD), 0.0)
    return Sequences(
        torch.cat([prompt, tokens], dim=1),
        torch.cat([prompt_mask.long() * PositionKind.PROMPT, kind_NT * mask], dim=1),
        torch.cat([lm.embed(prompt), x_steps], dim=1),
    )
