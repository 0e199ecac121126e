"""Intervals and estimators for results. Closed forms, no torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_Z95 = 1.959963984540054
_PICKS = 2**20  # of a bootstrap, in memory at once
# Two-sided 95 % quantiles of Student's t for 1 .. 30 degrees of freedom.
_T95 = (
    *(12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281),
    *(2.2010, 2.1788, 2.1604, 2.1448, 2.1314, 2.1199, 2.1098, 2.1009, 2.0930, 2.0860),
    *(2.0796, 2.0739, 2.0687, 2.0639, 2.0595, 2.0555, 2.0518, 2.0484, 2.0452, 2.0423),
)


def wilson(successes: float, n: float) -> tuple[float, float]:
    """Wilson's 95 % interval of a proportion."""
    if n == 0:
        return 0.0, 1.0
    p, z2 = successes / n, _Z95**2
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z95 / (1 + z2 / n) * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def mean_interval(values: Sequence[float] | Floats) -> tuple[float, float, float]:
    """Mean and Student's 95 % interval of independent values, for instance one per seed."""
    array = np.asarray(values, dtype=np.float64)
    mean = float(array.mean())
    if array.size < 2:
        return mean, float("-inf"), float("inf")
    half = _t95(array.size - 1) * float(array.std(ddof=1)) / math.sqrt(array.size)
    return mean, mean - half, mean + half


def _t95(df: int) -> float:
    if df <= len(_T95):
        return _T95[df - 1]
    # Cornish and Fisher's expansion, good to four digits beyond the table.
    return (
        _Z95 + (_Z95**3 + _Z95) / (4 * df) + (5 * _Z95**5 + 16 * _Z95**3 + 3 * _Z95) / (96 * df**2)
    )


def seed_interval(
    shares_S: Sequence[float], n: int, over_questions: Sequence[Sequence[float]] = ()
) -> tuple[float, float, float]:
    """Mean and 95 % interval of shares in [0, 1], one for each trained seed.

    Student's interval over the seeds, which ends at 0 and 1, and is widened by what questions that
    were not seen may change (3.84 in n): seeds that agree by chance are no certainty. It is of the
    training's chance; with `over_questions` it is never narrower than the choice of questions
    leaves it.

    Args:
        shares_S: such as accuracies.
        n: questions behind each of them.
        over_questions: the interval of each over its questions, such as `question_interval` tells,
            where they are known; of one share this is the interval.

    Raises:
        ValueError: no seeds, or a number that is no share.
    """
    if not len(shares_S) or not all(0 <= share <= 1 for share in shares_S):
        raise ValueError(f"there is a share in [0, 1] of each seed, but not {list(shares_S)}.")
    mean, low, high = mean_interval(shares_S)
    if over_questions:
        ends = np.asarray(over_questions, dtype=np.float64).mean(0)
        if len(shares_S) == 1:
            return mean, float(ends[0]), float(ends[1])
        low, high = min(low, float(ends[0])), max(high, float(ends[1]))
    unseen = _unseen(mean, n)
    return mean, max(0.0, min(low, unseen[0])), min(1.0, max(high, unseen[1]))


def question_interval(
    scores_QS: npt.ArrayLike, seed: int = 0, resamples: int = 2000
) -> tuple[float, float]:
    """95 % interval of the mean score over questions.

    Questions are the sampling unit: seeds of the same question are no new evidence about other
    questions. Scores in [0, 1] have Wilson's interval of as many independent answers as have the
    variance that is seen between questions (Kish's effective sample size), never narrower than what
    questions that were not seen may change. One seed of right-or-wrong scores thus has Wilson's own
    interval; none is a point, and none leaves [0, 1]. Other numbers have a bootstrap over
    questions, joined with Student's interval, which is the wider of both where questions are few.
    Those that are the same for every question do not tell how far others may be from them: theirs
    is without ends.

    Args:
        scores_QS: scores of Q questions under S seeds.
        seed, resamples: of the bootstrap.

    Raises:
        ValueError: no scores, or one that is not finite.
    """
    [interval] = question_intervals(np.asarray(scores_QS)[None], seed, resamples)
    return interval


def question_intervals(
    scores_MQS: npt.ArrayLike, seed: int = 0, resamples: int = 2000
) -> list[tuple[float, float]]:
    """`question_interval` of each of M scores, from the same resamples of the questions."""
    scores = np.asarray(scores_MQS, dtype=np.float64)
    if not scores.size or not np.isfinite(scores).all():
        raise ValueError("an interval needs scores, and finite ones.")
    share_M = np.all((scores >= 0) & (scores <= 1), axis=(1, 2))
    mean_QM = scores.mean(2).T
    rest_QM = mean_QM[:, ~share_M]
    drawn = iter(_intervals(rest_QM, seed, resamples) if rest_QM.size else [])
    return [
        _share_interval(mean_QM[:, m]) if share else next(drawn)
        for m, share in enumerate(share_M.tolist())
    ]


