"""Depth in one number: where effects lie along the layers, and whether hard questions move it.

The depth score is that of arXiv 2505.13898; how it goes with difficulty is the paper's test of
whether a model uses deeper layers for harder questions (it found that it does not).

Legend: N questions, L blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Floats = npt.NDArray[np.float64]

DEFINITION = (
    "sum_s s e_s / sum_s e_s over the skipped layers s = 0 .. L-2 (none is behind the last); e_s: "
    "the mean over later layers l > s of the effect on what block l adds, which is the mean (or "
    "max) over the sequence's positions without the first; 0 is the first layer"
)
_RESAMPLES = 1000


def depth_score(effect: Tensor) -> Tensor:
    """Centre of gravity of effects over layers, 0-based, (..., L) to (...); nan where all are 0.

    Args:
        effect: not negative; nan where there is none.
    """
    effect = effect.double().nan_to_num(0.0)
    layer_L = torch.arange(effect.shape[-1], dtype=torch.double, device=effect.device)
    score: Tensor = (effect * layer_L).sum(-1) / effect.sum(-1)
    return score


def skip_scores(effects_NLL: Tensor) -> Tensor:
    """Depth scores of tables of skips, (N, L, L) to (N,); see `DEFINITION`.

    Args:
        effects_NLL: effect of skipping s on l, nan for l <= s.
    """
    behind = ~effects_NLL.isnan()
    effect_NL = effects_NLL.nan_to_num(0.0).sum(-1) / behind.sum(-1)  # nan for the last
    return depth_score(effect_NL)


def against_difficulty(score_N: Sequence[float], difficulty_N: Sequence[float]) -> dict[str, Any]:
    """How depth scores go with how hard questions are.

    Args:
        score_N: depth scores.
        difficulty_N: of the same questions, such as the number of their steps.

    Returns:
        `groups`: for each difficulty the questions, the mean score and its 95 % interval;
        `slope`: layers per unit of difficulty, least squares, with its 95 % interval over
        questions (bootstrap, 1,000 resamples, seed 0); None where all are as hard.
    """
    score, difficulty = (np.asarray(x, dtype=np.float64) for x in (score_N, difficulty_N))
    kept = np.isfinite(score) & np.isfinite(difficulty)
    score, difficulty = score[kept], difficulty[kept]
    rng = np.random.default_rng(0)
    groups = []
    for value in np.unique(difficulty):
        of_group = score[difficulty == value]
        means = of_group[rng.integers(len(of_group), size=(_RESAMPLES, len(of_group)))].mean(1)
        groups.append(
            {
                "difficulty": float(value),
                "questions": len(of_group),
                "score": float(of_group.mean()),
                "score_ci95": np.quantile(means, (0.025, 0.975)).tolist(),
            }
        )
    slope = _slope(score, difficulty)
    found: dict[str, Any] = {"groups": groups, "slope": slope, "slope_ci95": None}
    if slope is not None:
        rows = rng.integers(len(score), size=(_RESAMPLES, len(score)))
        slopes = [s for row in rows if (s := _slope(score[row], difficulty[row])) is not None]
        found["slope_ci95"] = np.quantile(slopes, (0.025, 0.975)).tolist()
    return found


def _slope(score: Floats, difficulty: Floats) -> float | None:
    spread = difficulty - difficulty.mean() if len(difficulty) else difficulty
    if not spread.any():
        return None
    return float((spread * score).sum() / (spread**2).sum())
