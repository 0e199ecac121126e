"""Rollouts of a policy in bf16 that is trained in fp32, and the weight that makes up for it.

The copy that rolls out, mu, is the policy that learns, pi_old, with its language model rounded to
eight bits; so actions are not quite pi_old's. Their losses are weighted by truncated importance
sampling, as TRL and verl do it for rollouts of another engine (Yao et al., 2025, "Your Efficient RL
Framework Secretly Brings You Off-Policy RL Training"):

    w = min(pi_old(a) / mu(a), C),    C = 2,    without gradient

where mu(a) was recorded as the action was sampled and pi_old(a) is replayed. Clipping goes on from
pi_old, so that the ratio of a first update is 1 as ever.

Legend: N rows, T steps.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from latentgym.heads.distributions import masked
from latentgym.rollout import Policy

CAP = 2.0
"""C, beyond which a weight is cut off: the more it may be, the fewer actions may rule a loss."""


@dataclass(frozen=True)
class Correction:
    """What sampling from mu in place of pi_old comes to, per action; no gradient.

    Attributes:
        weight_NT: w, fp32; 1 where there is no action.
        kl_NT: log mu(a) - log pi_old(a), whose mean estimates KL(mu || pi_old); 0 there.
        truncated_NT: where w was cut off, bool.
    """

    weight_NT: Tensor
    kl_NT: Tensor
    truncated_NT: Tensor


@torch.no_grad()
def truncated_importance(
    recorded_NT: Tensor, replayed_NT: Tensor, mask_NT: Tensor, cap: float = CAP
) -> Correction:
    """The correction of actions that another policy sampled than the one that learns.

    Args:
        recorded_NT: log mu(a), as the rollout recorded it.
        replayed_NT: log pi_old(a).
        mask_NT: where there is an action, bool.
        cap: C.
    """
    kl_NT = masked(recorded_NT, mask_NT) - masked(replayed_NT, mask_NT)
    ratio_NT = torch.exp(-kl_NT)
    return Correction(ratio_NT.clamp(max=cap), kl_NT, ratio_NT > cap)


class RoundedPolicy:
    """A copy of a policy whose language model has weights of another type; its heads are shared.

    Args:
        policy: what learns.
        dtype: of the copy's weights. Buffers, such as frequencies of positions, stay as they are.

    Attributes:
        policy: the copy, which has no gradients.
    """

    def __init__(self, policy: Policy, dtype: torch.dtype) -> None:
        self._learner = policy
        rounded: dict[int, object] = {
            id(p): nn.Parameter(p.detach().to(dtype), requires_grad=False)
            for p in policy.lm.parameters()
        }
        lm = copy.deepcopy(policy.lm, rounded)
        lm.autocast = None
        self.policy = Policy(
            lm,
            policy.head,
            None if policy.thinks_in_tokens else policy.answer_head,
            prompt_suffix=policy.prompt_suffix,
            attend_padding=policy.attend_padding,
        )

    @torch.no_grad()
    def refresh(self) -> None:
        """Round the weights as they are now."""
        pairs = zip(self.policy.lm.parameters(), self._learner.lm.parameters(), strict=True)
        for rounded, exact in pairs:
            rounded.copy_(exact)
