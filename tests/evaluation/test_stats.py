"""Intervals and estimators against known values and brute force."""

from __future__ import annotations

import itertools
import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentgym.evaluation import stats
from latentgym.evaluation.stats import (
    mean_interval,
    pass_at_k,
    question_interval,
    question_intervals,
    seed_interval,
    wilson,
)


@pytest.mark.parametrize(
    ("successes", "n", "interval"),
    [
        (0, 10, (0.0, 0.27753)),
        (5, 10, (0.23659, 0.76341)),
        (10, 10, (0.72247, 1.0)),
        (81, 263, (0.25529, 0.36621)),  # Newcombe (1998), table I
        (1, 29, (0.00611, 0.17176)),
    ],
)
def test_wilson_against_published_values(
    successes: int, n: int, interval: tuple[float, float]
) -> None:
    assert wilson(successes, n) == pytest.approx(interval, abs=1e-4)


@given(st.integers(1, 500), st.data())
def test_wilson_solves_its_equation(n: int, data: st.DataObject) -> None:
    """The bounds are where (p - bound)^2 = z^2 bound (1 - bound) / n."""
    p = data.draw(st.integers(0, n)) / n
    for bound in wilson(p * n, n):
        spread = 1.959963984540054**2 * bound * (1 - bound) / n
        assert (p - bound) ** 2 == pytest.approx(spread, abs=1e-9)


def test_no_trials_tell_nothing() -> None:
    assert wilson(0, 0) == (0.0, 1.0)


def test_student_interval_of_a_worked_example() -> None:
    mean, low, high = mean_interval([2.0, 4.0, 6.0])
    half = 4.3027 * 2 / math.sqrt(3)
    assert (mean, low, high) == pytest.approx((4.0, 4 - half, 4 + half))


@pytest.mark.parametrize(("n", "t"), [(31, 2.0423), (41, 2.0211), (61, 2.0003), (121, 1.9799)])
def test_student_quantiles_go_on_beyond_the_table(n: int, t: float) -> None:
    values = np.arange(n) / 7
    _, low, high = mean_interval(values.tolist())
    assert (high - low) / 2 == pytest.approx(t * values.std(ddof=1) / math.sqrt(n), rel=1e-4)


def test_one_value_has_no_interval() -> None:
    assert mean_interval([3.0]) == (3.0, -math.inf, math.inf)


def test_one_seed_of_right_and_wrong_gives_wilson() -> None:
    assert question_interval([[1], [0], [1], [1]]) == pytest.approx(wilson(3, 4))


def test_more_seeds_of_the_same_questions_are_no_new_questions() -> None:
    """Scores that every seed repeats must leave the interval as wide as one seed's."""
    scores = (np.arange(60) % 3 == 0).astype(float)
    low, high = question_interval(np.repeat(scores[:, None], 50, axis=1))
    narrow, wide = wilson(20, 60)
    assert high - low == pytest.approx(wide - narrow, rel=0.15)


@pytest.mark.parametrize("scores", [[[5.0]], [[5.0]] * 7, [[0.1 + 0.2, 3.0]] * 3])
def test_numbers_that_are_all_the_same_leave_their_interval_open(scores: list[list[float]]) -> None:
    assert question_interval(scores) == (-math.inf, math.inf)


def test_few_numbers_have_students_interval() -> None:
    assert question_interval([[5.0], [7.0]]) == pytest.approx(mean_interval([5.0, 7.0])[1:])
    drawn = np.random.default_rng(0).normal(3.0, 1.0, size=(400, 4, 1))
    held = [low <= 3.0 <= high for low, high in map(question_interval, drawn)]
    assert np.mean(held) > 0.92


@pytest.mark.parametrize(
    "scores", [np.zeros((0, 1)), np.zeros((3, 0)), [[math.nan]], [[0.5], [math.inf]]]
)
def test_an_interval_of_nothing_is_refused(scores: npt.ArrayLike) -> None:
    with pytest.raises(ValueError, match="finite ones"):
        question_interval(scores)


def test_bootstrap_agrees_with_the_normal_interval_and_repeats() -> None:
    scores = 2 * np.random.default_rng(0).random((400, 2))
    low, high = question_interval(scores, seed=1)
    half = 1.96 * scores.mean(1).std() / math.sqrt(400)
    assert (low, high) == pytest.approx((scores.mean() - half, scores.mean() + half), abs=1e-2)
    assert (low, high) == question_interval(scores, seed=1)


