"""Training from Python is training from the command line, and what cannot be is a sentence."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import latentgym
from latentgym.agents.base import agent_classes, preset
from latentgym.agents.cot import CoT
from latentgym.agents.settings import with_settings
from latentgym.cli.main import main
from latentgym.errors import Notice, UsageError
from latentgym.evaluation.results import load_result
from latentgym.training.rewards import Reward, Rewards

ENV = "latent/MNNS-token"
SMALL: dict[str, Any] = {"model": "tiny:gpt2:1x2x8", "steps": 2, "eval_limit": 4}
GRPO = {"grpo.prompts": 2, "grpo.group-size": 2}


def short(prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
    assert len(prompts) == len(columns["answer"])
    return [-float(len(text)) for text in completions]


def metrics(out: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if "second" not in k} for line in lines]


def test_python_trains_what_the_command_line_does(tmp_path: Path) -> None:
    there, here = tmp_path / "there", tmp_path / "here"
    argv = ["train", "cot", ENV, "--model", SMALL["model"], "--steps", "2", "--eval-limit", "4"]
    options = ["--seed", "3", "--lora-r", "2", "--grpo.prompts", "2", "--grpo.group-size", "2"]
    assert (
        main([*argv, "--preset", "grpo-tiny", *options, "--log-every", "1", "--out", str(there)])
        == 0
    )
    run = latentgym.train(
        "cot",
        ENV,
        preset="grpo-tiny",
        settings=GRPO,
        seed=3,
        lora_r=2,
        log_every=1,
        out=here,
        **SMALL,
    )
    assert metrics(here) == metrics(there)
    assert (run.out, run.steps, run.best, run.chosen) == (here, 2, 2, False)
    assert run.result is not None and 0 <= run.result.accuracy <= 1
    one, other = load_result(here), load_result(there)
    assert (one.accuracy, one.config, one.n) == (other.accuracy, other.config, other.n)
    assert one.command == (
        "latentgym.train('cot', 'latent/MNNS-token', model='tiny:gpt2:1x2x8', preset='grpo-tiny', "
        "settings={'grpo.prompts': 2, 'grpo.group-size': 2}, seed=3, lora_r=2, log_every=1, "
        "steps=2, eval_limit=4)"
    )
    loaded = latentgym.load(there).state_dict()
    assert all(
        torch.equal(value, loaded[name])
        for name, value in latentgym.load(here).state_dict().items()
    )


def test_rewards_are_functions_and_a_resumed_run_has_the_same(tmp_path: Path) -> None:
    more: dict[str, Any] = {
        "preset": "grpo-tiny",
        "settings": GRPO,
        "out": tmp_path / "run",
        **SMALL,
    }
    run = latentgym.train("cot", ENV, rewards=[short], **more)
    assert run.metrics["reward/short"] == run.metrics["reward/score"] <= 0
    assert "rewards=[short])" in (load_result(run.out).command or "")
    with pytest.raises(UsageError, match="holds an earlier run"):
        latentgym.train("cot", ENV, rewards=[short], **more)
    longer = {**more, "steps": 3, "resume": True}
    for others in (None, [Reward(short, 2.0)], Rewards([short], task=1.0)):
        with pytest.raises(UsageError, match="rewards"):
            latentgym.train("cot", ENV, rewards=others, **longer)
    with pytest.warns(Notice, match="now of 3"):
        assert latentgym.train("cot", ENV, rewards=[short], **longer).steps == 3


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"steps": "10"}, "steps of latentgym.train is a whole number"),
        ({"steps": 0}, "steps"),
        ({"step": 10}, "did you mean 'steps'"),
        ({"preset": "grop"}, "did you mean .grpo"),
        ({"settings": {"grpo.prompt": 1}}, "did you mean 'prompts'"),
        ({"settings": {"grpo.prompts": "1"}}, "prompts of grpo of cot is a whole number"),
        ({"settings": {"grpo": 3}}, "grpo of cot is a GRPOConfig"),
        ({"settings": {"temperature.high": 3}}, "temperature.high"),
        ({"settings": {"temperature": -1.0}}, "temperature"),
        ({"options": {"split": "train"}}, "split="),
        ({"options": {"thinks": 3}}, "did you mean 'think'"),
        ({"rewards": []}, "reward"),
        ({"rewards": [lambda **columns: 1.0]}, "name"),
        ({"rewards": [short], "backend": "openrlhf"}, "module:function"),
        ({"rewards": [short], "preset": "sft-tiny"}, "another stage"),
        ({"test": True}, "goes with --eval-every"),
        ({"lora_alpha": 4}, "--lora-r"),
        ({"backend": "here"}, "backend"),
        ({"out": None}, "out of latentgym.train is a Path"),
        ({"model": 3}, "model of latentgym.train is text"),
        ({"device": torch.device("cpu")}, "device of latentgym.train is text"),
        ({"settings": ["grpo.prompts"]}, "settings of latentgym.train is a mapping"),
        ({"settings": {1: 2}}, "settings of latentgym.train is a mapping"),
        ({"settings": {"grpo.rewards": [3]}}, r"rewards of grpo of cot is a list \(each text\)"),
        ({"settings": {"grpo.rewards": ["task"]}, "rewards": [short]}, "leave one out"),
        ({"options": {"model": "gpt2"}}, "model is no option of the environment here"),
        ({"options": {"num_envs": 2}}, "num_envs is no option of the environment here"),
        ({"options": {"grader": max}}, "name it as module:function"),
        ({"rewards": "mine:short"}, "rewards of latentgym.train is"),
        ({"rewards": short}, "rewards of latentgym.train is"),
        ({"load_in_4bit": "yes"}, "true or false"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_made(
    given: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    more = {"preset": "grpo-tiny", "out": tmp_path / "run", **SMALL, **given}
    with pytest.raises(UsageError, match=sentence):
        latentgym.train("cot", ENV, **more)
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"source": None}, "source of latentgym.evaluate is text or a Path"),
        ({"env": 3}, "env of latentgym.evaluate is text"),
        ({"seeds": 3}, "seeds of latentgym.evaluate is a list"),
        ({"limit": 0}, "limit of latentgym.evaluate is a whole number from 1"),
        ({"batch": 10**7}, "batch of latentgym.evaluate is a whole number from 0 to 65536"),
        ({"agent": CoT}, "agent of what is loaded is text"),
        ({"preset": "x"}, "did you mean 'preset_name'"),
        ({"model": "x"}, "unexpected keyword argument 'model'"),
        ({"keep_thoughts": "all"}, "keep_thoughts of what is loaded is a whole number"),
    ],
)
def test_what_cannot_be_evaluated_is_a_sentence(given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        latentgym.evaluate(**{"source": "tiny:gpt2:1x2x8", "env": ENV, **given})


def test_numbers_of_numpy_and_paths_can_be_recorded(tmp_path: Path) -> None:
    data = tmp_path / "sums.jsonl"
    rows = [{"question": f"{n} + {n}?", "answer": 2 * n} for n in range(100)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    more: dict[str, Any] = {**SMALL, "preset": "grpo-tiny", "out": tmp_path / "run"}
    more |= {"seed": np.int64(1), "steps": np.int64(1), "eval_limit": np.int64(2)}
    more["settings"] = {name: np.int64(value) for name, value in GRPO.items()}
    more["options"] = {"data": data, "grader": "number", "think": np.int64(8), "answer": 4}
    weighed = [Reward(short, np.float32(0.5))]  # type: ignore[arg-type]
    for resume in (False, True):
        run = latentgym.train("cot", "Custom-token", rewards=weighed, resume=resume, **more)
        assert run.steps == 1 and run.result is not None
    seeds, index = np.arange(1), np.arange(2)
    again = latentgym.evaluate(run.out, seeds=seeds, index=index, out=tmp_path / "eval")  # type: ignore[arg-type]
    assert again.result.n == 2


@pytest.mark.parametrize("cls", list(agent_classes()), ids=lambda cls: cls.name)
def test_every_setting_of_every_agent_can_be_said_again(cls: Any) -> None:
    def flat(config: Any, within: str = "") -> dict[str, Any]:
        found = {}
        for field in dataclasses.fields(config):
            value = getattr(config, field.name)
            if dataclasses.is_dataclass(value):
                found |= flat(value, f"{within}{field.name}.")
            else:
                found[within + field.name.replace("_", "-")] = value
        return found

    for name in (None, *cls.presets):
        config = preset(cls, name)
        assert with_settings(cls.config_class(), flat(config), cls.name) == config


def test_an_agent_of_ones_own_is_known_again_once_it_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A record imports nothing: the module that it names must be there already."""
    assert main(["new", "agent", "own-agent", "--family", "token", "--out", str(tmp_path)]) == 0
    monkeypatch.syspath_prepend(tmp_path)
    run = latentgym.train("own_agent:OwnAgent", ENV, preset="short", out=tmp_path / "run", **SMALL)
    assert run.result is not None
    assert latentgym.evaluate(run.out, limit=4).result.accuracy == run.result.accuracy
    for name in ("own_agent", "own_agent_head"):
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(UsageError, match="--module own_agent"):
        latentgym.load(run.out)
