"""LatentR3 as an agent, and answers that are rankings."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from latentgym.agents.cot import CoT, CoTConfig
from latentgym.agents.latentr3 import LatentR3, LatentR3Config
from latentgym.agents.run import Run
from latentgym.cli.main import main
from latentgym.errors import UsageError
from latentgym.evaluation.evaluate import evaluate
from latentgym.evaluation.results import load_result, load_rollouts
from latentgym.heads import HiddenStateHead, PauseHead, RATTHead
from latentgym.lm.mode import mode
from latentgym.rollout import Engine, Policy, collect, replay
from latentgym.rollout.targets import think, with_targets
from latentgym.training import (
    GRPOConfig,
    Optimisation,
    PathwiseConfig,
    SupervisedConfig,
    Trainer,
)
from latentgym.training.latents import before_answer
from latentgym.training.supervised import supervised_loss

SHOP = {"source": "generated", "items": 30, "customers": 60}
MODEL = "tiny:qwen2:1x2x16"
RL = LatentR3Config(
    stage="rl",
    std=0.3,
    optimisation=Optimisation(lr=1e-2, weight_decay=0.1),
    rl=PathwiseConfig(prompts=4, group_size=3),
)


def run_of(config: Any = RL, agent: str = "latentr3", family: str = "hybrid", **more: Any) -> Run:
    options = {**SHOP, **more.pop("env_options", {})}
    return Run(agent, config, f"MovieLens-{family}", MODEL, env_options=options, **more)


def fingerprint(module: torch.nn.Module) -> str:
    digest = sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode() + tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def trained(run: Run, out: Path | None, steps: int, save_every: int = 0, stop: int = 0) -> Policy:
    recipe, policy = run.make_agent().recipe(), run.learner()
    stage = recipe.stage.build(policy, run.make_env, run.seed)
    trainer = Trainer(stage, recipe.optimisation, steps, out=out, save_every=save_every)
    for number in range(stop):
        trainer.step(number)
    if stop:
        trainer._save(stop)
    else:
        trainer.run(resume=True)
    return policy


@pytest.mark.parametrize("estimator", ["likelihood", "score"])
def test_rl_trains_the_attention_layer_and_nothing_else(estimator: Any) -> None:
    run = run_of(replace(RL, estimator=estimator))
    before = run.learner()
    after = trained(run, None, 3)
    assert fingerprint(before.lm) == fingerprint(after.lm)
    for (name, one), other in zip(
        before.head.named_parameters(), after.head.parameters(), strict=True
    ):
        # All keys weigh alike whatever their bias is: it gets no gradient but decay.
        assert not torch.equal(one, other), name


@pytest.mark.parametrize("config", [RL, replace(RL, stage="sft", batch_size=8)])
def test_resumed_equals_uninterrupted_bit_for_bit(config: LatentR3Config, tmp_path: Path) -> None:
    whole = trained(run_of(config), tmp_path / "a", 4)
    trained(run_of(config), tmp_path / "b", 4, stop=2)
    resumed = trained(run_of(config), tmp_path / "b", 4)
    assert fingerprint(whole) == fingerprint(resumed)


def test_the_clean_chain_thinks_what_is_thought_at_test_time() -> None:
    run = run_of()
    learner = run.learner()
    actor = run.acting(learner)
    env, questions = run.make_env(8), np.arange(4)
    clean = think(Engine(learner), env, questions, group_size=2, seed=1, noise_free=1)
    acted = think(Engine(actor), env, questions, group_size=1, seed=9)
    latents = clean.actions["latent"].view(4, 2, -1)
    assert torch.equal(latents[:, 0], acted.actions["latent"][:, 0])
    assert not torch.allclose(latents[:, 1], latents[:, 0])


def test_what_stands_behind_the_latent_does_not_change_it() -> None:
    """Scored with one title behind it or another, it is as likely."""
    run = run_of()
    env, policy = run.make_env(8), run.learner()
    rollouts = think(Engine(policy), env, np.arange(4), group_size=2, seed=0)
    titles = [env.unwrapped.task.choices.tokens(entry) for entry in range(8)]
    with torch.no_grad():
        alone = replay(policy, rollouts).logp_NT[:, 0]
        for some in (titles[:4], titles[4:]):
            behind = replay(policy, with_targets(rollouts, some)).logp_NT
            assert_close(behind[:, 0], alone, atol=1e-4, rtol=1e-5)
    assert alone.std() > 0


def test_it_has_the_authors_settings() -> None:
    sft, rl = (LatentR3(LatentR3.presets[name]).recipe() for name in ("sft", "rl"))
    assert isinstance(sft.stage, SupervisedConfig) and isinstance(rl.stage, PathwiseConfig)
    assert (sft.stage.batch_size, sft.stage.micro_batch, sft.optimisation.lr) == (128, 4, 3e-4)
    c = rl.stage
    assert (c.rows, c.group_size, c.updates, c.clip_low, c.clip_high) == (256, 8, 1, 0.2, 0.28)
    assert c.advantage == "clean_batch" and LatentR3.presets["rl"].std == 1.5
    assert rl.optimisation.schedule == "cosine"
    score = LatentR3(replace(LatentR3.presets["rl"], estimator="score")).recipe().stage
    assert isinstance(score, GRPOConfig) and score.reward == "perplexity" and score.kl == 0
    assert (score.advantage, score.clip_high, score.rows) == ("clean_batch", 0.28, 256)


def test_ablations_and_the_control_of_equal_cost() -> None:
    heads = {"ratt": RATTHead, "hidden": HiddenStateHead, "pause": PauseHead}
    for thought, kind in heads.items():
        run = run_of(LatentR3Config(thought=thought, batch_size=4))  # type: ignore[arg-type]
        assert isinstance(run.learner().head, kind)
        assert isinstance(trained(run, None, 1).head, kind)
        if thought != "ratt":
            with pytest.raises(UsageError, match="--thought ratt"):
                run_of(replace(RL, thought=thought)).learner()


def test_environments_without_a_fixed_thought_are_refused() -> None:
    with pytest.raises(UsageError, match="fixed number"):
        run_of(env_options={"think": 0}).learner()
    with pytest.raises(UsageError, match="hybrid family; use latent/MovieLens-hybrid"):
        run_of(family="token")


@pytest.mark.parametrize("thoughts", [1, 3])
def test_answers_are_rankings_whatever_the_batch(thoughts: int) -> None:
    run = run_of(env_options={"split": "test", "think": thoughts, "beams": 7})
    agent, policy = run.make_agent(), run.actor()
    found = [evaluate(agent, policy, run.env_id, run.make_env(rows), limit=20) for rows in (3, 64)]
    one, other = (e.result for e in found)
    assert one.metrics["hr@1"] == one.accuracy == one.metrics["reward/correct"]
    for name in ("hr@5", "ndcg@5", "mrr"):
        assert one.metrics[name] == pytest.approx(other.metrics[name])
    assert one.thoughts_mean == thoughts and one.about["beams"] == 7
    assert one.forward_positions["answer"] > 0
    for rollout in found[0].rollouts:
        titles = [entry["title"] for entry in rollout["trace"]]
        logps = [entry["logp"] for entry in rollout["trace"]]
        assert len({*titles}) == 7 and logps == sorted(logps, reverse=True)
        assert rollout["parsed"] == titles[0]


def test_metrics_are_those_of_the_place_of_the_right_title() -> None:
    run = run_of(env_options={"split": "test", "beams": 0})
    evaluation = evaluate(run.make_agent(), run.actor(), run.env_id, run.make_env(32), limit=30)
    env = run.make_env(1).unwrapped
    ranks = []
    for rollout in evaluation.rollouts:
        titles = [entry["title"] for entry in rollout["trace"]]
        right = env.task.choices.titles[env.task.entry(rollout["index"])]
        ranks.append(titles.index(right) + 1 if right in titles else 0)
    metrics = evaluation.result.metrics
    assert metrics["hr@20"] == pytest.approx(np.mean([0 < r <= 20 for r in ranks]))
    assert metrics["ndcg@3"] == pytest.approx(
        np.mean([1 / np.log2(r + 1) if 0 < r <= 3 else 0 for r in ranks])
    )
    assert metrics["mrr"] > np.mean([1 / r if r else 0 for r in ranks]) - 1e-9


def test_one_chain_is_ranked_not_several() -> None:
    run = run_of(CoTConfig(samples=3, temperature=1.0), "cot", "token")
    with pytest.raises(UsageError, match="one sample per question"):
        evaluate(CoT(run.config), run.actor(), run.env_id, run.make_env(8), limit=4)


@pytest.mark.parametrize(
    ("agent", "family"),
    [("cot", "token"), ("hrpo", "hybrid"), ("colar-grpo", "hybrid"), ("mts-grpo", "continuous")],
)
def test_every_agent_ranks(agent: str, family: str) -> None:
    from latentgym.agents.base import agent_class

    config = agent_class(agent).config_class()
    if agent == "colar-grpo":
        config = replace(config, prompt_suffix="")
    run = run_of(config, agent, family, env_options={"split": "test", "think": 2})
    result = evaluate(run.make_agent(), run.actor(), run.env_id, run.make_env(8), limit=8).result
    assert result.metrics["hr@1"] == result.accuracy and result.thoughts_mean == 2


@pytest.mark.slow
def test_a_user_trains_both_stages_and_a_control(tmp_path: Path, capsys: Any) -> None:
    shop = [part for name, value in SHOP.items() for part in ("-o", f"{name}={value}")]
    common = ["MovieLens-hybrid", *shop]
    first, second, control = (str(tmp_path / name) for name in ("sft", "rl", "zero"))
    sft = ["--preset", "sft-tiny", "--model", MODEL, "--steps", "20", "--eval-limit", "40"]
    assert main(["train", "latentr3", *common, *sft, "--out", first]) == 0
    rl = ["--preset", "rl-tiny", "--checkpoint", first, "--steps", "3", "--eval-limit", "40"]
    assert main(["train", "latentr3", *common, *rl, "--out", second]) == 0
    evaluated = ["--checkpoint", second, "--control", "zero", "--limit", "40", "--out", control]
    assert main(["eval", "latentr3", *common, *evaluated]) == 0
    results = [load_result(Path(folder)) for folder in (first, second, control)]
    assert [r.control for r in results] == [None, None, "zero"]
    assert results[0].metrics["hr@20"] >= results[0].metrics["hr@5"] >= results[0].accuracy
    assert len(list(load_rollouts(Path(second)))) == 40
    assert main(["rescore", second]) == 0
    assert main(["leaderboard", first, second, control]) == 0
    assert "latentr3 (" in capsys.readouterr().out


def test_openrlhf_refuses_what_it_cannot_do(tmp_path: Path, capsys: Any) -> None:
    argv = ["train", "latentr3", "MovieLens-hybrid", "-o", "source=sample", "--out", str(tmp_path)]
    assert main([*argv, "--preset", "rl-tiny", "--backend", "openrlhf"]) == 2
    assert "whole episodes" in capsys.readouterr().err
    score = ["--preset", "rl-tiny", "--estimator", "score", "--backend", "openrlhf"]
    assert main([*argv, *score]) == 2
    assert "use --backend local" in " ".join(capsys.readouterr().err.split())


CHAINS: dict[str, dict[str, Any]] = {
    "MNNS": {"limit": 40},
    "ProsQA": {"size": 20},
    "MovieLens": SHOP,
    "GSM8K": {"source": "sample", "exact_thoughts": True, "force_answer": False, "think": 2},
}


@pytest.mark.parametrize("task", CHAINS)
def test_what_is_shown_is_an_episode_of_the_task(task: str) -> None:
    run = Run("latentr3", LatentR3Config(), f"{task}-hybrid", MODEL, env_options=CHAINS[task])
    env = run.make_env(1).unwrapped
    rules = env.protocol
    for index in range(5):
        shown = before_answer(env.demonstration(index), rules)
        answer = shown.ids_TS[shown.thoughts :, 0].tolist()
        assert shown.thoughts == rules.think.steps
        assert not shown.weights_TS[: shown.thoughts].any()
        assert len(answer) <= rules.answer.steps or not rules.answer.exact
        said = env.task.tokenizer.decode(answer)
        assert env.task.grade(index, said, said).score == 1


def test_what_is_trained_is_what_is_done() -> None:
    # On a task whose chains have no room in its answers, after a few steps without dropout.
    config = LatentR3Config(batch_size=16, optimisation=Optimisation(lr=1e-2, warmup=0))
    run = Run("latentr3", config, "MNNS-hybrid", MODEL, env_options={"limit": 40})
    policy = trained(run, None, 12)
    stage = run.make_agent().recipe().stage.build(policy, run.make_env, run.seed)
    asked = np.arange(40)
    batch = stage.demonstrations.batch(asked, policy.lm.device, partial(stage.shown, 0))
    with torch.no_grad(), mode(policy.lm, training=False):
        told = supervised_loss(policy.lm, batch, own=stage.own_rows(batch, 0))
    right = (told.right_BT & ~batch.thought_BT).any(1)
    episodes = collect(Engine(run.acting(policy)), run.make_env(40), asked, seed=0)
    assert right.tolist() == (episodes.reward_N == 1).tolist() and right.any()
