"""The benchmark of searches runs and reports what the docs promise; it asserts no speed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from latentgym.cli.main import main

REWARDS = ("self", "constant")
TINY = ["--model", "tiny:llama:1x2x16", "--questions", "3", "--new", "14", "--iterations", "2"]


def test_both_are_compared(tmp_path: Path) -> None:
    target = tmp_path / "bench.json"
    argv = ["bench", "latentseek", *TINY, "--lr", "0.3", "--verifier", "2", "--json", str(target)]
    assert main(argv) == 0
    (report,) = json.loads(target.read_text())
    sides = {f"{side}, {reward}" for side in ("plain", "latentgym") for reward in REWARDS}
    assert set(report["questions_per_minute"]) == set(report["positions_per_question"]) == sides
    assert all(value > 0 for value in report["questions_per_minute"].values())
    assert report["same_answers"] == {"self": 1.0, "constant": 1.0}
    for reward in REWARDS:
        assert report["ratios"][f"latentgym / plain, {reward}"] > 0
        assert report["ratios"][f"positions, plain / latentgym, {reward}"] > 1
        assert report["gflop_per_question"][reward] > 0
    assert report["forward_positions"]["self"]["verifier"] > 0
    assert report["forward_positions"]["constant"]["verifier"] == 0


@pytest.mark.parametrize("argv", [["--plain", "4"], ["--plain", "0"], ["--new", "8"]])
def test_bad_settings(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "latentseek", *TINY, *argv]) == 2
    assert "plain must be at least 1" in capsys.readouterr().err
