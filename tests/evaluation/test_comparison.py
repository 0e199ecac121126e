"""Paired comparisons: what they count, what they refuse, and that their intervals hold."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from latentgym.errors import Notice, UsageError
from latentgym.evaluation.comparison import Comparison, compare, controls_of
from latentgym.evaluation.stats import difference_interval, sign_test

Made = Callable[..., Any]


def between(one: Any, other: Any) -> Comparison:
    return compare([one], [other], "other")


def test_counts_and_costs(made: Made) -> None:
    one = made("one", [1, 1, 1, 0, 0], flops_per_answer=3.0, answers_per_s=1.0)
    other = made("other", [1, 0, 0, 1, 0])
    c = between(one, other)
    assert (c.won, c.lost, c.tied, c.n, c.seeds) == (2, 1, 2, 5, 1)
    assert c.difference.mean == pytest.approx(0.2)
    assert c.difference.low < 0.2 < c.difference.high
    assert c.improvement == pytest.approx((2 + 2 / 2) / 5)
    assert c.sign_p == 1.0
    assert c.cost == {"flops": 3.0, "positions": 1.0, "seconds": 2.0}
    assert not c.cautions


def test_the_other_way_round_is_the_opposite(made: Made) -> None:
    one, other = made("one", [1, 1, 0.5, 0]), made("other", [0, 0, 1, 0])
    there, back = between(one, other), between(other, one)
    assert back.difference.mean == -there.difference.mean
    assert (back.won, back.lost) == (there.lost, there.won)
    assert back.improvement == pytest.approx(1 - there.improvement)


def test_questions_that_both_have_are_compared(made: Made) -> None:
    one, other = made("one", [1, 1, 1, 1]), made("other", [0, 1], index=[1, 3])
    c = between(one, other)
    assert (c.n, c.won, c.tied) == (2, 1, 1)
    assert c.cautions == ("one: other questions: 4 (the other: 2)",)
    with pytest.raises(UsageError, match="no question in common"):
        between(made("third", [1], index=[5]), other)


def test_seeds_that_both_have_are_paired_and_others_averaged(made: Made) -> None:
    one = made("one", [[1, 1], [0, 0]], seeds=[0, 1])
    same = between(one, made("same", [[1, 1], [0, 0]], seeds=[0, 1]))
    assert (same.seeds, same.tied, same.improvement) == (2, 2, 0.5)
    none = between(one, made("none", [[1, 0], [1, 0]], seeds=[5, 6]))
    assert none.seeds == 0
    assert (none.won, none.lost) == (1, 1)


def test_runs_of_one_seed_each_are_one_side(made: Made) -> None:
    runs = [made(f"seed-{s}", [1, 0], seeds=[s]) for s in range(3)]
    others = [made(f"other-{s}", [0, 0], seeds=[s]) for s in range(3)]
    assert compare(runs, others, "other").seeds == 3
    with pytest.raises(UsageError, match=r"a seed that .* has too"):
        compare([runs[0], runs[0]], others, "other")


def test_what_cannot_be_compared_is_refused(made: Made) -> None:
    one = made("one", [1, 0])
    with pytest.raises(UsageError, match="different tasks"):
        between(one, made("task", [1, 0], task="ProsQA"))
    with pytest.raises(UsageError, match="different data"):
        between(one, made("data", [1, 0], dataset_hash="1"))
    (one[0] / "rollouts.jsonl.gz").unlink()
    with pytest.raises(UsageError, match="holds no rollouts"):
        between(one, one)


def test_the_interval_of_a_difference_holds_in_95_of_100_cases() -> None:
    rng, truth, inside = np.random.default_rng(0), 0.1, 0
    for _ in range(200):
        hard_Q = rng.random(150)
        ours_Q, theirs_Q = hard_Q < 0.6, hard_Q + 0.1 * rng.random(150) < 0.55
        # P(ours) - P(theirs) = 0.6 - (0.55 - 0.05)
        low, high = difference_interval(ours_Q[:, None] * 1.0 - theirs_Q[:, None], resamples=400)
        inside += low <= truth <= high
    assert 180 <= inside <= 199


def test_the_interval_is_that_of_the_normal_where_questions_are_many() -> None:
    gain_Q = np.random.default_rng(0).choice([-1.0, 0.0, 1.0], 4000, p=[0.2, 0.5, 0.3])
    half = 1.96 * gain_Q.std() / math.sqrt(len(gain_Q))
    expected = gain_Q.mean() - half, gain_Q.mean() + half
    assert difference_interval(gain_Q[:, None]) == pytest.approx(expected, abs=2e-3)


def test_equal_answers_are_no_certainty_and_ends_stay_within_bounds() -> None:
    low, high = difference_interval(np.zeros((50, 1)))
    assert low == pytest.approx(-high) and high == pytest.approx(1.96**2 / (50 + 1.96**2), rel=1e-3)
    assert difference_interval(np.ones((4, 2)))[1] == 1.0
    for wrong in ([], [[2.0]], [[math.nan]]):
        with pytest.raises(ValueError, match="differences of shares"):
            difference_interval(wrong)


def test_seeds_that_disagree_widen_the_interval() -> None:
    gain_QS = np.tile([0.5, -0.3], (400, 1))
    low, high = difference_interval(gain_QS)
    assert (low, high) == pytest.approx((-0.3, 0.5))


def test_sign_test_is_exact() -> None:
    assert sign_test(0, 0) == sign_test(3, 3) == 1.0
    assert sign_test(5, 0) == sign_test(0, 5) == pytest.approx(2 / 2**5)
    assert sign_test(8, 2) == pytest.approx(2 * (1 + 10 + 45) / 2**10)
    assert 0 <= sign_test(3000, 1000) < 1e-200


def test_controls_stand_beside_their_own_method(made: Made) -> None:
    settings: dict[str, Any] = {
        "agent": "hrpo",
        "checkpoint": "runs/a",
        "config": {"agent": {"k": 1, "l": 2}, "env_options": {"split": "test"}},
    }
    method = made("method", [1, 1, 1, 0], **settings)
    config = {"env_options": {"split": "test"}, "agent": {"l": 2, "k": 1}, "steps": 3}
    zero = made("zero", [1, 0, 0, 0], **settings | {"control": "zero", "config": config})
    noise = made("noise", [1, 1, 1, 1], **settings | {"control": "noise"})
    others = [
        made("other seed", [0] * 4, **settings | {"control": "zero", "seeds": [1]}),
        made("other agent", [0] * 4, **settings | {"control": "zero", "agent": "cot"}),
        made("other weights", [0] * 4, **settings | {"control": "zero", "checkpoint": "runs/b"}),
        made("other questions", [0] * 3, **settings | {"control": "zero"}),
        made("other settings", [0] * 4, **settings | {"control": "zero", "config": {}}),
    ]
    found = controls_of([*others, zero, method, noise])
    assert list(found) == [method[0]]
    assert [(d.name, d.mean) for d in found[method[0]]] == [("noise", 0.25), ("zero", -0.5)]


def test_a_control_without_answers_is_left_out_with_a_warning(made: Made) -> None:
    runs = [made("method", [1, 0]), made("zero", [0, 0], control="zero")]
    (runs[1][0] / "rollouts.jsonl.gz").unlink()
    with pytest.warns(Notice, match="a control is left out: .*zero holds no"):
        assert controls_of(runs) == {}
