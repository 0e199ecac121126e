"""What all updates of a step have in common: rollouts, scored once, before anything moves.

Legend: N rows, T steps.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from latentgym.rollout import Episodes, Policy, Rollouts, log_probs
from latentgym.rollout.replay import acted, action_parts
from latentgym.training.grpo_config import GRPOConfig
from latentgym.training.losses import advantages, summed_kl


@dataclass(frozen=True)
class Scored:
    """Rollouts, and what does not change while they are learnt from.

    Attributes:
        rollouts: N rows.
        actions_N: how many actions each has, thoughts without randomness left out.
        advantage_N: of each.
        old_NT: log-probabilities under the policy that acted. None where a rollout has a single
            update: the policy that learns is that policy, and its own, detached, serve.
        reference_NT: under the policy that divergence is measured from, if it is.
    """

    rollouts: Rollouts
    actions_N: Tensor
    advantage_N: Tensor
    old_NT: Tensor | None
    reference_NT: Tensor | None


def scored(
    policy: Policy, reference: Policy | None, episodes: Episodes, config: GRPOConfig
) -> Scored:
    """Score episodes.

    Args:
        policy: that learns, as it was when it acted.
        reference: that divergence is measured from, if it is.
        episodes: N rows, whose groups are neighbours.
        config: settings.
    """
    c, rollouts = config, episodes.rollouts
    old_NT = reference_NT = None
    reward_N = torch.from_numpy(episodes.reward_N)
    part_NT, weight_NT = action_parts(policy, rollouts)
    in_reward = reference is not None and c.kl_in == "reward"
    if c.updates * c.mini_batches > 1 or in_reward:
        old_NT = log_probs(policy, rollouts, c.micro_batch, c.micro_tokens)
    if reference is not None:
        reference_NT = log_probs(reference, rollouts, c.micro_batch, c.micro_tokens)
    if in_reward:
        assert old_NT is not None and reference_NT is not None
        kl_N = summed_kl(old_NT, reference_NT, part_NT, weight_NT, c.kl_estimator)
        reward_N = reward_N - c.kl * kl_N.cpu()
    advantage_N = advantages(reward_N, c.group_size, c.advantage).to(part_NT.device)
    if c.updates * c.mini_batches == 1:
        old_NT = None  # scored with other rows at once, it would round otherwise than the update
    return Scored(rollouts, acted(part_NT).sum(-1), advantage_N, old_NT, reference_NT)
