"""Advantages, divergences and losses of policy gradients and of soft supervision.

Every function is a closed formula on tensors; which action family produced the log-probabilities
does not matter. What stands behind a mask may be anything, NaN and infinity too: it is left out
before anything is computed of it, so that neither a loss nor its gradient sees it.

Legend: N rows in groups of G, T steps, B sequences, V vocabulary, S support.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor

from latentgym.errors import UsageError, did_you_mean
from latentgym.heads.distributions import masked
from latentgym.training.grpo_config import CLEAN, KL_ESTIMATORS, MEANS, check_advantage


def _group_norm(reward_QG: Tensor, eps: float = 1e-9) -> Tensor:
    spread = reward_QG.std(-1, correction=1 if reward_QG.shape[-1] > 1 else 0, keepdim=True)
    return (reward_QG - reward_QG.mean(-1, keepdim=True)) / (spread + eps)


def _group_norm_population(reward_QG: Tensor) -> Tensor:
    spread = reward_QG.std(-1, correction=0, keepdim=True)
    return (reward_QG - reward_QG.mean(-1, keepdim=True)) / spread.clamp_min(1e-12)


def _dr_grpo(reward_QG: Tensor) -> Tensor:
    return reward_QG - reward_QG.mean(-1, keepdim=True)


def _rloo(reward_QG: Tensor) -> Tensor:
    g = reward_QG.shape[-1]
    if g < 2:
        raise UsageError("rloo needs groups of at least 2; raise the group size.")
    return (reward_QG - reward_QG.mean(-1, keepdim=True)) * g / (g - 1)


def _batch(reward_QG: Tensor) -> Tensor:
    return _over_norm(reward_QG - reward_QG.mean())


def _clean_batch(reward_QG: Tensor) -> Tensor:
    return _over_norm(reward_QG - reward_QG[:, 0].mean())


def _over_norm(centred_QG: Tensor) -> Tensor:
    spread: Tensor = centred_QG.square().sum().sqrt()
    return centred_QG / (spread + 1e-6)


_ADVANTAGES: Mapping[str, Callable[[Tensor], Tensor]] = {
    "group_norm": _group_norm,
    "group_norm_trl": partial(_group_norm, eps=1e-4),
    "group_norm_population": _group_norm_population,
    "dr_grpo": _dr_grpo,
    "rloo": _rloo,
    "batch": _batch,
    CLEAN: _clean_batch,
}


def advantages(reward_N: Tensor, group_size: int, kind: str = "group_norm") -> Tensor:
    """Advantages of N rewards whose groups are neighbours, fp32 (N,).

    Raises:
        UsageError: unknown kind, or groups that do not divide N.
    """
    check_advantage(kind)
    if reward_N.numel() % group_size:
        raise UsageError(f"groups of {group_size} do not divide {reward_N.numel()} rewards.")
    # In fp64, or the rounding of a mean of equal rewards would count as a difference.
    grouped = reward_N.double().view(-1, group_size)
    return _ADVANTAGES[kind](grouped).reshape(-1).float()


_KL_ESTIMATORS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "k1": lambda log_ratio: log_ratio,
    "k2": lambda log_ratio: 0.5 * log_ratio.square(),
    "k3": lambda log_ratio: torch.exp(-log_ratio) - 1 + log_ratio,
}


def kl_estimate(logp_NT: Tensor, reference_NT: Tensor, mask_NT: Tensor, kind: str = "k3") -> Tensor:
    """Per-action estimate of KL(policy || reference), (N, T); 0 where there is no action.

    Args:
        logp_NT: log-probabilities under the policy, with gradient.
        reference_NT: under the reference.
        mask_NT: where there is an action, bool.
        kind: a key of `KL_ESTIMATORS`.

    Raises:
        UsageError: unknown kind.
    """
    if kind not in KL_ESTIMATORS:
        raise UsageError(f"no KL estimator {kind!r}; {did_you_mean(kind, KL_ESTIMATORS)}")
    return _KL_ESTIMATORS[kind](masked(logp_NT, mask_NT) - masked(reference_NT, mask_NT))


def summed_kl(
    logp_NT: Tensor, reference_NT: Tensor, part_NT: Tensor, weight_NT: Tensor, kind: str
) -> Tensor:
    """Estimate of KL(policy || reference) of whole rows, for their rewards: summed up, (N,).

    A policy gradient on rewards less this sum of `k1` goes down the divergence itself, as in RLOO
    (arXiv 2402.14740); the mean gradient of `k1` in a loss is zero.

    Args:
        logp_NT, reference_NT, kind: see `kl_estimate`.
        part_NT: where an action, or a part of it, is, bool.
        weight_NT: of each.
    """
    kl_NT = weight_NT * kl_estimate(logp_NT, reference_NT, part_NT, kind)
    return masked(kl_NT, part_NT).flatten(1).sum(-1)


def masked_mean(values_NT: Tensor, mask_NT: Tensor, kind: str = "token") -> Tensor:
    """Mean over actions.

    Args:
        values_NT: of every step.
        mask_NT: where there is an action, bool.
        kind: `token`: over all actions of the batch alike; `sequence`: of each row first, then
            over rows.
    """
    values = masked(values_NT, mask_NT)
    if kind == "token":
        return values.sum() / mask_NT.sum().clamp_min(1)
    if kind == "sequence":
        return (values.sum(-1) / mask_NT.sum(-1).clamp_min(1)).mean()
    raise UsageError(f"no mean {kind!r}; choose token or sequence.")


def action_weights(thought_NT: Tensor, action_NT: Tensor, kind: str) -> Tensor:
    """What to multiply losses with, so that a mean over rows becomes the mean of that kind.

    A positive factor on an advantage is one on the clipped loss, so it needs no loss of its own in
    a library that takes advantages.

    Args:
        thought_NT: which actions are thoughts.
        action_NT: which steps are actions.
        kind: a key of `MEANS`.

    Returns:
        (N, T) for `phase` and (N, 1) for the others, fp32.

    Raises:
        UsageError: unknown kind.
    """
    if kind not in MEANS:
        raise UsageError(f"no mean {kind!r}; {did_you_mean(kind, MEANS)}")
    count_N1 = action_NT.sum(-1, keepdim=True).float()
    if kind == "phase":
        thoughts_N1 = thought_NT.sum(-1, keepdim=True).float()
        of_thoughts = count_N1 / thoughts_N1.clamp_min(1)
        of_words = count_N1 / (count_N1 - thoughts_N1).clamp_min(1)
        return torch.where(thought_NT, of_thoughts, of_words)
    return count_N1 if kind == "sum" else torch.ones_like(count_N1)


def soft_target_loss(logits: Tensor, ids: Tensor, weights: Tensor) -> Tensor:
    """KL(target || softmax(logits)) for sparse targets; for one-hot ones the cross-entropy.

    Continuous supervision of CoT2 (arXiv 2505.23648). With S = 1 it is ordinary supervised
    training.

    Args:
        logits: (..., V).
        ids: support of the target, (..., S).
        weights: its probabilities, (..., S), each row adding up to one.

    Returns:
        (...,) in nats.
    """
    used = weights > 0
    logq = masked(logits.gather(-1, ids) - logits.logsumexp(-1, keepdim=True), used)
    logp = torch.where(used, weights, 1.0).log()
    return (weights * (logp - logq)).sum(-1)
