"""Reward sources by name, and what is wrong with a name that has none."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from types import ModuleType

import pytest

from latentgym.agents.latentseek import LatentSeekConfig
from latentgym.agents.search import (
    SOURCES,
    SelfReward,
    VerifierConfig,
    check_source,
    is_oracle,
    reward_source,
)
from latentgym.agents.search.rewards import (
    ConfidenceReward,
    ConstantReward,
    FunctionReward,
    PerfectSparseReward,
)
from latentgym.errors import UsageError
from latentgym.lm import load_model
from latentgym.registry import make_vector_env


@pytest.fixture
def own() -> Iterator[str]:
    """A module of a user's own, by its name."""
    module = ModuleType("own_reward")
    module.short = lambda info: -float(len(info["answer"]))  # type: ignore[attr-defined]
    module.number = 3  # type: ignore[attr-defined]
    sys.modules["own_reward"] = module
    yield "own_reward"
    del sys.modules["own_reward"]


def test_every_source_by_its_name(random_lm: Callable, own: str, attempt: Callable) -> None:
    lm, config = random_lm("llama"), VerifierConfig()
    kinds = (SelfReward, PerfectSparseReward, ConfidenceReward, ConstantReward)
    assert [type(reward_source(name, lm, config)) for name in SOURCES] == list(kinds)
    found = reward_source(f"{own}:short", lm, config)
    assert isinstance(found, FunctionReward)
    assert found([attempt("four")], seed=0)[0].reward == -4.0


def test_only_the_gold_answer_is_an_oracle(own: str) -> None:
    assert [name for name in (*SOURCES, f"{own}:short") if is_oracle(name)] == ["psrm"]


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("psmr", r"no reward 'psmr'; did you mean 'psrm'.*module:function"),
        ("", r"no reward ''; .*module:function"),
        (":short", r"no reward ':short'"),
        ("own_reward:", r"no reward 'own_reward:'"),
        ("..own_reward:short", r"no reward '\.\.own_reward:short'"),
    ],
)
def test_an_unknown_source_is_refused_with_the_settings(name: str, sentence: str) -> None:
    for act in (check_source, lambda reward: LatentSeekConfig(reward=reward)):
        with pytest.raises(UsageError, match=sentence):
            act(name)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("no_such_module:f", "cannot import .*No module named.*PYTHONPATH"),
        ("own_reward:long", "cannot import .*'long'"),
        ("own_reward:number", "'own_reward:number' is no function"),
    ],
)
def test_a_function_that_cannot_be_had_is_refused(
    name: str, sentence: str, random_lm: Callable, own: str
) -> None:
    check_source(name)  # nothing is imported yet
    with pytest.raises(UsageError, match=sentence):
        reward_source(name, random_lm("llama"), VerifierConfig())


@pytest.mark.parametrize(
    "config",
    [
        VerifierConfig(calculation=-1.0),
        VerifierConfig(calculation=0, correctness=0, completeness=0, understanding=0),
        VerifierConfig(tokens=-1),
    ],
)
def test_settings_of_verifiers_that_make_no_sense(
    config: VerifierConfig, random_lm: Callable
) -> None:
    with pytest.raises(UsageError, match="cannot be negative, and one weight must be above 0"):
        reward_source("self", random_lm("llama"), config)


def test_a_model_without_words_cannot_verify_itself() -> None:
    tokenizer = make_vector_env("latent/MNNS-token", 1).unwrapped.task.tokenizer
    lm = load_model("tiny:gpt2:1x1x16", tokenizer=tokenizer)
    with pytest.raises(UsageError, match="psrm, confidence or constant"):
        reward_source("self", lm, VerifierConfig())
    assert isinstance(reward_source("psrm", lm, VerifierConfig()), PerfectSparseReward)
