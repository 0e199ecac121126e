"""What a step of policy gradient logs: of its episodes, and of its updates.

Legend: N rows, T steps, K rows to which a part of the reward applies.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from latentgym.heads.distributions import masked
from latentgym.rollout import Episodes, Scores
from latentgym.training.dynamic_sampling import Batch, spread
from latentgym.training.rollout_correction import Correction
from latentgym.training.stage import Metrics
from latentgym.training.surrogates import Surrogate


class UpdateMetrics:
    """Means over the actions of all updates of a step, which come in micro-batches.

    Ratios, and what is clipped of them, are of each part of an action.

    Attributes:
        grad_norms: of each update.
    """

    def __init__(self) -> None:
        self.grad_norms: list[float] = []
        self._sums: dict[str, float] = {}
        self._counts: dict[str, float] = {}
        self._loss = self._deviation = 0.0

    @torch.no_grad()
    def add(
        self,
        scores: Scores,
        surrogate: Surrogate,
        kl_NT: Tensor | None,
        loss: Tensor,
        correction: Correction | None = None,
    ) -> None:
        """Count a micro-batch.

        Args:
            scores: of its actions.
            surrogate: of their probabilities.
            kl_NT: estimates of the divergence, if there is a reference.
            loss: its part of what the update minimises.
            correction: of rollouts in another precision, if they are.
        """
        values = {
            "train/entropy": (scores.entropy_NT, scores.action_NT),
            "train/ratio": (surrogate.ratio_NT, scores.part_NT),
            "train/clip_fraction": (surrogate.clipped_NT.float(), scores.part_NT),
            **({} if kl_NT is None else {"train/kl": (kl_NT, scores.action_NT)}),
        }
        if correction is not None:
            values["train/rollout_kl"] = correction.kl_NT, scores.action_NT
            values["train/rollout_truncated"] = correction.truncated_NT.float(), scores.action_NT
        for name, (value_NT, mask_NT) in values.items():
            self._sums[name] = self._sums.get(name, 0.0) + float(masked(value_NT, mask_NT).sum())
            self._counts[name] = self._counts.get(name, 0.0) + float(mask_NT.sum())
        deviation_NT = masked(surrogate.ratio_NT - 1, scores.part_NT).abs()
        self._deviation = max(self._deviation, float(deviation_NT.max()))
        self._loss += loss.item()

    def metrics(self) -> Metrics:
        """What to log of the step; nothing where it has no update."""
        if not self.grad_norms:
            return {}
        means = {name: total / max(self._counts[name], 1.0) for name, total in self._sums.items()}
        return {
            **means,
            "train/loss": self._loss / len(self.grad_norms),
            "train/ratio_deviation": self._deviation,
            "train/grad_norm": float(np.mean(self.grad_norms)),
        }


def episode_metrics(episodes: Episodes, *, in_tokens: bool, seconds: float) -> Metrics:
    """What to log of a step's episodes.

    Args:
        episodes: all that were drawn.
        in_tokens: whether their thoughts are tokens.
        seconds: that they took.
    """
    rollouts = episodes.rollouts
    thoughts, tokens = rollouts.thoughts_N, rollouts.tokens_N
    latent = 0 if in_tokens else (thoughts - rollouts.plain_N).sum()
    named = sorted(k for k in episodes.infos[0] if k.startswith("reward/"))
    parts = {name: episodes.component(name) for name in named}
    known = {name: part_N[~np.isnan(part_N)] for name, part_N in parts.items()}  # where they apply
    return {
        "reward/score": float(episodes.reward_N.mean()),
        **{name: float(part_K.mean()) for name, part_K in known.items() if part_K.size},
        "rollout/latent_share": float(latent / max(1, (thoughts + tokens).sum())),
        **{name: float(count_N.mean()) for name, count_N in episodes.counts().items()},
        "rollout/seconds": seconds,
    }


def group_metrics(batch: Batch, group_size: int) -> Metrics:
    """What to log of a step's groups.

    Args:
        batch: its episodes; those of a group are neighbours.
        group_size: episodes of each question.
    """
    spread_Q = spread(batch.kept.reward_N, group_size)
    found = {"train/groups_without_signal": 1.0 - float(spread_Q.mean())}
    return found if batch.again is None else {**found, "train/groups_drawn_again": batch.again}
