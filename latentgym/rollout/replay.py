"""Exact replay: the log-probabilities of stored actions in one parallel, differentiable pass.

A rollout stores what was thought, not the distributions. Replay embeds the stored thoughts
(`head.embed`), reads prompt and steps in one forward pass, and scores every action from the
position before it (`Policy.forward`). It agrees with step-by-step decoding for every head, with
left padding and rows of unequal length; that is what makes training on latent rollouts trustworthy.

Legend: N rows, P prompt positions, T steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from latentgym.heads import Action
from latentgym.heads.base import drawn_parts
from latentgym.heads.distributions import masked
from latentgym.lm.model import LatentLM, left_pad
from latentgym.rollout.policy import Policy
from latentgym.rollout.rollouts import THOUGHTS, IntArray, Rollouts, StepKind


@dataclass
class Scores:
    """What replay computes.

    Attributes:
        logp_NT: log-probability of each action and target, 0 where there is none; fp32. Where the
            head's thoughts have J parts, that of each, (N, T, J).
        part_NT: where an action has one, bool, of the same shape.
        weight_NT: of each in loss and divergence, of the same shape.
        entropy_NT: entropy of what each action was drawn from, (N, T); by default without gradient.
        thought_NT: True where the head has acted, (N, T).
    """

    logp_NT: Tensor
    part_NT: Tensor
    weight_NT: Tensor
    entropy_NT: Tensor
    thought_NT: Tensor

    @property
    def action_NT(self) -> Tensor:
        """True where there is an action; a thought without randomness is none."""
        return acted(self.part_NT)

    def joint(self, logp_NT: Tensor) -> Tensor:
        """Log-probabilities of actions as wholes, (N, T): the sum over those of their parts."""
        drawn_NT = masked(logp_NT, self.part_NT)
        return drawn_NT.sum(-1) if drawn_NT.dim() > 2 else drawn_NT

    def of_actions(self, value_NT: Tensor) -> Tensor:
        """The weighted sum over the parts of each action, (N, T), of something of each part."""
        weighted_NT = masked(value_NT * self.weight_NT, self.part_NT)
        return weighted_NT.sum(-1) if weighted_NT.dim() > 2 else weighted_NT


def replay(policy: Policy, rollouts: Rollouts, *, entropy_gradient: bool = False) -> Scores:
    """Score the stored actions under the policy as it is now.

    Args:
        policy: the policy; gradients flow to its model, its head and, through the embedding of
            stored ids, to the embedding table.
        rollouts: N rows.
        entropy_gradient: whether entropies have gradients, see `Policy.forward`.
    """
    read = whole_rows(policy.lm, rollouts)
    logp, entropy = policy(
        read.token_NT, read.kind_NT, read.thoughts, read.given_MD, entropy_gradient
    )
    steps = slice(read.kind_NT.shape[1] - rollouts.kind_NT.shape[1], None)
    thought_NT = torch.from_numpy(np.isin(rollouts.kind_NT, THOUGHTS)).to(logp.device)
    part_NT, weight_NT = _parts(
        policy, read.token_NT[:, steps], read.kind_NT[:, steps], thought_NT, read.thoughts
    )
    return Scores(logp[:, steps], part_NT, weight_NT, entropy[:, steps], thought_NT)


class WholeRows(NamedTuple):
    """Prompts, what was given after them, and steps, in one sequence of each row.

    Attributes:
        token_NT: the token by which each position is read, padded on the left.
        kind_NT: `StepKind` of each position.
        thoughts: the head's actions in row-major order, see `stored_thoughts`.
        given_MD: what is read at the positions of kind GIVEN, in row-major order.
    """

    token_NT: Tensor
    kind_NT: Tensor
    thoughts: Action
    given_MD: Tensor | None


def whole_rows(lm: LatentLM, rollouts: Rollouts) -> WholeRows:
    """What the model has read of rollouts, as arguments of `Policy.forward`."""
    prompts = [rollouts.prompts[i] for i in rollouts.prompt_N]
    ids_NP, mask_NP = left_pad(prompts, lm.tokenizer.pad_id, lm.device)
    token_NT = torch.from_numpy(rollouts.token_NT).to(lm.device)
    kind_NT = torch.from_numpy(rollouts.kind_NT).to(lm.device)
    tokens, kinds, given_MD = [ids_NP], [mask_NP.to(kind_NT.dtype) * StepKind.PROMPT], None
    if rollouts.given_QkD is not None:
        prompt_N = torch.from_numpy(rollouts.prompt_N)
        given_NkD = rollouts.given_QkD[prompt_N.to(rollouts.given_QkD.device)].to(lm.device)
        given_MD, shape = given_NkD.flatten(0, 1), given_NkD.shape[:2]
        tokens.append(token_NT.new_zeros(shape))
        kinds.append(kind_NT.new_full(shape, StepKind.GIVEN))
    _, thoughts = stored_thoughts(rollouts, lm.device)
    token_NT, kind_NT = torch.cat([*tokens, token_NT], dim=1), torch.cat([*kinds, kind_NT], dim=1)
    return WholeRows(token_NT, kind_NT, thoughts, given_MD)


def stored_thoughts(rollouts: Rollouts, device: torch.device) -> tuple[Tensor, Action]:
    """Where the head's actions stand, bool (N, T), and these in row-major order.

    Args:
        rollouts: N rows.
        device: of what is returned.

    Returns:
        The actions have their `token` and whether they are `plain`.
    """
    where_NT = torch.from_numpy(np.isin(rollouts.kind_NT, THOUGHTS)).to(device)
    thoughts = {k: v.to(device)[where_NT] for k, v in rollouts.actions.items()}
    thoughts["token"] = torch.from_numpy(rollouts.token_NT).to(device)[where_NT]
    thoughts["plain"] = torch.from_numpy(rollouts.kind_NT).to(device)[where_NT] == StepKind.PLAIN
    return where_NT, thoughts


def action_parts(policy: Policy, rollouts: Rollouts) -> tuple[Tensor, Tensor]:
    """Which parts each action has that were drawn at random, and their weights.

    Args:
        policy: that acted.
        rollouts: N rows.

    Returns:
        bool and fp32, both (N, T), or (N, T, J) where the head's thoughts have J > 1 parts. A plain
        token is one part of weight one.
    """
    where_NT, thoughts = stored_thoughts(rollouts, policy.lm.device)
    token_NT, kind_NT = (
        torch.from_numpy(x).to(where_NT.device) for x in (rollouts.token_NT, rollouts.kind_NT)
    )
    return _parts(policy, token_NT, kind_NT, where_NT, thoughts)


def _parts(
    policy: Policy, token_NT: Tensor, kind_NT: Tensor, where_NT: Tensor, thoughts: Action
) -> tuple[Tensor, Tensor]:
    """See `action_parts`; of thoughts that are picked already, and where they stand."""
    device, weights = kind_NT.device, policy.head.part_weights
    first_J = torch.arange(len(weights), device=device) == 0
    answer_NT = kind_NT == StepKind.TOKEN
    drawn_M1 = drawn_parts(policy.answer_head, {"token": token_NT[answer_NT]})
    part_NTJ = answer_NT.masked_scatter(answer_NT, drawn_M1[:, 0])[..., None] & first_J
    part_NTJ = part_NTJ.masked_scatter(where_NT[..., None], drawn_parts(policy.head, thoughts))
    weight_J = torch.tensor(weights, device=device)
    weight_NTJ = torch.where(where_NT[..., None], weight_J, 1.0)
    if len(weights) > 1:
        return part_NTJ, weight_NTJ
    return part_NTJ[..., 0], weight_NTJ[..., 0]


def acted(part_NT: Tensor) -> Tensor:
    """Where any part of an action was drawn, bool (N, T)."""
    return part_NT.any(-1) if part_NT.dim() > 2 else part_NT


@torch.no_grad()
def log_probs(
    policy: Policy, rollouts: Rollouts, micro_batch: int, micro_tokens: int = 0
) -> Tensor:
    """Log-probabilities of all rows as `replay` tells them, without gradient, fp32.

    Args:
        policy: the policy.
        rollouts: N rows.
        micro_batch: most rows at once. Those of a group are neighbours and share their prompt.
        micro_tokens: most positions at once; 0 for no bound.
    """
    parts, device = len(policy.head.part_weights), policy.lm.device
    shape = (*rollouts.token_NT.shape, *((parts,) if parts > 1 else ()))
    logp_NT = torch.zeros(shape, device=device)
    for rows in micro_batches(rollouts.positions_N, micro_batch, micro_tokens):
        part_BT = replay(policy, rollouts.select(rows)).logp_NT
        # A part is as wide as its own longest row.
        logp_NT[rows[0] : rows[-1] + 1, : part_BT.shape[1]] = part_BT
    return logp_NT


def micro_batches(positions_N: IntArray, rows: int, tokens: int = 0) -> list[IntArray]:
    """Places of consecutive batches, in order.

    Args:
        positions_N: of each row (`Rollouts.positions_N`).
        rows: most of a batch.
        tokens: most positions of a batch, padding among them; 0 for no bound. A row that is longer
            by itself is a batch of its own.
    """
    parts, width = list[list[int]](), 0
    for place, length in enumerate(positions_N.tolist()):
        wide = max(width, length)
        fits = parts and len(parts[-1]) < rows
        if fits and (not tokens or wide * (len(parts[-1]) + 1) <= tokens):
            parts[-1].append(place)
            width = wide
        else:
            parts.append([place])
            width = length
    return [np.array(part, dtype=np.int64) for part in parts]
