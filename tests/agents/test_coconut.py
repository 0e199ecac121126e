"""Coconut: settings, its environment, a start from words, controls, policy gradient."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from latentgym.agents.coconut import Coconut, CoconutConfig
from latentgym.agents.run import Run
from latentgym.cli.main import main
from latentgym.errors import UsageError
from latentgym.evaluation.evaluate import evaluate
from latentgym.evaluation.results import load_result
from latentgym.heads import ControlHead, HiddenStateHead, PauseHead
from latentgym.rollout import Engine, collect
from latentgym.training import GRPO, CurriculumConfig, GRPOConfig, Trainer

TINY = "tiny:llama:2x2x16"
THOUGHTS = {"hidden": {}, "pause": {}, "none": {"think": 0}}


def run_of(env: str = "latent/MNNS-hybrid", **more: Any) -> Run:
    config = CoconutConfig(**more.pop("config", {}))
    return Run(agent="coconut", config=config, env=env, model=TINY, **more)


@pytest.mark.parametrize("thought", THOUGHTS)
def test_it_thinks_with_what_its_settings_name(thought: Any) -> None:
    run = run_of(config={"thought": thought, "stages": 3}, env_options=THOUGHTS[thought])
    learner, actor = run.learner(), run.actor()
    kind = PauseHead if thought == "pause" else HiddenStateHead
    assert type(learner.head) is type(actor.head) is kind
    assert (learner.answer_head.temperature, actor.answer_head.temperature) == (1.0, 0.0)
    stage = run.make_agent().recipe().stage
    assert isinstance(stage, CurriculumConfig)
    assert stage.c == (0 if thought == "none" else 1)


def test_a_learned_pause_is_kept_and_answers(tmp_path: Path) -> None:
    run = run_of(config={"thought": "pause", "steps_per_stage": 1})
    policy = run.learner()
    recipe = run.make_agent().recipe()
    fresh = policy.head.pause_D.detach().clone()
    stage = recipe.stage.build(policy, run.make_env, run.seed)
    Trainer(stage, recipe.optimisation, 5, out=tmp_path, identity=run.identity()).run()
    assert not torch.equal(policy.head.pause_D, fresh)
    again = replace(run, checkpoint=tmp_path).actor()
    assert torch.equal(again.head.pause_D, policy.head.pause_D)
    assert torch.equal(run.acting(policy).head.pause_D, policy.head.pause_D)


@pytest.mark.parametrize(
    ("config", "options", "sentence"),
    [
        ({"c": 2}, {}, "do not make the 3 thoughts"),
        ({"stages": 2}, {}, "set -o think=2"),
        ({}, {"think": 0}, "do not make the 0 thoughts"),
        ({"thought": "none"}, {}, "set -o think=0"),
    ],
)
@pytest.mark.parametrize("stage", ["sft", "grpo"])
def test_an_environment_that_thinks_another_number_of_times_is_refused(
    config: Any, options: Any, sentence: str, stage: str
) -> None:
    run = run_of(config={**config, "stage": stage}, env_options=options)
    for make in (run.learner, run.actor):
        with pytest.raises(UsageError, match=sentence):
            make()


def test_the_command_line_says_how_to_fix_the_thoughts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = ["train", "coconut", "latent/GSM8KAug-hybrid", "--model", TINY, "-o", "source=generated"]
    settings = ["--c", "2", "--stages", "3", "--steps-per-stage", "1", "--batch-size", "4"]
    few = ["--steps", "5", "--eval-limit", "8", "--out", str(tmp_path / "run")]
    assert main([*text, *settings, *few]) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert "-o exact_thoughts=true -o think=6" in said
    exact = [word for pair in said.split(" -o ")[1:] for word in ("-o", pair.strip("."))]
    assert main([*text, *settings, *few, *exact]) == 0
    result = load_result(tmp_path / "run")
    assert result.thoughts_mean == 6 and result.n == 8


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the token agent: chains in words, as in the curriculum's stage 0."""
    out = tmp_path_factory.mktemp("runs") / "cot"
    argv = ["train", "cot", "latent/MNNS-token", "--model", TINY, "--steps", "150"]
    assert main([*argv, "--optimisation.lr", "3e-3", "--eval-limit", "0", "--out", str(out)]) == 0
    return out


