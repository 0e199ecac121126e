"""What a model reads in a supervised step, position by position, latents in their place.

Legend: B demonstrations, P prompt positions, T steps, L of both but the
last, S support of a target.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from latentgym.analysis.sequences import PositionKind, Sequences, kind_of_thoughts
from latentgym.heads.superposition import mix
from latentgym.lm import LatentLM
from latentgym.lm.mode import mode
from latentgym.rollout import Policy
from latentgym.rollout.own_thoughts import OwnThoughts
from latentgym.training.demonstrations import SupervisedBatch


class Chains(Protocol):
    """Prompts, padded left, and the mixtures of tokens that are read behind them, padded right."""

    @property
    def prompt_BP(self) -> Tensor: ...
    @property
    def prompt_mask_BP(self) -> Tensor: ...
    @property
    def ids_BTS(self) -> Tensor: ...
    @property
    def weights_BTS(self) -> Tensor: ...


@torch.no_grad()
def of_chains(
    lm: LatentLM, chains: Chains, kind_BT: Tensor, x_BLD: Tensor | None = None
) -> Sequences:
    """Sequences of what is read; nobody reads the last step of a row.

    Args:
        lm: the model.
        chains: B demonstrations.
        kind_BT: `PositionKind` of each step.
        x_BLD: all that is read, where it is not what the chains say.
    """
    real_BT = kind_BT != PositionKind.PAD
    last_BT = real_BT & (real_BT.flip(1).cumsum(1).flip(1) == 1)
    kind_BT = kind_BT.masked_fill(last_BT, PositionKind.PAD)
    best_BT1 = chains.weights_BTS.argmax(-1, keepdim=True)
    token_BT = chains.ids_BTS.gather(-1, best_BT1)[..., 0]
    if x_BLD is None:
        x_BTD = mix(chains.ids_BTS, chains.weights_BTS, lm.table_VD)
        x_BLD = torch.cat([lm.embed(chains.prompt_BP), x_BTD], dim=1)[:, :-1]
    prompt_BP = chains.prompt_mask_BP.long() * PositionKind.PROMPT
    return Sequences(
        torch.cat([chains.prompt_BP, token_BT], dim=1)[:, :-1],
        torch.cat([prompt_BP, kind_BT], dim=1)[:, :-1],
        x_BLD,
    )


@torch.no_grad()
def of_batch(policy: Policy, batch: SupervisedBatch, own: OwnThoughts | None) -> Sequences:
    """What the model reads of demonstrations.

    Args:
        policy: whose thoughts some rows read.
        batch: B demonstrations.
        own: which rows read their own thoughts, made once more as they are in the step.
    """
    lm, thought_BT = policy.lm, batch.thought_BT
    mixed_BT = (batch.weights_BTS > 0).sum(-1) > 1
    kind_BT = torch.full_like(batch.ids_BTS[..., 0], PositionKind.ANSWER)
    kind_BT[thought_BT] = PositionKind.CHAIN
    kind_BT[thought_BT & mixed_BT] = PositionKind.LATENT
    kind_BT[batch.inserted_BT] = PositionKind.INSERTED
    x_BLD = None
    if own is not None and bool((own_BT := own.row_B[:, None] & thought_BT).any()):
        kind_BT[own_BT] = kind_of_thoughts(policy)
        read: list[Tensor] = []

        def noted(x: Tensor) -> Tensor:
            read.append(x)
            return x

        with mode(lm, training=False), lm.full_precision():
            own.hidden_states(
                lm,
                lm.embed(batch.prompt_BP),
                mix(batch.ids_BTS, batch.weights_BTS, lm.table_VD),
                torch.cat([batch.prompt_mask_BP, batch.mask_BT], dim=1),
                thought_BT,
                batch.question_B,
                noted,
            )
        x_BLD = torch.cat(read, dim=1)
    return of_chains(lm, batch, kind_BT * batch.mask_BT, x_BLD)
