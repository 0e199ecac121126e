"""How well a policy foresees the right answer, as a reward that needs no decoding.

"Reinforced Latent Reasoning for LLM-based Recommendation" (arXiv 2505.19092): the reward of a chain
of thought is minus the perplexity of the right answer behind it. It is dense, and says nothing of
what the policy would have answered.

Legend: N rows, T steps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def perplexity_reward(logp_NT: Tensor, target_NT: Tensor) -> Tensor:
    """Minus the perplexity of each row's target: -exp(mean over its tokens of -log p).

    Args:
        logp_NT: log-probabilities in nats.
        target_NT: which steps are tokens of the target, bool; one or more in each row.

    Returns:
        (N,), at most -1; differentiable.
    """
    mask_NT = target_NT.to(logp_NT.dtype)
    return -(-(logp_NT * mask_NT).sum(-1) / mask_NT.sum(-1)).exp()
