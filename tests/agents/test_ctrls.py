"""CTRLS-style: fitted to demonstrations, refined by reward; the model never moves."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import latentgym
from latentgym.agents.ctrls import CTRLS, CTRLSConfig
from latentgym.agents.run import Run
from latentgym.errors import UsageError
from latentgym.evaluation.evaluate import evaluate
from latentgym.evaluation.results import load_result
from latentgym.heads import TransitionHead
from latentgym.lm import load_model
from latentgym.registry import make_vector_env
from latentgym.rollout import Engine, Policy, StepKind, collect, replay
from latentgym.training import ELBOConfig, GRPOConfig, Trainer

ENV, MODEL = "latent/GSM8KAug-hybrid", "tiny:llama:1x2x16"
OPTIONS = {"source": "generated", "max_operations": 2, "largest": 9}
TINY = CTRLS.presets["tiny"]
PREFIX = replace(TINY, prefix=2)


def parity(completions: list[str], completion_ids: list[list[int]], **columns: Any) -> list[float]:
    """Something that episodes of an untrained model differ in."""
    return [float(sum(ids) % 2) for ids in completion_ids]


def policy(config: CTRLSConfig = TINY, *, acting: bool = False, model: str = MODEL) -> Policy:
    env = make_vector_env(ENV, 1, **OPTIONS)
    lm = load_model(model, tokenizer=env.unwrapped.task.tokenizer)
    return CTRLS(config).policy(lm, acting=acting)


def weights(run: Path, part: str) -> dict[str, torch.Tensor]:
    (file,) = run.glob("checkpoints/*/policy.safetensors")
    return {name: x for name, x in load_file(file).items() if name.startswith(part)}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Of both stages, one after the other."""
    root = tmp_path_factory.mktemp("ctrls")
    first, second = root / "elbo", root / "grpo"
    small: dict[str, Any] = {"options": OPTIONS, "eval_limit": 4, "log_every": 1}
    latentgym.train(*("ctrls", ENV), preset="tiny", model=MODEL, steps=4, out=first, **small)
    latentgym.train(
        *("ctrls", ENV),
        preset="grpo-tiny",
        checkpoint=first,
        steps=3,
        out=second,
        settings={"grpo.prompts": 4, "grpo.group-size": 4, "optimisation.lr": 0.1},
        rewards=[parity],
        **small,
    )
    return first, second


def test_the_bound_fits_the_head_and_reward_the_transitions_alone(runs: tuple[Path, Path]) -> None:
    first, second = runs
    fresh = {f"lm.{name}": x for name, x in policy().lm.state_dict().items()}
    for run in runs:
        found = weights(run, "lm.")
        assert found and all(torch.equal(x, fresh[name]) for name, x in found.items())
    before, after = weights(first, "head."), weights(second, "head.")
    moved = {name for name, x in before.items() if not torch.equal(x, after[name])}
    assert moved == {"head.transitions"}


def test_it_answers_as_it_did(runs: tuple[Path, Path]) -> None:
    for run in runs:
        assert latentgym.evaluate(run, limit=4).result.accuracy == load_result(run).accuracy


@pytest.mark.parametrize("given", [{}, {"prefix": 2}, {"encoded": "length"}])
def test_states_that_are_not_fitted_are_not_refined(given: dict[str, Any], tmp_path: Path) -> None:
    config = replace(CTRLS.presets["grpo-tiny"], **given)
    with pytest.raises(UsageError, match="train the stage elbo first"):
        Run("ctrls", config, ENV, MODEL, OPTIONS).learner()
    bound = Run("ctrls", replace(config, stage="elbo", batch_size=4), ENV, MODEL, OPTIONS)
    recipe = bound.make_agent().recipe()
    stage = recipe.stage.build(bound.learner(), bound.make_env, 0)
    Trainer(stage, recipe.optimisation, 1, out=tmp_path, identity=bound.identity()).run()
    Run("ctrls", config, ENV, MODEL, OPTIONS, checkpoint=tmp_path).learner()


def test_one_state_leaves_reward_nothing_to_teach(tmp_path: Path) -> None:
    """Rather than a loss that is no number."""
    config = replace(TINY, states=1)
    one = policy(config)
    one.head.size_of(one.lm.table_VD)  # type: ignore[operator, union-attr]
    small = GRPOConfig(prompts=2, group_size=2, micro_batch=2)
    env = partial(make_vector_env, ENV, **OPTIONS)
    stage = small.build(one, env, 0, rewards=[parity])
    with pytest.raises(UsageError, match="nothing in these episodes is drawn at random"):
        Trainer(stage, config.optimisation, 1).run()


