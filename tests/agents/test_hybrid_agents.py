"""HRPO and CoLaR as agents: what they think with, and what their settings do."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from latentgym.agents.colar_grpo import CoLaR, CoLaRConfig
from latentgym.agents.hrpo import HRPO, HRPOConfig
from latentgym.agents.run import Run
from latentgym.errors import UsageError
from latentgym.evaluation.evaluate import evaluate
from latentgym.heads import GatedHead, GaussianHead
from latentgym.lm import load_model
from latentgym.registry import make_vector_env
from latentgym.rollout import Engine, Policy, StepKind, collect, replay
from latentgym.training import Compression, GRPOConfig

CHAINS = {"source": "generated", "split": "test", "think": 6}


def chains(num_envs: int = 8, **options: Any) -> Any:
    return make_vector_env("latent/GSM8KAug-hybrid", num_envs, **{**CHAINS, **options})


def model(env: Any) -> Any:
    return load_model("tiny:qwen2:1x2x16", tokenizer=env.unwrapped.task.tokenizer)


def test_hrpo_samples_where_it_learns_and_is_greedy_where_it_answers() -> None:
    lm = model(chains())
    learner = HRPO(HRPOConfig()).policy(lm, acting=False)
    assert isinstance(learner.head, GatedHead)
    assert learner.head.token_head is learner.answer_head and learner.answer_head.temperature == 0.5
    actor = HRPO(HRPOConfig()).acting(learner)
    assert isinstance(actor.head, GatedHead)
    assert actor.answer_head.temperature == actor.head.token_head.temperature == 0
    assert actor.head.mixture.temperature == 0.5 and actor.head.mixture.top_k == 50
    for name, value in learner.head.state_dict().items():
        assert torch.equal(actor.head.state_dict()[name], value)


def test_hrpo_has_the_papers_settings() -> None:
    recipe = HRPO(HRPOConfig()).recipe()
    o, c = recipe.optimisation, recipe.stage
    assert isinstance(c, GRPOConfig)
    assert (o.lr, o.weight_decay, o.beta1, o.beta2, o.max_grad_norm) == (5e-6, 0.1, 0.9, 0.99, 0.1)
    assert (o.schedule, o.warmup) == ("cosine", 0.1)
    assert (c.kl, c.kl_estimator, c.mean, c.updates, c.mini_batches) == (
        *(0.005, "k3", "sequence", 1, 1),
    )
    groups = HRPO(HRPOConfig()).policy(model(chains()), acting=False).parameter_groups(o.lr)
    # Matrices, then vectors, which do not decay: of the model and of the gate, and Lambda.
    assert [g["lr"] for g in groups] == [5e-6, 5e-6, 1e-4, 1e-4, 1e-3]
    assert [g.get("weight_decay") for g in groups] == [None, 0, None, 0, 0]


def scored(config: HRPOConfig, rollouts: Any, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    policy = HRPO(config).policy(model(chains()), acting=False)
    with torch.no_grad():
        return replay(policy, rollouts)


def test_the_authors_behaviour_is_an_option() -> None:
    """Scores at temperature 1, and with padding read as tokens, differ; unpadded rows do not."""
    config = HRPOConfig(temperature=0.5, top_k=None)
    torch.manual_seed(0)
    policy = HRPO(config).policy(model(chains()), acting=False)
    rollouts = collect(Engine(policy), chains(), np.arange(8), seed=0).rollouts
    plain = scored(config, rollouts)
    hot = scored(replace(config, official_temperature=True), rollouts)
    padded = scored(replace(config, official_padding=True), rollouts)
    assert not torch.allclose(plain.logp_NT, hot.logp_NT)
    longest = np.array([len(rollouts.prompts[i]) for i in rollouts.prompt_N])
    whole = torch.from_numpy(longest == longest.max())
    assert 0 < int(whole.sum()) < len(whole)
    assert_close(padded.logp_NT[whole], plain.logp_NT[whole])
    assert not torch.allclose(padded.logp_NT[~whole], plain.logp_NT[~whole])


def test_latents_end_with_the_token_that_completes_a_split_mark() -> None:
    env = make_vector_env("latent/GSM8K-hybrid", 1, source="sample", think=8, answer=4)
    tokenizer = env.unwrapped.task.tokenizer
    lm = load_model("tiny:llama:1x2x16", tokenizer=tokenizer)

    class Scripted(GatedHead):
        """Says "a#" and then the mark, byte by byte."""

        def sample(self, read: Any, rng: Any) -> Any:
            action = super().sample(read, rng)
            script = tokenizer.encode("a#b####")
            token = torch.full_like(action["token"], script[self.said])
            self.said += 1
            return {**action, "token": token}

    policy = HRPO(HRPOConfig(top_k=5)).policy(lm, acting=False)
    head = Scripted(16, policy.answer_head)
    head.said = 0
    rollouts = Engine(Policy(lm, head, policy.answer_head)).rollout(
        [env.unwrapped.prompt(0)], env.unwrapped.protocol, seed=0
    )
    kinds = rollouts.kind_NT[0][: int(rollouts.length_N[0])].tolist()
    assert kinds[:7] == [StepKind.THOUGHT] * 6 + [StepKind.TOKEN]
    assert set(kinds[7:]) == {StepKind.TOKEN}


@pytest.mark.parametrize("speed", [1, 2, 7])
def test_colar_asks_for_its_speed(speed: int) -> None:
    env = chains()
    policy = CoLaR(CoLaRConfig(speed=speed)).policy(model(env), acting=True)
    tokenizer = env.unwrapped.task.tokenizer
    assert tokenizer.decode(policy.prompt_suffix) == f"( Thinking speed : {speed} )"
    episodes = collect(Engine(policy), env, np.arange(4), seed=0)
    assert all(
        p[-len(policy.prompt_suffix) :] == list(policy.prompt_suffix)
        for p in episodes.rollouts.prompts
    )


@pytest.mark.parametrize(
    "prompt_suffix", ["( Thinking speed : {d} )", "{c", "{c.x}", "{c:>99999}", "faster"]
)
def test_a_prompt_suffix_that_cannot_be_written_is_refused(prompt_suffix: str) -> None:
    lm = model(chains())
    with pytest.raises(UsageError, match="no tokens for the prompt suffix"):
        CoLaR(CoLaRConfig(prompt_suffix=prompt_suffix)).policy(lm, acting=True)
    assert CoLaR(CoLaRConfig(prompt_suffix="")).policy(lm, acting=True).prompt_suffix == ()


def test_colar_learns_at_temperature_one_and_answers_as_it_is_told() -> None:
    config = CoLaRConfig(temperature=0.0, stop_temperature=0.5, answer_temperature=0.3)
    lm = model(chains())
    learner, actor = (CoLaR(config).policy(lm, acting=acting) for acting in (False, True))
    assert isinstance(learner.head, GaussianHead) and isinstance(actor.head, GaussianHead)
    assert (learner.head.temperature, learner.head.stop.temperature) == (1, 1)
    assert (learner.answer_head.temperature, learner.answer_head.top_p) == (1, 1)
    assert actor.head.deterministic and actor.head.stop.temperature == 0.5
    assert (actor.answer_head.temperature, actor.answer_head.top_p) == (0.3, 0.9)
    with pytest.raises(UsageError, match="at least 1"):
        CoLaR(CoLaRConfig(speed=0)).policy(lm, acting=True)


def test_colar_stages() -> None:
    run = Run("colar-grpo", CoLaRConfig(), "GSM8KAug-hybrid", "tiny:qwen2:1x2x16", CHAINS)
    stage = run.make_agent().recipe().stage.build(run.learner(), run.make_env, 0)
    assert isinstance(stage, Compression)
    grpo = CoLaR(CoLaRConfig(stage="grpo")).recipe().stage
    assert isinstance(grpo, GRPOConfig)
    assert (grpo.mean, grpo.kl, grpo.rows, grpo.mini_batches) == ("phase", 0, 64, 8)


@pytest.mark.parametrize(
    ("agent", "config", "told"),
    [("hrpo", HRPOConfig(), "latent/share"), ("colar-grpo", CoLaRConfig(), "latent/size")],
)
def test_results_say_what_the_latents_look_like(agent: str, config: Any, told: str) -> None:
    run = Run(agent, config, "GSM8KAug-hybrid", "tiny:qwen2:1x2x16", CHAINS)
    evaluation = evaluate(run.make_agent(), run.actor(), run.env_id, run.make_env(8), limit=12)
    assert {told, "latent/norm", "latent/kurtosis"} <= evaluation.result.metrics.keys()
    assert 0 < evaluation.result.latent_share <= 1


def test_a_heads_fresh_weights_are_a_function_of_the_seed() -> None:
    def weights(seed: int) -> torch.Tensor:
        run = Run("hrpo", HRPOConfig(), "GSM8KAug-hybrid", "tiny:qwen2:1x2x16", CHAINS, seed=seed)
        return run.learner().head.Lambda.detach()  # type: ignore[union-attr, return-value]

    torch.manual_seed(9)
    first = weights(0)
    torch.manual_seed(10)
    assert torch.equal(weights(0), first) and not torch.equal(weights(1), first)