def test_it_starts_from_a_chain_in_words(words: Path, tmp_path: Path) -> None:
    def losses(checkpoint: Path | None) -> float:
        run = run_of(config={"first_stage": 1, "steps_per_stage": 2}, checkpoint=checkpoint)
        policy, recipe = run.learner(), run.make_agent().recipe()
        stage = recipe.stage.build(policy, run.make_env, run.seed)
        metrics = Trainer(stage, recipe.optimisation, 1).run()
        assert metrics["train/stage"] == 1
        return metrics["train/loss"]

    assert losses(words) < 0.8 * losses(None)


@pytest.fixture(scope="module")
def staged(words: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "coconut"
    argv = ["train", "coconut", "latent/MNNS-hybrid", "--checkpoint", str(words)]
    short = ["--first-stage", "1", "--steps-per-stage", "20", "--steps", "80"]
    rate = ["--optimisation.lr", "3e-3", "--eval-limit", "100"]
    assert main([*argv, *short, *rate, "--out", str(out)]) == 0
    return out


@pytest.mark.parametrize(
    "control",
    [
        *("zero", "shuffle"),
        *(pytest.param(c, marks=pytest.mark.thorough) for c in ("noise", "pause", "word")),
    ],
)
def test_controls_replace_the_hidden_states(staged: Path, tmp_path: Path, control: str) -> None:
    argv = ["eval", "coconut", "latent/MNNS-hybrid", "--checkpoint", str(staged), "--limit", "20"]
    assert main([*argv, "--control", control, "--out", str(tmp_path)]) == 0
    found, plain = load_result(tmp_path), load_result(staged)
    assert found.control == control
    assert found.thoughts_mean == plain.thoughts_mean == 3
    assert found.forward_positions["thought"] == plain.forward_positions["thought"]


def test_a_control_changes_what_is_answered(staged: Path) -> None:
    run = run_of(checkpoint=staged)
    env = run.make_env(64, split="test")
    tokens = []
    for control in (None, "noise"):
        policy = run.actor()
        if control:
            policy.head = ControlHead(policy.head, control)
        tokens.append(collect(Engine(policy), env, np.arange(64), seed=0).rollouts.token_NT)
    assert not (tokens[0][:, -1] == tokens[1][:, -1]).all()


@pytest.mark.parametrize("thought", THOUGHTS)
def test_policy_gradient_moves_the_voice_and_replays_latents_as_constants(thought: Any) -> None:
    grpo = GRPOConfig(prompts=8, group_size=4, micro_batch=8)
    settings = {"stage": "grpo", "thought": thought, "grpo": grpo}
    run = run_of(config=settings, env_options=THOUGHTS[thought])
    policy, recipe = run.learner(), run.make_agent().recipe()
    stage = recipe.stage.build(policy, run.make_env, 0)
    assert isinstance(stage, GRPO)
    thoughts = 0 if thought == "none" else 3
    before = {name: value.clone() for name, value in policy.state_dict().items()}
    metrics = Trainer(stage, recipe.optimisation, 2).run()
    assert metrics["train/ratio_deviation"] == 0.0
    assert metrics["rollout/thoughts"] == thoughts and metrics["rollout/tokens"] == 1
    changed = {name for name, v in policy.state_dict().items() if not torch.equal(v, before[name])}
    assert any(name.startswith("lm.") for name in changed)
    assert ("head.pause_D" in changed) == (thought == "pause")


def test_answers_do_not_depend_on_how_many_rows_fit(staged: Path) -> None:
    run = run_of(checkpoint=staged)
    records = []
    for rows in (3, 16):
        env = run.make_env(rows, split="test")
        done = evaluate(run.make_agent(), run.actor(), run.env_id, env, seeds=[0], limit=20)
        records.append([(r["index"], r["answer"], r["thoughts"]) for r in done.rollouts])
    assert records[0] == records[1]


def test_presets_are_of_the_paper() -> None:
    gsm8k, prosqa = (Coconut.presets[f"paper-{name}"] for name in ("gsm8k", "prosqa"))
    assert (gsm8k.c, gsm8k.stages, gsm8k.first_stage, gsm8k.batch_size) == (2, 3, 1, 128)
    assert (prosqa.c, prosqa.stages, prosqa.first_stage, prosqa.batch_size) == (1, 6, 0, 128)
    assert gsm8k.optimisation == prosqa.optimisation
    assert (gsm8k.optimisation.lr, gsm8k.optimisation.factor(0, 10)) == (1e-4, 1.0)
