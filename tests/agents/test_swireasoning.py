"""SwiReasoning between its limits, and the cold stop, on whole episodes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from latentgym.agents.base import agent_class
from latentgym.errors import UsageError
from latentgym.heads import MixtureHead, TokenHead
from latentgym.lm import load_model
from latentgym.registry import make_vector_env
from latentgym.rollout import Engine, Policy, Rollouts, StepKind, collect

N = 6
CHAINS = {"source": "generated", "split": "test", "think": 12}


def chains(family: str) -> Any:
    return make_vector_env(f"latent/GSM8KAug-{family}", N, **CHAINS)


def thought(agent: str, family: str, **settings: Any) -> Rollouts:
    env, cls = chains(family), agent_class(agent)
    lm = load_model("tiny:llama:2x2x32", tokenizer=env.unwrapped.task.tokenizer)
    policy = cls(cls.config_class(**settings)).policy(lm, acting=True)
    return collect(Engine(policy), env, np.arange(N), seed=0).rollouts


def with_head(head: Any, family: str) -> Rollouts:
    env = chains(family)
    lm = load_model("tiny:llama:2x2x32", tokenizer=env.unwrapped.task.tokenizer)
    return collect(Engine(Policy(lm, head, TokenHead(0.0))), env, np.arange(N), seed=0).rollouts


def test_what_never_switches_from_words_is_a_chain_of_thought() -> None:
    found = thought("swireasoning", "hybrid", begins="explicit", rise=1e9)
    expected = with_head(TokenHead(0.0), "hybrid")
    assert np.array_equal(found.token_NT, expected.token_NT)
    assert not (found.kind_NT == StepKind.THOUGHT).any()


def test_what_never_leaves_latent_thinking_is_soft_thinking() -> None:
    found = thought("swireasoning", "hybrid", fall=1e9)
    expected = with_head(MixtureHead(), "hybrid")
    assert np.array_equal(found.token_NT, expected.token_NT)
    assert np.array_equal(found.kind_NT, expected.kind_NT)
    assert (found.kind_NT == StepKind.THOUGHT).any()


def test_in_between_it_does_both() -> None:
    found = thought("swireasoning", "hybrid", window=0, begins="explicit")
    assert {StepKind.THOUGHT, StepKind.PLAIN} <= {*found.kind_NT.flat}


def test_a_cold_stop_that_never_comes_is_soft_thinking_and_one_at_once_thinks_no_longer() -> None:
    plain = thought("soft-thinking", "continuous")
    never = thought("soft-thinking", "continuous", cold_steps=10_000)
    assert np.array_equal(plain.token_NT, never.token_NT)
    at_once = thought("soft-thinking", "continuous", cold_steps=2, cold_entropy=1e9)
    thoughts = np.isin(at_once.kind_NT, (StepKind.THOUGHT, StepKind.PLAIN)).sum(1)
    assert (thoughts <= 2).all()


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [({"marks": "no,mark"}, "symbol of this task"), ({"marks": "<think>"}, "two tokens")],
)
def test_what_cannot_be(settings: dict[str, str], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        thought("swireasoning", "hybrid", **settings)
