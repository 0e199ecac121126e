"""What many tasks and seeds say together: interquartile means and performance profiles.

As Agarwal et al. (2021, arXiv 2108.13264) have them in their library rliable, which is not used: it
asks for arch < 8, which does not import beside pandas 3. A stratified bootstrap draws the runs of
each task with replacement, and keeps the tasks. Shape suffixes: T tasks, S seeds, N runs of all
tasks, B bounds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from latentgym.evaluation.stats import Floats

Estimate = tuple[float, float, float]
"""An estimate with its 95 % interval."""
_PROFILE = (0.1, 0.25, 0.5, 0.75, 0.9)


@dataclass(frozen=True)
class Aggregate:
    """Two methods over the same tasks.

    Attributes:
        iqm, other_iqm: interquartile means.
        mean, other_mean: means.
        improvement: chance that a run of the one has more than a run of the other, on a task drawn
            at random; ties count half.
        profile: for some accuracies, the share of runs of either that have more.
    """

    iqm: Estimate
    other_iqm: Estimate
    mean: Estimate
    other_mean: Estimate
    improvement: Estimate
    profile: tuple[tuple[float, float, float], ...]


def aggregate(
    score_TS: Sequence[Sequence[float]],
    other_TS: Sequence[Sequence[float]],
    seed: int = 0,
    resamples: int = 2000,
) -> Aggregate:
    """Aggregate scores of two methods over tasks.

    Args:
        score_TS, other_TS: of each task, the score of each of its runs; tasks in the same order.
        seed, resamples: of the bootstrap.

    Raises:
        ValueError: they are not of as many tasks, or a task has no run.
    """
    ours, theirs = (
        [np.asarray(score_S, dtype=np.float64) for score_S in each] for each in (score_TS, other_TS)
    )
    if len(ours) != len(theirs) or not ours or not all(len(s) for s in [*ours, *theirs]):
        raise ValueError("every task has at least one run of either method.")
    rng = np.random.default_rng(seed)
    drawn = [
        ([rng.choice(s, len(s)) for s in ours], [rng.choice(s, len(s)) for s in theirs])
        for _ in range(resamples)
    ]

    def estimate(statistic: Callable[[list[Floats], list[Floats]], float]) -> Estimate:
        low, high = np.quantile([statistic(*each) for each in drawn], [0.025, 0.975])
        return statistic(ours, theirs), float(low), float(high)

    def mean(scores: list[Floats]) -> float:
        return float(np.concatenate(scores).mean())

    def iqm(scores: list[Floats]) -> float:
        return interquartile_mean(np.concatenate(scores))

    return Aggregate(
        estimate(lambda a, _: iqm(a)),
        estimate(lambda _, b: iqm(b)),
        estimate(lambda a, _: mean(a)),
        estimate(lambda _, b: mean(b)),
        estimate(improvement),
        tuple(zip(_PROFILE, _above(ours, _PROFILE), _above(theirs, _PROFILE), strict=True)),
    )


def profile(
    score_TS: Sequence[Sequence[float]],
    bounds_B: Sequence[float],
    seed: int = 0,
    resamples: int = 2000,
) -> list[Estimate]:
    """Performance profile of one method: the share of its runs with more than each bound.

    Args:
        score_TS: of each task, the score of each of its runs.
        bounds_B: these.
        seed, resamples: of the bootstrap, whose intervals are points where no task has two runs.
    """
    scores = [np.asarray(score_S, dtype=np.float64) for score_S in score_TS]
    rng = np.random.default_rng(seed)
    drawn = [
        _above([rng.choice(score_S, len(score_S)) for score_S in scores], bounds_B)
        for _ in range(resamples)
    ]
    low_B, high_B = np.quantile(drawn, [0.025, 0.975], axis=0)
    share_B = _above(scores, bounds_B)
    return list(zip(share_B, low_B.tolist(), high_B.tolist(), strict=True))


def _above(score_TS: Sequence[Floats], bounds_B: Sequence[float]) -> list[float]:
    score_N = np.concatenate(score_TS)
    return [float((score_N > bound).mean()) for bound in bounds_B]


def interquartile_mean(scores: npt.ArrayLike) -> float:
    """Mean of the middle half of some scores, the outermost of it counted in part."""
    x = np.sort(np.asarray(scores, dtype=np.float64).ravel())
    edges = np.clip(np.arange(len(x) + 1), len(x) / 4, 3 * len(x) / 4)
    return float(np.diff(edges) @ x / (len(x) / 2))


def improvement(score_TS: Sequence[Floats], other_TS: Sequence[Floats]) -> float:
    """Chance that a run has more than one of the other method: of each task, Mann and Whitney's U.

    Args:
        score_TS, other_TS: scores of the runs of each task.
    """
    chances = [
        np.mean((a[:, None] > b) + 0.5 * (a[:, None] == b))
        for a, b in zip(score_TS, other_TS, strict=True)
    ]
    return float(np.mean(chances))