def test_answers_are_greedy_and_learning_explores() -> None:
    learner, actor = policy().head, policy(acting=True).head
    assert isinstance(learner, TransitionHead) and isinstance(actor, TransitionHead)
    assert (learner.epsilon, learner.greedy, learner.token_head.temperature) == (0.1, False, 0.7)
    assert (actor.epsilon, actor.greedy, actor.token_head.temperature) == (0.0, True, 0.0)
    drawn = policy(replace(TINY, greedy_states=False, temperature=0.5), acting=True).head
    assert not drawn.greedy and drawn.token_head.temperature == 0.5


def test_a_policy_gradient_has_the_ratio_of_states_alone() -> None:
    env = make_vector_env(ENV, 8, **OPTIONS)
    learner = policy(CTRLS.presets["grpo-tiny"])
    rollouts = collect(Engine(learner, record_log_probs=True), env, np.arange(8), seed=0).rollouts
    scores = replay(learner, rollouts)
    latent = torch.from_numpy(rollouts.kind_NT == StepKind.THOUGHT)
    # Tokens are those of a model that does not learn, in thoughts and answers alike.
    assert latent.any() and not (scores.part_NT & ~latent).any()
    scores.logp_NT[scores.thought_NT].sum().backward()
    grown = {name for name, p in learner.named_parameters() if p.grad is not None}
    assert grown == {"head.transitions"}


def test_each_stage_has_its_recipe() -> None:
    assert isinstance(CTRLS(TINY).recipe().stage, ELBOConfig)
    grpo = CTRLS(CTRLS.presets["grpo"]).recipe().stage
    assert isinstance(grpo, GRPOConfig) and grpo.entropy == 0.01 and grpo.kl == 0


def test_samples_of_a_question_differ_and_are_counted() -> None:
    config = replace(TINY, samples=4, temperature=1.0, greedy_states=False)
    run = Run("ctrls", config, ENV, MODEL, OPTIONS)
    evaluation = evaluate(run.make_agent(), run.actor(), run.env_id, run.make_env(8), limit=4)
    assert {"pass@1", "pass@4"} <= evaluation.result.metrics.keys()
    with pytest.raises(UsageError, match="all the same"):
        CTRLS(replace(TINY, samples=4)).check(make_vector_env(ENV, 1, **OPTIONS).unwrapped.protocol)


def test_steps_end_by_any_token_that_holds_the_text() -> None:
    env = make_vector_env("latent/GSM8K-hybrid", 1, source="sample")
    tokenizer = env.unwrapped.task.tokenizer
    lm = load_model(MODEL, tokenizer=tokenizer)
    head = CTRLS(CTRLSConfig()).policy(lm, acting=False).head
    assert isinstance(head, TransitionHead)
    assert [tokenizer.decode([int(i)]) for i in head.step_end] == ["\n"]
    for text in ("", "no such token"):
        with pytest.raises(UsageError, match="--step-end"):
            policy(replace(TINY, step_end=text))


def test_what_ends_a_step_may_not_end_thinking() -> None:
    env = make_vector_env(ENV, 1, **OPTIONS).unwrapped
    for text in ("#", "####"):
        with pytest.raises(UsageError, match="also the marker '####'"):
            CTRLS(replace(PREFIX, step_end=text)).check(env.protocol)
    exact = replace(env.protocol, think=replace(env.protocol.think, exact=True))
    CTRLS(replace(PREFIX, step_end="####")).check(exact)  # markers are ignored there
    calls = make_vector_env(
        "latent/HotpotQA-hybrid", 1, source="sample", search="action"
    ).unwrapped.protocol
    with pytest.raises(UsageError, match="also the marker"):
        CTRLS(replace(PREFIX, step_end=calls.tool_call.text)).check(calls)


def test_states_that_are_added_begin_as_the_model_alone() -> None:
    env = make_vector_env(ENV, 8, **OPTIONS)
    silent = policy(replace(TINY, prefix=0, temperature=1.0, greedy_states=False), acting=True)
    alone = Policy(silent.lm, silent.head.token_head, silent.answer_head)
    told = [collect(Engine(p), env, np.arange(8), seed=0).rollouts for p in (silent, alone)]
    assert np.array_equal(told[0].token_NT, told[1].token_NT)
    torch.nn.init.normal_(silent.head.vectors)
    moved = collect(Engine(silent), env, np.arange(8), seed=0).rollouts
    assert not np.array_equal(moved.token_NT, told[0].token_NT)


def test_prefixes_begin_near_what_a_model_reads_there_anyway() -> None:
    made = policy(PREFIX)
    head, table = made.head, made.lm.table_VD
    assert isinstance(head, TransitionHead)
    near = table[head.step_end[0]]
    near = near / near.square().mean().sqrt()
    apart = (head.vectors - near).detach()
    assert float(apart.std()) == pytest.approx(0.1, rel=0.3)
