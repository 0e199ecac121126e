"""An evaluation of a checkpoint is of the agent, the settings and the environment it was trained
with."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from latentgym.agents.base import agent_class, config_dict, preset
from latentgym.agents.settings import restored
from latentgym.cli.main import main
from latentgym.errors import CheckpointError
from latentgym.evaluation.results import load_result
from latentgym.registry import AGENTS
from latentgym.training.manifest import find, run_of

ENV = "latent/MNNS-hybrid"


def train(out: Path, *argv: str) -> Path:
    model = ["--model", "tiny:gpt2:1x1x16", "--steps", "2", "--eval-limit", "20"]
    assert main(["train", *argv, *model, "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def paused(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose settings and environment are none of the defaults."""
    out = tmp_path_factory.mktemp("runs") / "paused"
    return train(out, "coconut", ENV, "--thought", "pause", "-o", "m=4", "-o", "low=2")


def settings(out: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    config = load_result(out).config
    return config["agent"], config["env_options"]


def test_settings_and_options_of_the_run_are_taken_and_said(
    paused: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["eval", "coconut", ENV, "--checkpoint", str(paused), "--limit", "20"]
    assert main([*argv, "--out", str(tmp_path / "a")]) == 0
    agent, env = settings(tmp_path / "a")
    assert (agent["thought"], env["m"], env["low"]) == ("pause", 4, 2)
    assert load_result(tmp_path / "a").accuracy == load_result(paused).accuracy
    told = capsys.readouterr().err
    assert f"settings of {paused}: thought pause, low 2\n" in told  # m is 4 in any case
    assert "changed" not in told


def test_weights_of_a_run_that_has_not_ended_are_said_to_be(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = train(tmp_path / "run", "cot", "latent/MNNS-token", "--save-every", "1", "--keep-last=2")
    argv = ["eval", "cot", "latent/MNNS-token", "--limit", "4", "--checkpoint"]
    assert main([*argv, str(out)]) == 0
    assert "weights of" not in capsys.readouterr().err
    shutil.rmtree(out / "checkpoints" / "step-00000002")  # as if it had been killed before
    assert main([*argv, str(out)]) == 0
    assert f"weights of {out}: step 1 of 2\n" in capsys.readouterr().err
    assert main([*argv, str(out / "checkpoints" / "step-00000001")]) == 0
    assert "weights of" not in capsys.readouterr().err
    more = ["--model", "tiny:gpt2:1x1x16", "--steps", "1", "--eval-limit", "4"]
    begun = ["train", "cot", "latent/MNNS-token", "--checkpoint", str(out), *more]
    assert main([*begun, "--out", str(tmp_path / "more")]) == 0
    assert f"weights of {out}: step 1 of 2\n" in capsys.readouterr().err


def test_settings_that_take_no_part_in_answering_are_not_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = train(tmp_path / "words", "cot", "latent/MNNS-token", "--dropout", "0.1", "-o", "m=4")
    assert "model tiny" not in capsys.readouterr().err
    argv = ["eval", "cot", "latent/MNNS-token", "--checkpoint", str(out), "--limit", "20"]
    assert main(argv) == 0
    told = capsys.readouterr().err
    assert "settings of" not in told and "changed" not in told and "no --model" not in told


def test_a_checkpoint_that_does_not_fit_says_what_it_was_trained_on(
    paused: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["eval", "coconut", "latent/ProsQA-hybrid", "--checkpoint", str(paused), "--limit", "4"]
    assert main(argv) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert f"it was trained on {ENV} with tiny:gpt2:1x1x16, so it is of another model" in told


def test_a_model_that_nobody_named_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("latentgym.cli.evaluate.SMOLLM2", "tiny:gpt2:1x1x16")
    assert main(["eval", "cot", "latent/MNNS-token", "--limit", "2"]) == 0
    assert "model tiny:gpt2:1x1x16, as there is no --model" in capsys.readouterr().err
    none = ["--eval-limit", "999999", "--out", str(tmp_path / "none")]
    assert main(["train", "cot", "latent/MNNS-token", *none]) == 2
    assert "model tiny:gpt2:2x2x32, as there is no --model" in capsys.readouterr().err


def test_what_is_given_comes_first_and_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sampled = ["--temperature", "0.5", "-o", "low=2", "--dropout", "0.1"]
    out = train(tmp_path / "words", "cot", "latent/MNNS-token", *sampled)
    argv = ["eval", "cot", "latent/MNNS-token", "--checkpoint", str(out), "--limit", "20"]
    changed = ["--temperature", "0.7", "-o", "low=1", "--out", str(tmp_path / "b")]
    assert main([*argv, *changed]) == 0
    agent, env = settings(tmp_path / "b")
    assert (agent["temperature"], env["low"]) == (0.7, 1)
    told = " ".join(capsys.readouterr().err.split())
    assert "changed for this evaluation: temperature 0.5 to 0.7, low 2 to 1" in told
    assert main([*argv, "--preset", "greedy"]) == 0
    told = capsys.readouterr().err
    assert "changed for this evaluation: temperature 0.5 to 0.0\n" in told, "of training nothing"


def test_another_agents_checkpoint_needs_force(
    paused: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["eval", "hrpo", ENV, "--checkpoint", str(paused), "--limit", "20"]
    assert main(argv) == 2
    assert "was trained with coconut; evaluate it with coconut, or give --force" in (
        capsys.readouterr().err
    )
    words = train(tmp_path / "words", "cot", "latent/MNNS-token")
    forced = ["eval", "hrpo", ENV, "--checkpoint", str(words), "--limit", "20", "--force"]
    assert main([*forced, "--out", str(tmp_path / "c")]) == 0
    assert settings(tmp_path / "c")[0] == config_dict(agent_class("hrpo").config_class())


@pytest.mark.parametrize("name", AGENTS)
def test_settings_come_back_as_they_were(name: str) -> None:
    cls = agent_class(name)
    for config in (cls.config_class(), *(preset(cls, each) for each in cls.presets)):
        stored = json.loads(json.dumps(config_dict(config)))
        assert restored(cls, stored, Path("run")) == config
        # A setting that came later has its default.
        first = dataclasses.fields(config)[0]
        del stored[first.name]
        older = dataclasses.replace(config, **{first.name: getattr(cls.config_class(), first.name)})
        assert restored(cls, stored, Path("run")) == older


@pytest.mark.parametrize(
    ("stored", "says"),
    [
        ({"thoughts": "pause"}, r"does not have \(thoughts\)"),
        ({"c": "two"}, "its setting c is 'two'"),
        ({"c": None}, "its setting c is None"),
        ({"c": True}, "its setting c is True"),
        ({"thought": "bogus"}, "its setting thought is 'bogus'"),
        ({"mix": float("nan")}, "its setting mix is nan"),
        ({"optimisation": {"lr": None, "rate": 1}}, r"does not have \(rate\)"),
        ({"optimisation": 3}, "its setting optimisation is 3"),
    ],
)
def test_settings_that_cannot_be_read_are_told(stored: dict[str, Any], says: str) -> None:
    with pytest.raises(CheckpointError, match=says):
        restored(agent_class("coconut"), stored, Path("run"))


def test_the_run_of_another_task_gives_no_options(paused: Path) -> None:
    from latentgym.training.manifest import env_options_of

    run = run_of(paused)
    assert env_options_of(run, "MNNS-token") == {"m": 4, "low": 2}
    assert env_options_of(run, "latent/ProsQA-hybrid") == {}
    assert env_options_of({}, ENV) == {}


@pytest.mark.parametrize(
    "change",
    [{"model": 3}, {"env": 5}, {"env_options": None}, {"env_options": []}, {"lora": ["r"]},
     {"lora": {"r": "8"}}, {"config": 3}],
    ids=str,
)  # fmt: skip
def test_a_run_that_says_nothing_useful_of_itself_is_told(
    change: dict[str, Any], paused: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "run"
    shutil.copytree(paused, copy)
    manifest = find(copy) / "manifest.json"
    data = json.loads(manifest.read_text())
    data.pop("sha256", None)
    manifest.write_text(json.dumps({**data, "run": {**data["run"], **change}}))
    assert main(["eval", "coconut", ENV, "--checkpoint", str(copy), "--limit", "4"]) == 2
    assert f"does not say its {next(iter(change))}" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    "change",
    [{"env_options": {"num_envs": 3}}, {"env_options": {"model": "x"}}, {"lora": {"r": 8}},
     {"lora": {"r": -1, "alpha": 2}}],
    ids=str,
)  # fmt: skip
def test_a_run_that_says_what_no_run_does_is_damaged(
    change: dict[str, Any], paused: Path, tmp_path: Path, changed: Any
) -> None:
    copy = tmp_path / "run"
    shutil.copytree(paused, copy)
    changed(find(copy) / "manifest.json", lambda data: data["run"].update(change))
    with pytest.raises(CheckpointError, match="is damaged"):
        run_of(copy)


def test_what_is_held_out_is_of_the_runs_own_source() -> None:
    from latentgym.training.manifest import env_options_of

    run = {"env": "latent/GSM8K-token", "env_options": {"source": "a.jsonl", "holdout": 0.1}}
    assert env_options_of(run, "GSM8K-token") == run["env_options"]
    assert env_options_of(run, "GSM8K-token", {"source": "b.jsonl"}) == {"source": "a.jsonl"}
