"""The rollout benchmark runs and reports what the docs promise; it asserts no speed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from latentgym.cli.benches import rollout
from latentgym.cli.main import main


@pytest.mark.thorough
def test_rollout_bench_reports_ratios_and_scaling(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "bench.json"
    monkeypatch.setattr(rollout, "absent", lambda gguf: None)  # as if llama.cpp were installed
    monkeypatch.setattr(rollout, "llama_cpp_ms", lambda *_: 5.0)
    small = ["--model", "tiny:llama:1x2x16", "--prompt", "16", "--new", "4", "--group", "2"]
    small += ["--groups", "1", "2", "--rounds", "1", "--gguf", "weights.gguf"]
    assert main(["bench", "rollout", *small, "--json", str(target)]) == 0
    (report,) = json.loads(target.read_text())
    assert {
        "generate / token rollout",
        "generate, static cache / token rollout",
        "no cache / token rollout",
        "token step / linear floor",
        "token step / packed floor",
        "llama.cpp / token step, 1 row",
        "mts-8 step / token step",
        "latentr3 step / token step",
        "token rollout, float32 / bfloat16",
        "token step, float32 / bfloat16",
    } <= set(report["ratios"])
    assert all(value > 0 for value in report["ratios"].values())
    difference, outside = report["precision"].values()
    assert 0 < difference < 0.1 and 0 <= outside < 0.1
    assert {"exponent_prompt", "exponent_thoughts"} <= set(report["scaling"])
    assert report["settings"]["group"] == 2
    assert report["latents_per_second"].keys() == {"1", "2"}
    assert report["bandwidth_bytes_per_s"] > 0 and report["clock"] in ("cpu", "wall")
    assert report["notes"] == []
    assert report["steps_per_s"]["llama.cpp, 1 row"] == 200
    assert report["versions"]["torch"]