@given(st.integers(1, 7).flatmap(lambda n: st.tuples(*[st.integers(0, n)] * 2, st.just(n))))
def test_pass_at_k_against_all_choices(case: tuple[int, int, int]) -> None:
    right, other, n = case
    for k in range(1, n + 1):
        chances = [
            np.mean([any(i < c for i in tried) for tried in itertools.combinations(range(n), k)])
            for c in (right, other)
        ]
        assert pass_at_k([right, other], n, k) == pytest.approx(np.mean(chances))


@pytest.mark.parametrize("k", [0, 5])
def test_pass_at_more_than_n_is_refused(k: int) -> None:
    with pytest.raises(ValueError, match="1 <= k <= n"):
        pass_at_k([1], 4, k)


def test_intervals_of_several_scores_are_those_of_each() -> None:
    rng = np.random.default_rng(0)
    binary = (rng.random((40, 1)) < 0.3).astype(float)
    scores = np.stack([3 * rng.random((40, 1)), binary, rng.normal(size=(40, 1)), 1 - binary])
    intervals = question_intervals(scores)
    for interval, each in zip(intervals, scores, strict=True):
        assert interval == pytest.approx(question_interval(each))
    assert intervals[1] == pytest.approx(wilson(float(binary.sum()), 40))


def test_the_bootstrap_draws_questions_with_replacement(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against the plain form: draw, take the mean, take quantiles."""
    score_QS = np.random.default_rng(1).normal(size=(30, 3))
    picks = np.random.default_rng(7).integers(30, size=(500, 30))
    plain = np.quantile(score_QS.mean(1)[picks].mean(1), [0.025, 0.975])
    # Student's interval would hide it.
    monkeypatch.setattr(stats, "mean_interval", lambda values: (0.0, math.inf, -math.inf))
    assert question_interval(score_QS, seed=7, resamples=500) == pytest.approx(tuple(plain))
    monkeypatch.setattr(stats, "_PICKS", 70)  # in parts
    assert question_interval(score_QS, seed=7, resamples=500) == pytest.approx(tuple(plain))


_SHARES = st.sampled_from([0.0, 0.25, 0.5, 1.0]) | st.floats(0, 1)


@given(
    st.tuples(st.integers(1, 12), st.integers(1, 4)).flatmap(
        lambda shape: st.lists(
            st.lists(_SHARES, min_size=shape[1], max_size=shape[1]),
            min_size=shape[0],
            max_size=shape[0],
        )
    )
)
def test_an_interval_of_shares_is_no_point_holds_the_mean_and_stays_in_its_range(
    score_QS: list[list[float]],
) -> None:
    low, high = question_interval(score_QS)
    mean, n = float(np.mean(score_QS)), len(score_QS)
    assert 0 <= low <= mean + 1e-12 and mean - 1e-12 <= high <= 1
    assert high - low >= 3 / (n + 4)  # the rule of three, of both sides together
    mean, low, high = seed_interval(np.mean(score_QS, axis=0).tolist(), n)
    assert 0 <= low <= mean <= high <= 1 and high > low


@pytest.mark.parametrize("questions", [10, 60])
@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize(("a", "b"), [(2.0, 2.0), (0.3, 0.2), (6.0, 1.0)])
def test_intervals_hold_the_truth_as_often_as_they_say(
    questions: int, seeds: int, a: float, b: float
) -> None:
    """Questions of Beta-distributed difficulty, answered right or wrong under each seed."""
    rng = np.random.default_rng(0)
    p_EQ = rng.beta(a, b, size=(600, questions))
    score_EQS = (rng.random((600, questions, seeds)) < p_EQ[..., None]).astype(float)
    held = [low <= a / (a + b) <= high for low, high in map(question_interval, score_EQS)]
    assert np.mean(held) > 0.92


def test_seeds_that_agree_are_no_certainty() -> None:
    assert seed_interval([1.0, 1.0, 1.0], 100)[1:] == pytest.approx((100 / 103.84, 1.0), abs=1e-4)
    assert seed_interval([0.2, 0.6, 0.9], 1000)[1:] == (0.0, 1.0)
    for shares in ([99.0], [0.5, math.nan], []):
        with pytest.raises(ValueError, match="share"):
            seed_interval(shares, 10)
