"""Aggregates over tasks, against closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest

from latentgym.evaluation.aggregates import aggregate, improvement, interquartile_mean, profile


def test_interquartile_mean_is_the_mean_of_the_middle_half() -> None:
    assert interquartile_mean([9, 0, 1, 2, 3, 4, 5, -9]) == 2.5
    assert interquartile_mean([7.0]) == 7.0
    # Of five, the middle 2.5: the third whole, its neighbours three quarters each.
    assert interquartile_mean([0, 1, 2, 4, 9]) == pytest.approx((0.75 + 2 + 0.75 * 4) / 2.5)


def test_improvement_is_the_share_of_pairs_that_are_won() -> None:
    one, other = [np.array([3.0, 1.0]), np.array([2.0])], [np.array([2.0]), np.array([2.0])]
    assert improvement(one, other) == (0.5 + 0.5) / 2
    assert improvement(other, one) == 0.5
    assert improvement([np.array([1.0])], [np.array([0.0])]) == 1.0


def test_intervals_of_the_mean_are_those_of_a_stratified_sample() -> None:
    """Drawing within tasks alone: what tasks differ in does not widen the interval."""
    rng = np.random.default_rng(0)
    score_TS = np.clip(rng.normal([[0.2], [0.8]], 0.05, (2, 50)), 0, 1)
    a = aggregate(score_TS.tolist(), score_TS.tolist())
    error = math.sqrt((score_TS.var(1) / 50).mean() / 2)
    assert a.mean[0] == pytest.approx(score_TS.mean())
    half = 1.96 * error
    assert a.mean[1:] == pytest.approx((a.mean[0] - half, a.mean[0] + half), abs=0.1 * half)
    assert a.improvement[0] == pytest.approx(0.5)


def test_profiles_are_shares_of_runs_above() -> None:
    a = aggregate([[0.3], [0.6, 0.95]], [[0.05], [0.5]])
    assert a.profile == (
        (0.1, 1.0, 0.5),
        (0.25, 1.0, 0.5),
        (0.5, pytest.approx(2 / 3), 0.0),
        (0.75, pytest.approx(1 / 3), 0.0),
        (0.9, pytest.approx(1 / 3), 0.0),
    )


def test_a_profile_is_exact_and_its_intervals_are_of_drawing_within_tasks() -> None:
    made = profile([[0.2], [0.4, 0.8]], [0.0, 0.3, 0.4, 0.8])
    assert [share for share, _, _ in made] == pytest.approx([1, 2 / 3, 1 / 3, 0])
    assert made[0] == (1, 1, 1)
    # The task of one run is the same in every resample; both runs of the other may be either.
    assert made[1][1:] == pytest.approx((2 / 3, 2 / 3))
    assert made[2][1:] == pytest.approx((0, 2 / 3))
    assert all(low == share == high for share, low, high in profile([[0.2], [0.7]], [0.1, 0.5]))


@pytest.mark.parametrize(("one", "other"), [([], []), ([[0.1]], []), ([[0.1]], [[]])])
def test_every_task_has_runs_of_both(one: list[list[float]], other: list[list[float]]) -> None:
    with pytest.raises(ValueError, match="at least one run of either"):
        aggregate(one, other)
