from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentgym.envs.problems import mnns

DIGITS = mnns.instances()
FIVE = mnns.instances(5, 5, 13)


def brute_force(digits: tuple[int, ...]) -> tuple[int, list[tuple[int, ...]]]:
    """The answer and the optimal sign patterns in product order, by plain enumeration."""
    values = {
        signs: sum(s * d for s, d in zip(signs, digits, strict=True))
        for signs in itertools.product((1, -1), repeat=len(digits))
    }
    best = min(v for v in values.values() if v >= 0)
    return best, [signs for signs, v in values.items() if v == best]


def test_vocabulary_has_the_papers_size() -> None:
    symbols = mnns.vocabulary(4, 9)
    assert len(symbols) == len(set(symbols)) == 89
    assert symbols[0] == "<pad>"
    assert [symbols[i] for i in mnns.digit_ids(np.array([0, 9]))] == ["D0", "D9"]
    assert [symbols[i] for i in mnns.sum_ids(np.array([-36, 0, 36]), 4, 9)] == ["S-36", "S0", "S36"]


def test_label_counts_of_the_whole_four_digit_task() -> None:
    answers = mnns.answers(DIGITS)
    counts = {0: 1569, 1: 2444, 2: 1324, 3: 664, 4: 320, 5: 152, 6: 64, 7: 20, 8: 4}
    assert Counter(answers.tolist()) == counts
    assert (answers == 1).mean() == pytest.approx(0.3725, abs=5e-5)
    assert len(np.unique(np.sort(DIGITS, axis=1), axis=0)) == 495
    assert (mnns.n_optimal(DIGITS) > 1).sum() == 3809


def test_five_digit_variant() -> None:
    assert FIVE.shape == (9**5, 5)
    assert FIVE.min() == 5 and FIVE.max() == 13
    assert len(mnns.vocabulary(5, 13)) == 6 + 14 + 131
    answers = mnns.answers(FIVE[::997])
    expected = [brute_force(tuple(row))[0] for row in FIVE[::997].tolist()]
    assert answers.tolist() == expected


@given(st.lists(st.integers(1, 13), min_size=1, max_size=6))
def test_answers_and_discrete_trace_match_brute_force(row: list[int]) -> None:
    digits = np.array([row])
    best, patterns = brute_force(tuple(row))
    assert mnns.answers(digits)[0] == best
    assert mnns.n_optimal(digits)[0] == len(patterns)
    assert tuple(mnns.signs(len(row))[mnns.paths(digits, 1)[0, 0]]) == patterns[0]


@given(st.integers(0, 10**6), st.floats(0.1, 0.9))
def test_split_is_by_multiset_and_repeatable(seed: int, fraction: float) -> None:
    digits = mnns.instances(3, 1, 5)
    train = mnns.split(digits, seed, fraction)
    kinds = [{tuple(sorted(row)) for row in digits[rows].tolist()} for rows in (train, ~train)]
    assert not kinds[0] & kinds[1]
    assert len(kinds[0]) == int(fraction * 35)
    shuffled = np.random.default_rng(seed).permutation(len(digits))
    assert (mnns.split(digits[shuffled], seed, fraction) == train[shuffled]).all()


def test_split_sizes() -> None:
    train = mnns.split(DIGITS, 42)
    multisets = np.unique(np.sort(DIGITS[train], axis=1), axis=0)
    assert len(multisets) == 396
    assert (mnns.split(DIGITS, 43) != train).any()


@pytest.mark.parametrize("budget", [1, 3, 4, 16])
def test_paths_have_the_smallest_absolute_values(budget: int) -> None:
    final = mnns.partial_sums(DIGITS)[..., -1]
    kept = mnns.paths(DIGITS, budget)
    values = np.take_along_axis(final, kept, axis=1)
    assert (np.abs(values) == np.sort(np.abs(final), axis=1)[:, :budget]).all()
    assert (values[:, 0] == mnns.answers(DIGITS)).all()
    assert all(len(set(row)) == budget for row in kept[::97].tolist())


@pytest.mark.parametrize("budget", [1, 4, 16])
def test_targets_are_distributions_over_the_kept_partial_sums(budget: int) -> None:
    digits = DIGITS[::131]
    ids, weights = mnns.targets(digits, budget, 9)
    assert ids.shape == weights.shape == (len(digits), 4, budget)
    assert weights.sum(-1) == pytest.approx(1.0)
    assert ((ids == 0) == (weights == 0)).all()
    dense = mnns.densify(ids, weights, 89)
    sums, kept = mnns.partial_sums(digits), mnns.paths(digits, budget)
    for n, t in itertools.product(range(len(digits)), range(4)):
        reached = sums[n, kept[n], t] if t < 3 else mnns.answers(digits)[n : n + 1]
        expected = Counter(mnns.sum_ids(reached, 4, 9).tolist())
        assert set(np.flatnonzero(dense[n, t]).tolist()) == set(expected)
        for symbol, count in expected.items():
            assert dense[n, t, symbol] == pytest.approx(count / len(reached))


def test_full_budget_is_uniform_over_all_partial_sums() -> None:
    ids, weights = mnns.targets(np.array([[3, 1, 1, 2]]), 16, 9)
    symbols = mnns.vocabulary(4, 9)
    step2 = {symbols[i]: w for i, w in zip(ids[0, 1], weights[0, 1], strict=True) if w}
    assert step2 == {"S4": 0.25, "S2": 0.25, "S-2": 0.25, "S-4": 0.25}
    step3 = {symbols[i]: w for i, w in zip(ids[0, 2], weights[0, 2], strict=True) if w}
    assert step3["S3"] == 0.25  # 3+1-1 and 3-1+1
    assert ids[0, 3, 0] == symbols.index("S1") and weights[0, 3, 0] == 1.0


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="budget"):
        mnns.paths(DIGITS, 17)
    with pytest.raises(ValueError, match="low"):
        mnns.instances(4, 5, 3)
