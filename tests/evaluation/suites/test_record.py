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


def test_what_few_answers_or_seeds_have_is_told_of_those(made: Any, tmp_path: Path) -> None:
    seeds = (0, 1)
    cell = Cell("all", "own", ("eval", "cot", "MNNS-token"), seeds=seeds)
    numbers = (
        {"pass@1": 0.5, "pass@2": 0.75, "pass@3": 1.0, "samples/different_answers": 0.5},
        {"pass@1": 0.25, "pass@2": 0.5, "samples/different_answers": 1.0, "latent/norm": 2.0},
    )
    for seed, metrics in zip(seeds, numbers, strict=True):
        spent = {"forward_positions": {"thought": 3.0}, "flops_per_answer": 2.0}
        made(f"own/seed-{seed}", [1, 0], seeds=[seed], metrics=metrics, **spent)
    told = record(cell, tmp_path, seeds, Path("runs"))
    assert told["pass_at_k"] == {"pass@1": 37.5, "pass@2": 62.5, "pass@3": 100.0}
    assert told["pass_at_k_by_seed"]["pass@2"] == [75.0, 50.0]
    assert "pass@3" not in told["pass_at_k_by_seed"]  # whose seed it is would be a guess
    assert told["samples"] == {"samples/different_answers": 0.75}
    assert told["latents"] == {"latent/norm": 2.0}
