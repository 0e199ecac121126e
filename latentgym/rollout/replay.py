"""Exact replay: the log-probabilities of stored actions in one parallel, differentiable pass.

A rollout stores what was thought, not the distributions. Replay embeds the stored thoughts
(`head.embed`), reads prompt and steps in one forward pass, and scores every action from the
position before it (`Policy.forward`). It agrees with step-by-step decoding for every head, with
left padding and rows of unequal length; that is what makes training on latent rollouts trustworthy.

Legend: N rows, P prompt positions, T steps.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from latentgym.lm.model import left_pad
from latentgym.rollout.policy import Policy
from latentgym.rollout.rollouts import Rollouts, StepKind


@dataclass
class Scores:
    """What replay computes.

    Attributes:
        logp_NT: log-probability of each action and target, 0 where there is none; fp32.
        entropy_NT: entropy of the next-token distribution at each action, without gradient.
        action_NT: True where there is an action.
        thought_NT: True where it is a thought.
    """

    logp_NT: Tensor
    entropy_NT: Tensor
    action_NT: Tensor
    thought_NT: Tensor


def replay(policy: Policy, rollouts: Rollouts) -> Scores:
    """Score the stored actions under the policy as it is now.

    Args:
        policy: the policy; gradients flow to its model, its head and, through the embedding of
            stored ids, to the embedding table.
        rollouts: N rows.
    """
    device = policy.lm.device
    prompts = [rollouts.prompts[i] for i in rollouts.prompt_N]
    ids_NP, mask_NP = left_pad(prompts, policy.lm.tokenizer.pad_id, device)
    token_NT = torch.from_numpy(rollouts.token_NT).to(device)
    kind_NT = torch.from_numpy(rollouts.kind_NT).to(device)
    thought_NT = kind_NT == StepKind.THOUGHT
    thoughts = {k: v.to(device)[thought_NT] for k, v in rollouts.actions.items() if k != "token"}
    kind_NP = mask_NP.to(kind_NT.dtype) * StepKind.PROMPT
    logp, entropy = policy(
        torch.cat([ids_NP, token_NT], dim=1), torch.cat([kind_NP, kind_NT], dim=1), thoughts
    )
    steps = slice(ids_NP.shape[1], None)
    action_NT = thought_NT | (kind_NT == StepKind.TOKEN)
    return Scores(logp[:, steps], entropy[:, steps], action_NT, thought_NT)


@torch.no_grad()
def log_probs(policy: Policy, rollouts: Rollouts, micro_batch: int) -> Tensor:
    """Log-probabilities of all rows as `replay` tells them, without gradient, fp32 (N, T).

    Args:
        policy: the policy.
        rollouts: N rows.
        micro_batch: most rows at once. Those of a group are neighbours and share their prompt.
    """
    logp_NT = torch.zeros(rollouts.token_NT.shape, device=policy.lm.device)
    for rows in micro_batches(rollouts, micro_batch):
        part_BT = replay(policy, rollouts.select(rows)).logp_NT
        # A part is as wide as its own longest row.
        logp_NT[rows[0] : rows[-1] + 1, : part_BT.shape[1]] = part_BT
    return logp_NT


def micro_batches(
    rollouts: Rollouts, rows: int
) -> list[np.ndarray[tuple[int], np.dtype[np.int64]]]:
    """Row indices of consecutive batches of at most `rows` rows, in order."""
    index = np.arange(len(rollouts))
    return [index[i : i + rows] for i in range(0, len(index), rows)]
