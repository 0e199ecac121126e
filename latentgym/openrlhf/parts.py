"""Thoughts of several parts in OpenRLHF, which knows one log-probability for each token.

A position of a row takes J places there, one for each part of a thought, and its token stands in
all of them. A place is scored from the one before it, so the first of a row is not: there are
A = T J - 1. Losses and ratios are then of each part, as OpenRLHF computes them; means are over
actions, so what it averages is first summed up over the places of each.

Legend: B rows, T positions, J parts, A places that may be scored.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from latentgym.heads.distributions import masked
from latentgym.rollout import THOUGHTS


class Actions(NamedTuple):
    """The actions of an experience.

    Attributes:
        thought_BT: which of them are thoughts, bool.
        acted_BT: where there is one, bool.
        part_BTJ: where it has a part, bool.
        weight_BTJ: of the part in loss and divergence.
    """

    thought_BT: Tensor
    acted_BT: Tensor
    part_BTJ: Tensor
    weight_BTJ: Tensor


def places(x_BTJ: Tensor) -> Tensor:
    """What stands at the places that may be scored, (B, A)."""
    return x_BTJ.flatten(1)[:, 1:]


def positions(x_BA: Tensor, parts: int) -> Tensor:
    """What stands at the places of each position, (B, T, J); 0 at the first."""
    return nn.functional.pad(x_BA, (1, 0)).view(len(x_BA), -1, parts)


def actions_of(experience: Any) -> Actions:
    """The actions of an experience, by what travels with its samples."""
    told = experience.mm_train_inputs
    part_BTJ = positions(experience.action_mask.bool(), told[0]["part_weight"].shape[1])
    acted_BT = part_BTJ.any(-1)
    thought_BT, weight_BTJ = torch.zeros_like(acted_BT), torch.zeros(part_BTJ.shape)
    for row, inputs in enumerate(told):
        length = len(inputs["kind"])
        thought_BT[row, :length] = torch.from_numpy(np.isin(inputs["kind"].numpy(), THOUGHTS))
        weight_BTJ[row, :length] = inputs["part_weight"]
    return Actions(thought_BT & acted_BT, acted_BT, part_BTJ, weight_BTJ.to(acted_BT.device))


def first_part(part_BTJ: Tensor) -> Tensor:
    """The first part that each action has, bool (B, T, J)."""
    return part_BTJ & (part_BTJ.cumsum(-1) == 1)


def over_actions(aggregate: Callable[..., Tensor], parts: int) -> Callable[..., Tensor]:
    """OpenRLHF's mean of losses, as one over actions: sums over the places of each are averaged."""

    def mean(loss_BA: Tensor, mask_BA: Tensor, **info: Any) -> Tensor:
        part_BTJ = positions(mask_BA.bool(), parts)
        loss_BT = masked(positions(loss_BA, parts), part_BTJ).sum(-1)
        return aggregate(loss_BT, part_BTJ.any(-1).to(mask_BA.dtype), **info)

    return mean
