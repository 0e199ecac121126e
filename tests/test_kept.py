"""A checkpoint and a record from before names changed (0.1.0 of November 2026) are read as then."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from latentgym.cli.main import main
from latentgym.evaluation.results import load_result, load_rollouts

KEPT = Path(__file__).parent / "kept"


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    return Path(shutil.copytree(KEPT, tmp_path / "kept"))


def test_they_are_of_then() -> None:
    (manifest,) = KEPT.glob("run/checkpoints/*/manifest.json")
    for path in (manifest, KEPT / "record" / "result.json"):
        assert '"cue"' in path.read_text() and "prompt_suffix" not in path.read_text()


def test_the_record_is_read_listed_and_scored_again(
    kept: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = load_result(kept / "record")
    assert result.n == len(list(load_rollouts(kept / "record"))) == 4
    assert main(["leaderboard", str(kept)]) == 0
    assert "colar-grpo" in capsys.readouterr().out
    assert main(["rescore", str(kept / "record")]) == 0
    assert load_result(kept / "record").accuracy == result.accuracy


def test_the_checkpoint_answers_as_it_did(kept: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    argv = ["eval", "colar-grpo", "latent/MNNS-hybrid", "--checkpoint", str(kept / "run")]
    assert main([*argv, "--limit", "4", "--out", str(again)]) == 0
    for now, then in zip(load_rollouts(again), load_rollouts(kept / "record"), strict=True):
        # Tasks in symbols have no format to miss, which was 0 and is 1.
        assert {name: now[name] for name in then} == {**then, "components": now["components"]}


def test_the_run_goes_on(kept: Path) -> None:
    argv = ["train", "colar-grpo", "latent/MNNS-hybrid", "--model", "tiny:gpt2:1x1x8"]
    argv += ["--steps", "3", "--eval-limit", "0", "--stage", "sft", "--prompt-suffix", ""]
    assert main([*argv, "--out", str(kept / "run"), "--resume"]) == 0
    lines = (kept / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines][-1] == 3
