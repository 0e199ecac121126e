"""Losses whose gradient is that of a policy, by name: the part that a recipe chooses.

All are functions of log-probabilities now and when the actions were taken, of advantages and two
bounds. With r the ratio of both probabilities and A the advantage, to be minimised:

    clip       -min(r A, clip(r, 1 - low, 1 + high) A)              PPO (arXiv 1707.06347)
    dual_clip  the same, but at most -3 A where A < 0               Ye et al. (arXiv 1912.09729)
    gspo       that of clip with r of the row, exp(mean log r)      GSPO (arXiv 2507.18071)
    cispo      -stop(min(r, 1 + high)) A log p                      MiniMax-M1 (arXiv 2506.13585)

Legend: N rows, T steps; where actions have J parts, (N, T, J) in the place of (N, T).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from latentgym.errors import UsageError, did_you_mean
from latentgym.heads.distributions import masked
from latentgym.training.grpo_config import DUAL, LOSSES


@dataclass(frozen=True)
class Surrogate:
    """The loss of each action, and what to log of it.

    Where there is no action the loss is 0, the ratio 1, and nothing is clipped.

    Attributes:
        loss_NT: to be minimised, with gradient.
        ratio_NT: the ratio that the loss is of.
        clipped_NT: where a bound keeps the gradient from the action, bool; for `cispo`, where one
            holds its weight.
    """

    loss_NT: Tensor
    ratio_NT: Tensor
    clipped_NT: Tensor


def surrogate(
    kind: str,
    logp_NT: Tensor,
    old_NT: Tensor,
    advantage_NT: Tensor,
    mask_NT: Tensor,
    low: float,
    high: float,
) -> Surrogate:
    """The surrogate of that name.

    Args:
        kind: a key of `LOSSES`.
        logp_NT: log-probabilities under the policy, with gradient.
        old_NT: under the policy that acted.
        advantage_NT: per action, or (N, 1) per row.
        mask_NT: where there is an action, bool.
        low: how far the ratio may fall below one.
        high: how far it may rise above one.

    Raises:
        UsageError: unknown kind.
    """
    if kind not in LOSSES:
        raise UsageError(f"no loss {kind!r}; {did_you_mean(kind, LOSSES)}")
    log_p = masked(logp_NT, mask_NT)
    a_NT = masked(advantage_NT, mask_NT)
    return _SURROGATES[kind](log_p, masked(old_NT, mask_NT), a_NT, mask_NT, low, high)


# What follows is given numbers alone: 0 stands behind the mask.


def _clip(logp: Tensor, old: Tensor, a: Tensor, mask: Tensor, low: float, high: float) -> Surrogate:
    return _clipped(torch.exp(logp - old), a, low, high)


def _clipped(ratio: Tensor, a: Tensor, low: float, high: float) -> Surrogate:
    loss = -torch.minimum(ratio * a, ratio.clamp(1 - low, 1 + high) * a)
    outside = ((ratio < 1 - low) & (a < 0)) | ((ratio > 1 + high) & (a > 0))
    return Surrogate(loss, ratio.detach(), outside)


def _dual(logp: Tensor, old: Tensor, a: Tensor, mask: Tensor, low: float, high: float) -> Surrogate:
    """PPO's is without bound where an action that was bad has become far more likely."""
    once = _clip(logp, old, a, mask, low, high)
    most = torch.where(a < 0, -DUAL * a, torch.inf)
    return Surrogate(
        torch.minimum(once.loss_NT, most), once.ratio_NT, once.clipped_NT | (once.loss_NT > most)
    )


def _gspo(logp: Tensor, old: Tensor, a: Tensor, mask: Tensor, low: float, high: float) -> Surrogate:
    """One ratio a row, the geometric mean of those of its actions."""
    every = tuple(range(1, logp.dim()))
    count = mask.sum(every, keepdim=True).clamp_min(1)
    ratio = torch.exp((logp - old).sum(every, keepdim=True) / count).expand_as(logp)
    found = _clipped(ratio, a, low, high)
    return Surrogate(found.loss_NT, torch.where(mask, found.ratio_NT, 1.0), found.clipped_NT & mask)


def _cispo(
    logp: Tensor, old: Tensor, a: Tensor, mask: Tensor, low: float, high: float
) -> Surrogate:
    """Every action has a gradient; its importance weight is bounded from above alone."""
    ratio = torch.exp(logp.detach() - old)
    return Surrogate(-ratio.clamp(max=1 + high) * a * logp, ratio, ratio > 1 + high)


_SURROGATES: Mapping[str, Callable[..., Surrogate]] = {
    "clip": _clip,
    "dual_clip": _dual,
    "gspo": _gspo,
    "cispo": _cispo,
}
