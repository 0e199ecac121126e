"""The training benchmark runs and reports what the docs promise; it asserts no speed."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest

from latentgym.cli.main import main
from latentgym.errors import UsageError
from latentgym.lm import packed_training
from latentgym.lm.packed import available

train = importlib.import_module("latentgym.cli.benches.train")

TINY = ["--model", "tiny:llama:1x2x16", "--group", "2", "--micro-batch", "2", "--rounds", "2"]


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """No step beside on any processor."""
    monkeypatch.setattr(packed_training, "wider", lambda: False)


def test_ours_alone(tmp_path: Path) -> None:
    target = tmp_path / "bench.json"
    argv = ["bench", "train", *TINY, "--new", "5", "--peer", "none", "--json", str(target)]
    assert main(argv) == 0
    (report,) = json.loads(target.read_text())
    names = {"cot", "hrpo", "colar"}
    stages = ("", ", rollouts", ", update")
    assert set(report["ms_per_step"]) == {f"{name}{stage}" for name in names for stage in stages}
    assert all(ms > 0 for ms in report["ms_per_step"].values())
    assert (report["peer"], report["settings"]["new"]) == ("none", 5)
    others = names - {"cot"}
    assert set(report["ratios"]) == {f"{name} / cot{stage}" for name in others for stage in stages}
    assert len(report["prompt_tokens"]) == 2


@pytest.mark.thorough
def test_beside_trl(tmp_path: Path) -> None:
    pytest.importorskip("trl", reason="needs TRL, pip install 'latentgym[peers]'")
    target = tmp_path / "bench.json"
    assert main(["bench", "train", *TINY, "--new", "5", "--json", str(target)]) == 0
    (report,) = json.loads(target.read_text())
    assert set(report["ratios"]) > {"TRL / cot", "TRL / cot, rollouts", "TRL / cot, update"}
    assert all(value > 0 for value in report["ratios"].values())
    assert set(report["ms_per_step"]) > {"TRL", "TRL, rollouts", "TRL, update"}
    assert report["peer"].startswith("trl ")


@pytest.mark.skipif(not available(), reason="this torch has no prepacked linear")
def test_a_step_with_plain_layers_stands_beside_where_layers_are_packed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(packed_training, "wider", lambda: True)
    monkeypatch.setattr(train, "SUBJECTS", {"cot": train.SUBJECTS["cot"]})
    options = train.TrainBench(
        model="tiny:llama:1x2x16", group=2, new=4, micro_batch=4, rounds=1, peer="none"
    )
    assert set(train.run(options)["ratios"]) == {
        f"cot with plain layers / cot{stage}" for stage in ("", ", rollouts", ", update")
    }


@pytest.mark.parametrize(("agent", "family"), [("coconut", "hybrid"), ("mts-grpo", "continuous")])
def test_other_agents_take_their_place_beside(
    agent: str, family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = train.Subject(agent, family, {"stage": "grpo"})
    monkeypatch.setattr(train, "SUBJECTS", {agent: subject})
    options = train.TrainBench(
        model="tiny:llama:1x2x16", group=2, new=4, micro_batch=4, rounds=1, peer="none"
    )
    assert set(train.run(options)["ms_per_step"]) == {
        agent,
        f"{agent}, rollouts",
        f"{agent}, update",
    }


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["--group", "1"], "group and new at least 2"),
        (["--rounds", "0"], "--rounds must be at least 1"),
        (["--micro-batch", "3"], "micro_batch = 3 does not divide the 4 rows"),
    ],
)
def test_bad_settings(argv: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "train", *TINY, "--peer", "none", *argv]) == 2
    assert sentence in capsys.readouterr().err


def test_a_missing_peer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trl", None)
    with pytest.raises(UsageError, match=r"pip install 'latentgym\[peers\]'.*--peer none"):
        train.run(train.TrainBench(model="tiny:llama:1x2x16"))
