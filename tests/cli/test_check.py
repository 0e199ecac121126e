"""Records that others send are believed as far as their answers give the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from latentgym.cli.main import main
from latentgym.evaluation.results import RESULT, ROLLOUTS, Result, load_result, load_rollouts

Change = Callable[[Result, list[dict[str, Any]]], Any]


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("honest") / "run"
    argv = ["eval", "mts-grpo", "latent/MNNS-continuous", "--model", "tiny:gpt2:1x1x16"]
    assert main([*argv, "--limit", "4", "--seeds", "0", "1", "--out", str(out)]) == 0
    return out


def right(result: Result, rollouts: list[dict[str, Any]]) -> None:
    """Claims that all answers are right."""
    for rollout in rollouts:
        rollout["score"] = 1.0
    result.accuracy, result.accuracy_ci95 = 1.0, [0.5, 1.0]


def given(result: Result, rollouts: list[dict[str, Any]]) -> None:
    """Has the right answer in the place of a wrong one, but the old score."""
    rollouts[0]["completion"] = rollouts[0]["answer"] = rollouts[0]["target"]


# What somebody changed before it was sealed, and what is said of it.
DECEITS: dict[str, tuple[Change, str]] = {
    "accuracy": (lambda r, _: vars(r).update(accuracy=0.75), "accuracy is 0.0, not 0.75"),
    "scores": (right, "8 of 8 answers are graded otherwise: accuracy 0.0000, not 1.0000"),
    "answers": (given, "1 of 8 answers are graded otherwise"),
    "interval": (lambda r, _: vars(r).update(accuracy_ci95=[0.0, 0.1]), "the upper end of its"),
    "thoughts": (lambda r, _: vars(r).update(thoughts_mean=1.0), "thoughts_mean is 1, but"),
    "tokens": (lambda r, _: vars(r).update(tokens_mean=9.0), "tokens_mean is 9, but"),
    "budgets": (lambda r, _: r.metrics.update(truncated=0.5), "metrics.truncated is 0.5, but"),
    "environment": (
        lambda r, _: vars(r).update(env="latent/Nothing-token"),
        "there is no environment 'latent/Nothing-token'",
    ),
    "options": (
        lambda r, _: r.config["env_options"].update(nothing=1),
        "got an unexpected keyword argument 'nothing'",
    ),
    "lost": (lambda _, found: found.pop(), "of 8 answers 1 are missing"),
    "data": (lambda r, _: vars(r).update(dataset_hash="0" * 16), "its data is 0000000000000000"),
    "a line": (lambda _, found: found[2].update(segments="x"), 'segments cannot be "x"'),
    "a thought": (lambda _, f: f[2]["steps"][0].update(weights=[None]), "weights cannot be"),
}


def said(folder: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any]]:
    capsys.readouterr()
    code = main(["leaderboard", str(folder), "--check", "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_an_honest_record_is_taken(honest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, found = said(honest, capsys)
    record = {"path": str(honest / RESULT), "faults": [], "notes": []}
    assert (code, found["records"]) == (0, [record])
    assert main(["leaderboard", "--check", str(honest.parent)]) == 0
    assert "1 records, 0 at fault" in capsys.readouterr().out


@pytest.mark.parametrize("what", DECEITS)
def test_a_claim_that_the_answers_do_not_bear_out_is_told(
    what: str, honest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change, sentence = DECEITS[what]
    result, rollouts = replace(load_result(honest)), list(load_rollouts(honest))
    result.metrics, result.config = deepcopy((result.metrics, result.config))
    change(result, rollouts)
    result.save(tmp_path / "run", rollouts)
    code, found = said(tmp_path, capsys)
    (record,) = found["records"]
    assert code == 1 and any(sentence in fault for fault in record["faults"])
    assert all("\n" not in fault for fault in record["faults"])


def test_damage_is_told_record_by_record(
    honest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], changed: Any
) -> None:
    result, rollouts = load_result(honest), list(load_rollouts(honest))
    names = ("unsealed", "older", "touched", "gone", "no-rollouts", "whole")
    for name in names:
        result.save(tmp_path / name, rollouts)
    changed(tmp_path / "unsealed" / RESULT, lambda data: None, older=True)
    changed(tmp_path / "older" / RESULT, lambda data: data.update(schema=0))
    text = (tmp_path / "touched" / RESULT).read_text()
    (tmp_path / "touched" / RESULT).write_text(text.replace('"cpu"', '"gpu"'))
    (tmp_path / "gone" / RESULT).write_text("")
    (tmp_path / "no-rollouts" / ROLLOUTS).unlink()
    code, found = said(tmp_path, capsys)
    faults = {Path(r["path"]).parent.name: " ".join(r["faults"]) for r in found["records"]}
    assert (code, found["at_fault"], set(faults)) == (1, 5, set(names))
    assert not any(str(tmp_path) in fault for fault in faults.values()), "told once, before them"
    for name, says in {
        "unsealed": "it has no seal",
        "older": "no result record of schema 1",
        "touched": "its SHA-256 differs",
        "gone": "is damaged",
        "no-rollouts": f"holds no {ROLLOUTS}",
        "whole": "",
    }.items():
        assert says in faults[name] and bool(says) == bool(faults[name])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"modules": {"env": "antigravity"}, "env": "latent/Own-token"}, "antigravity"),
        ({"source": "hub:owner/name@main", "dataset_hash": "1"}, "its data is hub:owner/name@main"),
        ({"model": "/no/such/model"}, "/no/such/model"),
    ],
)
def test_what_is_not_here_is_no_fault_of_the_record(
    change: dict[str, Any],
    says: str,
    honest: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    replace(load_result(honest), **change).save(tmp_path, load_rollouts(honest))
    code, found = said(tmp_path, capsys)
    (record,) = found["records"]
    assert (code, record["faults"]) == (0, [])
    assert "were not graded again" in record["notes"][0] and says in record["notes"][0]


def test_folders_without_records_are_no_success(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        assert main(["leaderboard", "--check", str(folder)]) == 2
        assert str(folder) in capsys.readouterr().err
