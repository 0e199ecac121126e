"""The record of a suite: what it keeps of its cells."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from latentgym.evaluation.suites.cells import Cell
from latentgym.evaluation.suites.record import record


def test_a_control_is_told_beside_its_method(made: Any, tmp_path: Path) -> None:
    seeds = (0, 1)
    method = Cell("all", "own", ("eval", "cot", "MNNS-token"), seeds=seeds, paper=70.0)
    control = Cell("all", "own-zero", method.argv, seeds=seeds, of="own")
    for name, scores in (("own", [1, 1, 0, 1]), ("own-zero", [0, 1, 0, 1])):
        for seed in seeds:
            cost = {"forward_positions": {"thought": 3.0}, "flops_per_answer": 2.0 + seed}
            made(f"{name}/seed-{seed}", scores, seeds=[seed], **cost)
    told, other = (record(cell, tmp_path, seeds, Path("runs")) for cell in (method, control))
    assert (told["mean"], told["by_seed"], told["n"]) == (75.0, [75.0, 75.0], 4)
    assert (told["paper"], told["flops"], told["thoughts"]) == (70.0, 2.5, [3.0, 3.0, 3.0])
    assert "paired" not in told
    mean, low, high = other["paired"]
    assert mean == pytest.approx(-25) and low < mean < high
    assert told["command"] == ("latentgym eval cot MNNS-token --seeds 0 --out runs/own/seed-0")
