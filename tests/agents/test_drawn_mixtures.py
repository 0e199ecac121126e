"""Multiplex, SofT-GRPO, Soft Tokens and TARPO as agents: settings, training, what they answer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import latentgym
from latentgym.agents.base import agent_class, preset
from latentgym.agents.soft_tokens import SoftTokens, SoftTokensConfig
from latentgym.heads import (
    GumbelHead,
    MixtureHead,
    MultiplexHead,
    NoisyMixtureHead,
    Readout,
    RoutedHead,
    TokenHead,
)
from latentgym.heads.rng import CounterRNG
from latentgym.lm import load_model
from latentgym.registry import make_vector_env
from latentgym.rollout import Engine, Policy, StepKind, collect
from latentgym.training import GRPOConfig

AGENTS = {"multiplex": "continuous", "soft-grpo": "continuous"}
AGENTS |= {"soft-tokens": "continuous", "tarpo": "hybrid"}
MODEL = "tiny:llama:1x2x16"
SMALL: dict[str, Any] = {"model": MODEL, "steps": 2, "eval_limit": 8, "log_every": 1}
SETTINGS = {"grpo.prompts": 4, "grpo.group-size": 4}


def policy(name: str, *, acting: bool, **settings: Any) -> Policy:
    env = make_vector_env(f"latent/MNNS-{AGENTS[name]}", 1)
    lm = load_model(MODEL, tokenizer=env.unwrapped.task.tokenizer)
    cls = agent_class(name)
    return cls(replace(cls.config_class(), **settings)).policy(lm, acting=acting)


def parity(completions: list[str], completion_ids: list[list[int]], **columns: Any) -> list[float]:
    """Something that episodes of an untrained model differ in."""
    return [float(sum(ids) % 2) for ids in completion_ids]


@pytest.mark.parametrize("name", AGENTS)
def test_it_trains_is_loaded_and_answers_as_it_did(name: str, tmp_path: Path) -> None:
    env = f"latent/MNNS-{AGENTS[name]}"
    out = tmp_path / "run"
    given = {"preset": "tiny", "settings": SETTINGS, "rewards": [parity], "out": out}
    run = latentgym.train(name, env, **given, **SMALL)
    assert run.metrics["train/grad_norm"] > 0
    # On-policy with one update: the first ratios are 1.
    assert run.metrics["train/ratio"] == pytest.approx(1.0, abs=1e-4)
    assert run.metrics["train/ratio_deviation"] < 1e-3
    again = latentgym.evaluate(out, limit=8)
    assert run.result is not None and again.result.accuracy == run.result.accuracy


@pytest.mark.parametrize(
    ("name", "lr", "grpo"),
    [
        ("multiplex", 1e-6, {"prompts": 128, "group_size": 8, "kl": 0.0}),
        ("soft-grpo", 1e-6, {"prompts": 64, "group_size": 8, "kl": 0.001}),
        ("soft-tokens", 1e-6, {"advantage": "rloo", "kl": 0.0}),
        ("tarpo", 5e-6, {"group_size": 4, "kl": 0.005, "clip_low": 0.1, "mean": "sequence"}),
    ],
)
def test_the_defaults_are_the_papers(name: str, lr: float, grpo: dict[str, Any]) -> None:
    recipe = agent_class(name)(preset(agent_class(name), "paper")).recipe()
    assert recipe.optimisation.lr == lr and isinstance(recipe.stage, GRPOConfig)
    assert {key: getattr(recipe.stage, key) for key in grpo} == grpo


def test_settings_reach_the_heads() -> None:
    multiplex = policy("multiplex", acting=False, k=4, merge="probability").head
    assert isinstance(multiplex, MultiplexHead)
    assert (multiplex.k, multiplex.merge) == (4, "probability")
    gumbel = policy("soft-grpo", acting=False, tau=0.3, noise="exact", density="sum").head
    assert isinstance(gumbel, GumbelHead)
    assert (gumbel.k, gumbel.tau, gumbel.noise, gumbel.density) == (5, 0.3, "exact", "sum")
    assert isinstance(policy("soft-grpo", acting=True, thoughts="mixture").head, MixtureHead)
    router = policy("tarpo", acting=False, soft_share=0.1, official_weights=True).head
    assert isinstance(router, RoutedHead)
    assert (router.k, router.part_weights, router.normalised) == (10, (1.0, 0.1), False)
    assert float(router.router.bias.detach().softmax(-1)[1]) == pytest.approx(0.1)
    rates = [group["lr"] for group in policy("tarpo", acting=False).parameter_groups(1.0)]
    assert set(rates) == {1.0, 1e-4}


def test_the_plain_mixture_is_of_the_tokens_that_have_noise() -> None:
    """The nucleus is of the k likeliest, whose probability alone counts."""
    p = torch.tensor([[0.4, 0.22, 0.1, 0.05, 0.03, *[0.02] * 10]])
    read = Readout(p.log(), torch.zeros(1, 3), torch.zeros(p.shape[1], 3))
    zero = np.zeros(1, dtype=np.int64)
    noisy, plain = (
        policy("soft-grpo", acting=acting, thoughts="mixture").head for acting in (False, True)
    )
    perturbed = noisy.sample(read, CounterRNG.at(0, zero, zero, zero))["perturbed"]
    weights = plain.sample(read, CounterRNG.at(0, zero, zero, zero))["weights"]
    assert torch.equal(weights > 0, perturbed.isfinite())
    assert int((weights > 0).sum()) == 4


def test_hard_inference_reads_the_likeliest_tokens() -> None:
    """Step for step what a greedy chain of tokens reads."""
    env = make_vector_env("latent/MNNS-continuous", 6)
    lm = load_model(MODEL, tokenizer=env.unwrapped.task.tokenizer)
    hard = SoftTokens(SoftTokensConfig(thoughts="hard")).policy(lm, acting=True)
    assert isinstance(hard.head, NoisyMixtureHead) and hard.head.deterministic
    found = collect(Engine(hard), env, np.arange(6), seed=0).rollouts
    greedy = Policy(lm, TokenHead(0.0))
    expected = collect(Engine(greedy), env, np.arange(6), seed=0).rollouts
    assert np.array_equal(found.token_NT, expected.token_NT)
    assert (found.kind_NT == StepKind.THOUGHT).any()


def test_soft_tokens_answers_without_the_noise_that_it_learnt_with() -> None:
    env = make_vector_env("latent/MNNS-continuous", 6)
    lm = load_model(MODEL, tokenizer=env.unwrapped.task.tokenizer)
    agent = SoftTokens(SoftTokensConfig())
    learner = agent.policy(lm, acting=False)
    collect(Engine(learner), env, np.arange(6), seed=0)  # measures its noise
    found, expected = (
        collect(Engine(policy), env, np.arange(6), seed=0).rollouts
        for policy in (agent.acting(learner), agent.policy(lm, acting=True))
    )
    assert torch.equal(found.actions["latent"], expected.actions["latent"])


def test_controls_stand_for_its_mixtures(tmp_path: Path) -> None:
    out = tmp_path / "run"
    options = {"preset": "tiny", "settings": {**SETTINGS, "soft_share": 0.6}, "out": out}
    latentgym.train("tarpo", "latent/MNNS-hybrid", **options, **SMALL)
    plain = latentgym.evaluate(out, limit=8)
    for control in ("zero", "word"):
        assert latentgym.evaluate(out, limit=8, control=control).result.control == control
    assert plain.result.control is None
    assert torch.tensor([r["n_thoughts"] for r in plain.rollouts]).float().mean() > 0
