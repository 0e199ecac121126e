"""Curves of accuracy against cost, read at equal cost."""

from __future__ import annotations

import pytest

from latentgym.evaluation.equal_cost import at_cost, equal_costs


def test_curves_are_read_between_measured_costs_and_not_beyond() -> None:
    curve = [(1.0, 0.0), (100.0, 1.0)]
    assert at_cost(curve, 10.0) == pytest.approx(0.5)  # straight in the logarithm
    assert at_cost(curve, 100.0) == 1.0
    assert at_cost(curve, 0.9) is at_cost(curve, 101.0) is None
    assert at_cost([(2.0, 0.3)], 2.0) == 0.3


def test_equal_costs_are_measured_ones_that_two_methods_share() -> None:
    found = {"a": [(1.0, 0.1), (8.0, 0.2)], "b": [(2.0, 0.1), (16.0, 0.3)], "c": [(4.0, 0.5)]}
    assert equal_costs(found) == [2.0, 4.0, 8.0]
    assert equal_costs({"a": [(1.0, 0.1)], "b": [(2.0, 0.1)]}) == []
    assert equal_costs({"a": [(1.0, 0.1)], "b": [(1.0, 0.1)]}) == []  # no curve
    many = {name: [(float(i), 0.1) for i in range(1, 50)] for name in "ab"}
    costs = equal_costs(many)
    assert len(costs) == 5 and costs[0] == 1.0 and costs[-1] == 49.0
