"""What is exported is what other programs load, and answers as the run does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import latentgym
from latentgym.cli.main import main
from latentgym.errors import UsageError
from latentgym.registry import make_vector_env
from latentgym.rollout import Engine, StepKind, collect

MODEL = "tiny:llama:2x2x16"
ENV = "latent/MNNS-token"


def train(out: Path, agent: str, env: str, *more: str) -> Path:
    argv = ["train", agent, env, "--model", MODEL, "--steps", "2", "--eval-limit", "5", *more]
    assert main([*argv, "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module", params=[(), ("--lora-r", "2")], ids=["weights", "adapters"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A token run."""
    out = tmp_path_factory.mktemp("run") / "run"
    return train(out, "cot", ENV, "--preset", "sft-tiny", *request.param)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One without adapters."""
    return train(tmp_path_factory.mktemp("plain") / "run", "cot", ENV, "--preset", "sft-tiny")


def test_transformers_gives_the_same_greedy_answers(run: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    out = tmp_path / "new" / "exported"
    assert main(["export", str(run), "--out", str(out)]) == 0
    model = AutoModelForCausalLM.from_pretrained(out).eval()
    policy, env = latentgym.load(run), make_vector_env(ENV, 4)
    assert policy.head.temperature == 0
    rollouts = collect(Engine(policy), env, range(4), seed=0).rollouts
    for row in range(4):
        free = rollouts.kind_NT[row] != StepKind.INSERTED
        expected = rollouts.token_NT[row][: len(free) if free.all() else free.argmin()].tolist()
        prompt = torch.tensor([env.unwrapped.task.prompt(row)])
        found = model.generate(
            prompt, max_new_tokens=len(expected), do_sample=False, eos_token_id=None, pad_token_id=0
        )
        assert len(expected) > 2 and found[0, prompt.shape[1] :].tolist() == expected
    about = json.loads((out / "latentgym.json").read_text())
    assert (about["agent"], about["env"], about["model"]) == ("cot", ENV, MODEL)
    text = (out / "README.md").read_text()
    assert "DeepSeekMath" in text and "95 % interval" in text and "latentgym train cot" in text


def test_what_is_loaded_is_what_was_trained(run: Path) -> None:
    policy = latentgym.load(run)
    stored = json.loads((run / "result.json").read_text())
    found = latentgym.evaluate(run, limit=5)
    assert found.result.accuracy == stored["accuracy"]
    assert found.result.config["agent"] == stored["config"]["agent"]
    assert type(policy.head).__name__ == "TokenHead"


def test_heads_stand_beside(tmp_path: Path) -> None:
    run = train(tmp_path / "run", "hrpo", "latent/MNNS-hybrid", "--preset", "tiny", *SMALL)
    assert main(["export", str(run), "--out", str(tmp_path / "out")]) == 0
    heads, head = load_file(tmp_path / "out" / "heads.safetensors"), latentgym.load(run).head
    state = head.state_dict()
    assert state and {f"head.{name}" for name in state} <= heads.keys()
    for name, value in state.items():
        assert np.array_equal(heads[f"head.{name}"], value)


SMALL = ("--grpo.prompts", "2", "--grpo.group-size", "2")


def test_adapters_stand_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = train(tmp_path / "run", "cot", ENV, "--preset", "sft-tiny", "--lora-r", "2")
    out = tmp_path / "out"
    assert main(["export", str(run), "--out", str(out), "--no-merge"]) == 0
    assert (out / "adapter_model.safetensors").exists() and not (out / "model.safetensors").exists()
    assert "no tokenizer" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        ([], "say what to write: --out DIR .* or --inspect FILE"),
        (["--inspect", "a.json", "--push", "me/mine"], "--push and --no-merge are about the model"),
        (["--out", "full"], "full is there already; choose another --out"),
        (["--out", "new", "--no-merge"], "has no adapters to write apart"),
    ],
)
def test_what_cannot_be_exported_is_a_sentence(
    argv: list[str],
    says: str,
    plain: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import re

    monkeypatch.chdir(tmp_path)
    Path("full").mkdir()
    Path("full/mine").write_text("kept")
    capsys.readouterr()
    assert main(["export", str(plain), *argv]) == 2
    assert re.search(says, capsys.readouterr().err)
    assert Path("full/mine").read_text() == "kept" and not Path("new").exists()


def test_without_a_token_nothing_is_uploaded(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    argv = ["export", str(plain), "--out", str(tmp_path / "out"), "--push", "me/mine"]
    assert main(argv) == 2
    assert "needs a token of the hub" in capsys.readouterr().err


def test_names_are_only_names(plain: Path) -> None:
    """A card is read by programs and shown by pages."""
    from latentgym.agents.export import card
    from latentgym.agents.stored import stored_run
    from latentgym.evaluation.results import load_result

    result: Any = load_result(plain)
    result.source = "`x`\n---\nbase_model: other"
    text = card(stored_run(plain), result)
    front, rest = text.split("\n---\n", 1)
    assert "base_model" not in front and "base_model: other" in rest


def test_a_card_parts_what_was_trained_on_from_what_was_asked(plain: Path) -> None:
    from latentgym.agents.export import card
    from latentgym.agents.stored import stored_run
    from latentgym.evaluation.results import load_result

    text = card(stored_run(plain), load_result(plain))
    (data,) = [line for line in text.splitlines() if line.startswith("**Data.**")]
    (result,) = [line for line in text.splitlines() if line.startswith("**Result.**")]
    assert "split `train`" in data and "split `test`" in result


def test_a_card_names_data_of_the_users_own(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "mine.jsonl"
    rows = [{"question": f"{n} + 1", "answer": n + 1} for n in range(40)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    own = ["--data", str(data), "--grader", "number", "-o", "think=4", "-o", "answer=2"]
    run = train(tmp_path / "run", "cot", "Custom-token", *own, "--eval-limit", "0")
    capfd.readouterr()
    assert main(["export", str(run), "--out", str(tmp_path / "out")]) == 0
    assert capfd.readouterr().out == ""  # not even the warnings of what transformers imports
    assert f"split `train` of `{data}`" in (tmp_path / "out" / "README.md").read_text()


def test_records_in_python_are_those_of_the_command_line(run: Path, tmp_path: Path) -> None:
    """What the weights were trained on among it."""
    argv = ["eval", "cot", ENV, "--checkpoint", str(run), "--limit", "6", "--split", "train"]
    assert main([*argv, "--out", str(tmp_path / "there")]) == 0
    latentgym.evaluate(run, limit=6, split="train", out=tmp_path / "here")
    here, there = (
        json.loads((tmp_path / name / "result.json").read_text()) for name in ("here", "there")
    )
    told = {"command", "checkpoint", "created", "wall_s", "answers_per_s", "sha256"}
    keys = (here.keys() | there.keys()) - told
    assert {k: here.get(k) for k in keys} == {k: there.get(k) for k in keys}
    with pytest.raises(UsageError, match="holds a result already"):
        latentgym.evaluate(run, limit=6, out=tmp_path / "here")
