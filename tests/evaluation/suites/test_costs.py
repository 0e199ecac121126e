"""Curves of the methods of a suite."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from latentgym.evaluation.suites.cells import Cell, Knob
from latentgym.evaluation.suites.costs import curves


def test_curves_are_of_results_that_are_there(made: Any, tmp_path: Path) -> None:
    knobs = [Knob("a", "samples", n) for n in (1, 2)]
    cells = [Cell("", f"a-samples-{k.value}", ("eval",), seeds=(0, 1), knob=k) for k in knobs]
    cells += [Cell("", "b", ("eval",), seeds=(0, 1))]
    for name, scores, cost in (("a-samples-1", [1, 0], 2.0), ("b", [1, 1], 3.0)):
        for seed in (0, 1):
            own = {"flops_per_answer": cost + seed, "command": f"latentgym eval --seeds {seed}"}
            made(f"{name}/seed-{seed}", scores, **own)
    made("a-samples-2/seed-0", [1, 1], command="latentgym eval --limit 2 --seeds 0")  # another's
    assert curves(cells, tmp_path, "flops") == {"a": [(2.5, 0.5)], "b": [(3.5, 1.0)]}
