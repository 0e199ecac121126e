"""Evaluations during training, on the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from latentgym.agents.validation import Evaluations
from latentgym.cli.main import main
from latentgym.evaluation.results import find_results, load_result
from latentgym.training.manifest import find, read_manifest

TINY = ["--model", "tiny:gpt2:1x1x16"]
MNNS = ["train", "cot", "latent/MNNS-token", *TINY, "-o", "m=2", "-o", "high=9"]
GRPO = ["--stage", "grpo", "--grpo.prompts", "4", "--grpo.group-size", "2"]
LOOKS = ["--steps", "6", "--eval-every", "2", "--log-every", "1"]
EVAL = ["eval", "cot", "latent/MNNS-token", "--checkpoint"]


def refused(argv: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 2
    assert says in capsys.readouterr().err


def eval_lines(out: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    keys = ("step", "eval/accuracy", "eval/accuracy_low", "eval/accuracy_high")
    return [{key: line[key] for key in keys} for line in lines if "eval/accuracy" in line]


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--eval-every", "2", "--eval-split", "test"], "so it does not take the test split"),
        (["--eval-every", "2", "--eval-limit", "0"], "leaves it no questions"),
        (["--eval-every", "2", "--eval-limit", "500"], "are held out to evaluate on, not 500"),
        (["--eval-every", "2", "--eval-split", "valid"], "splits train and test"),
        (["--early-stopping", "2"], "--early-stopping goes with --eval-every"),
        (["--test"], "--test goes with --eval-every"),
        (["--keep-last", "0"], "--keep-last must be at least 1"),
        (["--eval-every", "-1"], "--eval-every must be at least 0"),
        (["--backend", "openrlhf", *GRPO, "--keep-last", "2"], "use --backend local for --early"),
        (["--backend", "openrlhf", *GRPO, "--eval-every", "2"], "OpenRLHF holds none of the"),
    ],
)
def test_what_does_not_go_together_is_refused(
    more: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refused([*MNNS, *more, "--out", str(tmp_path / "run")], says, capsys)
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


@pytest.mark.parametrize(
    "stage",
    [
        pytest.param([], marks=pytest.mark.thorough, id="supervised"),
        pytest.param(GRPO, id="policy"),
    ],
)
def test_a_stopped_run_that_goes_on_is_the_run_that_was_not_stopped(
    stage: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    argv = [*MNNS, *LOOKS, *stage, "--early-stopping", "3"]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert main([*argv, "--out", str(whole)]) == 0
    look, asked = Evaluations.look, list[int]()

    def stops(self: Any, policy: Any, step: int) -> Any:
        asked.append(step)
        if asked == [2, 4]:
            raise KeyboardInterrupt
        return look(self, policy, step)

    monkeypatch.setattr(Evaluations, "look", stops)
    assert main([*argv, "--out", str(parts)]) == 130
    assert main([*argv, "--out", str(parts), "--resume"]) == 0
    assert asked == [2, 4, 4, 6]
    assert eval_lines(whole) == eval_lines(parts)
    assert find(whole).name == find(parts).name
    for end in ("policy.safetensors", "optimizer.safetensors"):
        steps = [sorted((out / "checkpoints").glob(f"*/{end}")) for out in (whole, parts)]
        assert [p.parent.name for p in steps[0]] == [p.parent.name for p in steps[1]]
        assert [p.read_bytes() for p in steps[0]] == [p.read_bytes() for p in steps[1]]
    ours, theirs = load_result(whole), load_result(parts)
    assert (ours.accuracy, ours.index, ours.config) == (
        theirs.accuracy,
        theirs.index,
        theirs.config,
    )


def test_evaluations_leave_training_as_it_is(tmp_path: Path) -> None:
    """They draw no random number of the training's, and leave model and head in their mode."""
    prosqa = ["train", "mts-grpo", "latent/ProsQA-continuous", *TINY, "-o", "size=60"]
    run = [*prosqa, "--steps", "4", "--batch-size", "4", "--dropout", "0.2"]
    asked = ["--eval-every", "1", "--eval-limit", "4"]
    assert main([*run, *asked, "--out", str(tmp_path / "with")]) == 0
    assert main([*run, "--eval-limit", "0", "--out", str(tmp_path / "without")]) == 0
    last = [tmp_path / name / "checkpoints" / "step-00000004" for name in ("with", "without")]
    ours, theirs = ((folder / "policy.safetensors").read_bytes() for folder in last)
    assert ours == theirs
    assert load_result(tmp_path / "with").split == "valid"


def test_the_best_weights_are_the_runs_and_the_test_is_asked_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, look = tmp_path / "run", Evaluations.look
    better = {2: 0.25, 4: 0.75, 6: 0.5}

    def told(self: Any, policy: Any, step: int) -> Any:
        found = look(self, policy, step)
        return type(found)(step, better[step], 0.0, 1.0)

    monkeypatch.setattr(Evaluations, "look", told)
    assert main([*MNNS, *LOOKS, "--out", str(out)]) == 0
    shown = capsys.readouterr()
    assert "10 % of the training questions, by a hash of their text" in shown.err
    assert "trained 6 steps, of which the first 4 made the best weights" in shown.err
    assert "by which these weights were chosen" in " ".join(shown.out.split())
    result = load_result(out)
    assert (result.split, result.config["steps"], result.trained_on) == ("train", 4, 0)
    assert "by a hash of their text" in result.config["asked"]
    assert result.index == load_result(out / "looks" / "step-00000004").index
    assert [line["step"] for line in eval_lines(out)] == [2, 4, 6]
    # They are no results beside the run's own.
    assert [folder for folder, _ in find_results([tmp_path])] == [out]
    assert len(find_results([out / "looks"])) == 3
    # What it says is what an evaluation of its checkpoint says, which takes the best.
    index = ["--index", *map(str, result.index or [])]
    again = [*EVAL, str(out), "--split", "train", *index, "--out", str(tmp_path / "again")]
    assert main(again) == 0
    same = load_result(tmp_path / "again")
    assert (same.trained_on, same.index) == (0, result.index)
    assert (same.accuracy, same.prompts) == (result.accuracy, result.prompts)
    # Again, with the test: nothing is trained, and the best answers it.
    assert main([*MNNS, *LOOKS, "--out", str(out), "--resume", "--test"]) == 0
    tested = load_result(out)
    assert (tested.split, tested.config["steps"], tested.index) == ("test", 4, [])
    assert "asked" not in tested.config
    assert main([*EVAL, str(out), "--out", str(tmp_path / "test")]) == 0
    assert load_result(tmp_path / "test").accuracy == tested.accuracy
    refused([*MNNS, *LOOKS[:2], "--out", str(out), "--resume"], "it differs in", capsys)


def test_a_run_stops_early_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    still = ["--optimisation.lr", "1e-12", "--steps", "40", "--eval-every", "1"]
    argv = [*MNNS, *still, "--early-stopping", "2", "--out", str(tmp_path)]
    for more in ([], ["--resume"]):
        assert main([*argv, *more]) == 0
        assert "stopped early, after 3 of 40 steps" in capsys.readouterr().err
    assert read_manifest(find(tmp_path))["step"] == load_result(tmp_path).config["steps"] == 1
    assert (tmp_path / "curves.png").exists()
