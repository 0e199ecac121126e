"""Agents: what they think with, how they choose among samples, and what their presets say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from latentgym.agents import agent_class, preset
from latentgym.agents.cot import CoT, CoTConfig
from latentgym.agents.mts_grpo import MTSGRPO, MTSGRPOConfig
from latentgym.agents.soft_thinking import SoftThinking, SoftThinkingConfig
from latentgym.errors import UsageError
from latentgym.evaluation.evaluate import evaluate
from latentgym.heads import DirichletHead, MixtureHead, MultiTokenHead, TokenHead
from latentgym.lm import load_model
from latentgym.registry import AGENTS, make_vector_env
from latentgym.rollout import Episodes, Rollouts


def mnns(family: str, num_envs: int = 16, **options: Any) -> Any:
    return make_vector_env(f"latent/MNNS-{family}", num_envs, split="test", **options)


def model(env: Any) -> Any:
    return load_model("tiny:gpt2:1x1x16", tokenizer=env.unwrapped.task.tokenizer)


@pytest.mark.parametrize("name", AGENTS)
def test_every_registered_agent_loads_and_knows_its_name(name: str) -> None:
    cls = agent_class(name)
    assert cls.name == name
    assert cls(preset(cls, None)).families
    for known in cls.presets:
        assert isinstance(preset(cls, known), cls.config_class)


def test_unknown_agent_and_preset_are_answered_with_near_names() -> None:
    with pytest.raises(UsageError, match="mts-grpo"):
        agent_class("mts_grpo")
    with pytest.raises(UsageError, match="greedy"):
        preset(CoT, "greedi")


def test_several_greedy_samples_are_refused() -> None:
    env = mnns("token")
    with pytest.raises(UsageError, match="temperature"):
        CoT(CoTConfig(samples=4)).policy(model(env), acting=True)


@pytest.mark.parametrize(
    ("config", "acting", "head"),
    [
        (MTSGRPOConfig(), False, MixtureHead),
        (MTSGRPOConfig(stage="grpo"), False, MultiTokenHead),
        (MTSGRPOConfig(stage="grpo", sampler="dirichlet"), False, DirichletHead),
        (MTSGRPOConfig(thoughts="mts"), True, MultiTokenHead),
        (MTSGRPOConfig(), True, MixtureHead),
    ],
)
def test_cot2_thinks_with_the_head_that_its_settings_name(
    config: MTSGRPOConfig, acting: bool, head: type
) -> None:
    policy = MTSGRPO(config).policy(model(mnns("continuous")), acting=acting)
    assert isinstance(policy.head, head)
    assert isinstance(policy.answer_head, TokenHead)
    assert policy.answer_head.temperature == (0.0 if acting else 1.0)


def episodes_with(parsed: list[str], rewards: list[float]) -> Episodes:
    n = len(parsed)
    ones = np.ones((n, 1), dtype=np.int64)
    rollouts = Rollouts(
        prompts=[[1]],
        prompt_N=np.zeros(n, dtype=np.int64),
        question_N=np.zeros(n, dtype=np.int64),
        sample_N=np.arange(n),
        token_NT=ones,
        kind_NT=(2 * ones).astype(np.int8),
        actions={},
        logp_NT=None,
        terminated_N=np.ones(n, dtype=bool),
        truncated_N=np.zeros(n, dtype=bool),
        seed=0,
    )
    infos = [{"parsed": p, "score": r} for p, r in zip(parsed, rewards, strict=True)]
    return Episodes(rollouts, np.array(rewards), infos)


@pytest.mark.parametrize(("vote", "chosen"), [("first", "3"), ("majority", "5")])
def test_votes(vote: Any, chosen: str) -> None:
    env = mnns("token")
    episodes = episodes_with(["3", "", "5", "5", "7", ""], [0, 0, 0, 0, 1, 0])
    agent = CoT(CoTConfig(samples=6, vote=vote, temperature=1.0))
    answer = agent.choose(env, 0, episodes, np.arange(6))
    assert answer.info["parsed"] == chosen
    assert answer.samples == (0, 0, 0, 0, 1, 0)
    assert answer.positions.answer == 6
    assert answer.metrics["samples/different_answers"] == 3 / 6  # of 3, 5 and 7
    assert answer.metrics["samples/different_texts"] == 1 / 6


def test_an_unanswered_question_has_no_majority_but_an_answer() -> None:
    agent = CoT(CoTConfig(samples=2, vote="majority", temperature=1.0))
    answer = agent.choose(mnns("token"), 0, episodes_with(["", ""], [0, 0]), np.arange(2))
    assert answer.info["parsed"] == ""


def test_evaluation_does_not_depend_on_how_many_rows_fit() -> None:
    config = MTSGRPOConfig(thoughts="mts", k=4)
    records = []
    for rows in (3, 16):
        env = mnns("continuous", rows)
        lm = model(env)
        agent = MTSGRPO(config)
        policy = agent.policy(lm, acting=True)
        done = evaluate(agent, policy, "latent/MNNS-continuous", env, seeds=[0, 1], limit=20)
        records.append([(r["index"], r["seed"], r["answer"], r["thoughts"]) for r in done.rollouts])
    assert records[0] == records[1]


def test_several_samples_give_pass_at_k() -> None:
    env = mnns("token")
    agent = CoT(CoTConfig(samples=4, temperature=2.0))
    done = evaluate(
        agent, agent.policy(model(env), acting=True), "latent/MNNS-token", env, limit=50
    )
    metrics = done.result.metrics
    assert metrics["pass@1"] <= metrics["pass@2"] <= metrics["pass@4"]
    assert metrics["pass@4"] > done.result.accuracy  # which is that of the first
    assert 0 < metrics["samples/different_answers"] <= metrics["samples/different_texts"] <= 1


def test_soft_thinking_with_the_whole_vocabulary_is_the_base_mixture() -> None:
    env = mnns("continuous")
    lm = model(env)
    with torch.no_grad():
        for parameter in lm.parameters():
            parameter.mul_(4)
    soft = SoftThinking(SoftThinkingConfig(top_k=10**6, top_p=1.0, temperature=1.0))
    base = MTSGRPO(MTSGRPOConfig())
    answers = [
        evaluate(agent, agent.policy(lm, acting=True), "latent/MNNS-continuous", env, limit=64)
        for agent in (soft, base)
    ]
    one, other = ([(r["answer"], r["thoughts"]) for r in a.rollouts] for a in answers)
    assert one == other


def test_limit_beyond_the_data_is_refused() -> None:
    env = mnns("token")
    agent = CoT(CoTConfig())
    with pytest.raises(UsageError, match="questions"):
        evaluate(agent, agent.policy(model(env), acting=True), "x", env, limit=10**6)


def test_a_folder_in_the_place_of_an_agent_is_told_how_to_be_evaluated(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"eval AGENT ENV --checkpoint {tmp_path}"):
        agent_class(str(tmp_path))
