"""Categorical distributions over a vocabulary: samples, log-probabilities, entropy.

Legend: B rows, V vocabulary, J samples, K ids.
"""

from __future__ import annotations

import torch
from torch import Tensor


def categorical(logits: Tensor, uniform: Tensor) -> Tensor:
    """Token ids by inverting the cumulative distribution.

    Args:
        logits: (B, V).
        uniform: numbers in (0, 1), (B, J).

    Returns:
        int64 (B, J): one independent draw per uniform number.
    """
    # Summing 50k fp32 probabilities in order loses the tail, hence float64.
    cdf = logits.softmax(-1).cumsum(-1, dtype=torch.float64)
    ids = torch.searchsorted(cdf, uniform.to(cdf) * cdf[:, -1:], right=True)
    return ids.clamp_max(logits.shape[-1] - 1)


def gather_log_prob(logits: Tensor, ids: Tensor) -> Tensor:
    """Log-probabilities of ids under softmax(logits), without a V-wide log-softmax.

    Args:
        logits: (..., V).
        ids: int64 (..., K).

    Returns:
        (..., K).
    """
    return logits.gather(-1, ids) - logits.logsumexp(-1, keepdim=True)


def entropy(logits: Tensor) -> Tensor:
    """Entropy in nats of softmax(logits), (..., V) to (...,). Differentiable."""
    p = logits.softmax(-1)
    return logits.logsumexp(-1) - (p * masked(logits, p > 0)).sum(-1)


def masked(values: Tensor, mask: Tensor) -> Tensor:
    """The values where the mask is True, and 0 elsewhere, whatever stands there."""
    return torch.where(mask, values, 0.0)