def _share_interval(share_Q: Floats) -> tuple[float, float]:
    n, p = len(share_Q), float(share_Q.mean())
    variance = float(share_Q.var()) / n  # of the mean
    effective = p * (1 - p) / variance if variance > 0 else math.inf
    low, high = wilson(p * effective, effective) if math.isfinite(effective) else (p, p)
    unseen = _unseen(p, n)
    return min(low, unseen[0]), max(high, unseen[1])


def _unseen(p: float, n: int) -> tuple[float, float]:
    """How far the mean of n scores may move when those that were not seen are all 0, or all 1.

    As many as Wilson's interval leaves open where none of n was seen, 3.84 in n: for 95 % on one
    side that is the rule of three.
    """
    seen = n / (n + _Z95**2)
    return p * seen, p * seen + 1 - seen


def _intervals(value_QM: Floats, seed: int, resamples: int) -> list[tuple[float, float]]:
    """95 % intervals of the means of numbers that may be any."""
    drawn = _bootstrap(value_QM, seed, resamples)
    student = [mean_interval(value_Q)[1:] for value_Q in value_QM.T]
    same_M = (value_QM == value_QM[0]).all(0)
    return [
        (-math.inf, math.inf) if same else (min(one[0], other[0]), max(one[1], other[1]))
        for same, one, other in zip(same_M.tolist(), drawn, student, strict=True)
    ]


def _bootstrap(value_QM: Floats, seed: int, resamples: int) -> list[tuple[float, float]]:
    """95 % interval of the mean of each column over rows drawn with replacement."""
    rng, size = np.random.default_rng(seed), len(value_QM)
    means_DM = []
    at_once = max(1, _PICKS // size)
    for start in range(0, resamples, at_once):
        some = min(at_once, resamples - start)
        # How often each row was drawn serves all columns at once.
        means_DM.append(_times(rng, some, size) @ value_QM / size)
    mean_DM = np.concatenate(means_DM)
    low_M, high_M = np.quantile(mean_DM, [0.025, 0.975], axis=0)
    return list(zip(low_M.tolist(), high_M.tolist(), strict=True))


def pass_at_k(correct_Q: npt.ArrayLike, n: int, k: int) -> float:
    """Unbiased pass@k: the chance that k of n samples hold a right one (Chen et al., 2021).

    Args:
        correct_Q: right samples of each question.
        n: samples of each question, at least k.
        k: how many may be tried.
    """
    c = np.asarray(correct_Q, dtype=np.int64)
    if not 1 <= k <= n:
        raise ValueError(f"pass@k needs 1 <= k <= n, but k={k}, n={n}")
    miss = np.ones(len(c))
    for i in range(k):
        miss *= np.maximum(n - c - i, 0) / (n - i)
    return float((1 - miss).mean())


def difference_interval(
    gain_QS: npt.ArrayLike, seed: int = 0, resamples: int = 2000
) -> tuple[float, float]:
    """95 % interval of the mean of paired differences of shares, each in [-1, 1].

    A bootstrap over questions and, where there are several, over seeds, each drawn with replacement
    (Owen's product bootstrap), that ends at -1 and 1. It is never narrower than what questions that
    were not seen may change (3.84 in n): runs that agree by chance are no certainty.

    Args:
        gain_QS: differences of Q questions under S seeds.
        seed, resamples: of the bootstrap.

    Raises:
        ValueError: there are none, or one is no difference of shares.
    """
    gain = np.asarray(gain_QS, dtype=np.float64)
    if not gain.size or not (np.abs(gain) <= 1).all():  # so is what is not finite
        raise ValueError("an interval needs differences of shares, in [-1, 1].")
    (n, several), rng = gain.shape, np.random.default_rng(seed)
    mean_D = []
    at_once = max(1, _PICKS // n)
    for start in range(0, resamples, at_once):
        some = min(at_once, resamples - start)
        times_DQ = _times(rng, some, n)
        times_DS = _times(rng, some, several)
        mean_D.append(((times_DQ @ gain) * times_DS).sum(1) / gain.size)
    low, high = np.quantile(np.concatenate(mean_D), [0.025, 0.975])
    least, most = (2 * bound - 1 for bound in _unseen((float(gain.mean()) + 1) / 2, n))
    return max(-1.0, min(float(low), least)), min(1.0, max(float(high), most))


def _times(rng: np.random.Generator, draws: int, size: int) -> npt.NDArray[np.int64]:
    """How often each of so many was drawn with replacement, (draws, size)."""
    pick_DN = rng.integers(size, size=(draws, size)) + size * np.arange(draws)[:, None]
    return np.bincount(pick_DN.ravel(), minlength=draws * size).reshape(draws, size)


def sign_test(won: int, lost: int) -> float:
    """Two-sided p of the exact sign test: as uneven, or more so, were each as likely."""
    n, few = won + lost, min(won, lost)
    ways, total = 1, 1
    for k in range(1, few + 1):
        ways = ways * (n - k + 1) // k
        total += ways
    return min(1.0, float(Fraction(2 * total, 1 << n)))
