"""Wrappers around an environment count in training and evaluation, or are refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from gymnasium.vector import VectorRewardWrapper, VectorWrapper

from latentgym.agents.cot import CoT, CoTConfig
from latentgym.errors import UsageError
from latentgym.evaluation.evaluate import evaluate
from latentgym.heads import GatedHead, TokenHead
from latentgym.lm import load_model
from latentgym.registry import make_vector_env
from latentgym.rollout import Policy
from latentgym.training import GRPO, GRPOConfig, Supervised, SupervisedConfig
from latentgym.training.pathwise import Pathwise, PathwiseConfig


class Paid(VectorRewardWrapper[Any, Any, Any]):
    """So much for every step."""

    def __init__(self, env: Any, wage: float, by_row: float = 0.0) -> None:
        super().__init__(env)
        self.wage_N = wage + by_row * np.arange(env.num_envs)

    def rewards(self, rewards: Any) -> Any:
        return self.wage_N


def tiny(env: Any) -> Any:
    return load_model("tiny:gpt2:1x1x16", tokenizer=env.unwrapped.task.tokenizer, dtype="float32")


def grpo(env: Any, **config: Any) -> dict[str, float]:
    policy = Policy(tiny(env), TokenHead())
    stage = GRPO(policy, env, GRPOConfig(prompts=2, group_size=2, **config), seed=1)
    return stage.step(0, lambda losses: float(sum(loss.detach() for loss in losses)))


def test_a_policy_gradient_follows_the_rewards_of_wrappers() -> None:
    env = make_vector_env("latent/MNNS-token", 4)
    steps = 4
    same = grpo(Paid(env, 7.0))
    assert same["reward/score"] == 7 * steps and same["train/groups_without_signal"] == 1
    apart = grpo(Paid(env, 7.0, by_row=1.0))
    assert apart["reward/score"] == (7 + 1.5) * steps
    assert apart["train/groups_without_signal"] == 0
    assert apart["reward/correct"] == grpo(env)["reward/correct"]  # the grader's, as it was


def test_an_evaluation_tells_the_return_beside_the_accuracy() -> None:
    env = make_vector_env("latent/MNNS-token", 4, split="test")
    policy, agent = Policy(tiny(env), TokenHead()), CoT(CoTConfig())
    plain = evaluate(agent, policy, "latent/MNNS-token", env, limit=6)
    paid = evaluate(agent, policy, "latent/MNNS-token", Paid(env, 7.0), limit=6)
    assert "return" not in plain.result.metrics
    assert paid.result.metrics.pop("return") == 28
    assert paid.result.accuracy == plain.result.accuracy
    assert paid.result.metrics == plain.result.metrics
    assert paid.rollouts == plain.rollouts


def test_a_ranking_is_answered_through_wrappers_too() -> None:
    env_id, options = "latent/MovieLens-token", {"source": "generated", "items": 30}
    env = make_vector_env(env_id, 4, split="test", **options)
    policy, agent = Policy(tiny(env), TokenHead()), CoT(CoTConfig())
    plain = evaluate(agent, policy, env_id, env, limit=6)
    paid = evaluate(agent, policy, env_id, Paid(env, 1.0), limit=6)
    answers = [rollout["answer"] for rollout in plain.rollouts]
    assert [rollout["answer"] for rollout in paid.rollouts] == answers
    assert paid.result.metrics["return"] == np.mean([r["n_tokens"] for r in paid.rollouts])


@pytest.mark.parametrize("stage", ["demonstrations", "perplexity", "pathwise"])
def test_stages_that_never_step_refuse_wrappers(stage: str) -> None:
    env = Paid(make_vector_env("latent/MovieLens-hybrid", 4, source="sample"), 7.0)
    policy = Policy(tiny(env), GatedHead(16, TokenHead()))

    def run() -> None:
        if stage == "demonstrations":
            Supervised(policy, env, SupervisedConfig(2))
        elif stage == "pathwise":
            Pathwise(policy, env, PathwiseConfig())
        else:
            config = GRPOConfig(prompts=2, group_size=2, reward="perplexity")
            GRPO(policy, env, config).step(0, lambda losses: 0.0)

    with pytest.raises(UsageError, match=r"never steps its environment.*give it env\.unwrapped"):
        run()


class Told(VectorWrapper[Any, Any, Any, Any]):
    """Infos are what a function makes of them."""

    def __init__(self, env: Any, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        super().__init__(env)
        self.change = change

    def step(self, actions: Any) -> Any:
        *rest, info = super().step(actions)
        return *rest, self.change(info)


@pytest.mark.parametrize(
    "change",
    [
        lambda info: {**info, "score": info["score"] * 0 + 5.0} if "score" in info else info,
        lambda _: {},
    ],
    ids=["another score", "nothing"],
)
def test_accuracy_is_the_graders_whatever_wrappers_tell(change: Any) -> None:
    env = make_vector_env("latent/MNNS-token", 4, split="test")
    policy, agent = Policy(tiny(env), TokenHead()), CoT(CoTConfig())
    plain = evaluate(agent, policy, "latent/MNNS-token", env, limit=6).result
    told = evaluate(agent, policy, "latent/MNNS-token", Told(env, change), limit=6).result
    assert (told.accuracy, told.accuracy_ci95) == (plain.accuracy, plain.accuracy_ci95)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (3.0, r"'extra' of the wrappers <Told.*> is 3.0, with no entry for row 0"),
        (np.float64(3.0), "'extra' of"),
        (np.array([]), "'extra' of"),
        ("text", "is 'text', with no entry for row 0"),
        (None, "'extra' of"),
        ({"inner": 1}, "'inner' of"),
    ],
)
def test_an_info_without_rows_is_told_by_name(value: Any, says: str) -> None:
    env = make_vector_env("latent/MNNS-token", 4, split="test")
    told = Told(env, lambda info: {**info, "extra": value})
    with pytest.raises(UsageError, match=says):
        evaluate(CoT(CoTConfig()), Policy(tiny(env), TokenHead()), "latent/MNNS-token", told)


@pytest.mark.parametrize("wage", [float("nan"), float("inf"), np.ones(3)], ids=str)
def test_a_reward_that_is_no_number_of_each_row_stops_training_and_evaluation(wage: Any) -> None:
    env = make_vector_env("latent/MNNS-token", 4)
    paid = Paid(env, 0.0)
    paid.wage_N = np.full(4, wage) if np.isscalar(wage) else wage
    with pytest.raises(UsageError, match="one finite number for each row"):
        grpo(paid)
    with pytest.raises(UsageError, match="one finite number for each row"):
        evaluate(
            CoT(CoTConfig()), Policy(tiny(env), TokenHead()), "latent/MNNS-token", paid, limit=4
        )
