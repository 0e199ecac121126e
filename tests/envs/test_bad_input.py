"""Wrong input ends with a sentence that says what to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from latentgym.data import DataError
from latentgym.envs import LatentEnv
from latentgym.errors import ActionError, PromptTooLongError, UsageError
from latentgym.registry import make_vector_env


def make(env_id: str = "MNNS-token", **options: Any) -> Any:
    return gym.make(f"latent/{env_id}", **options).unwrapped


def vector(n: int = 4, env_id: str = "MNNS-token") -> Any:
    return make_vector_env(f"latent/{env_id}", n)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: make_vector_env("latent/GSM9K-token", 1), "did you mean 'latent/GSM8K-token'"),
        (lambda: gym.make("latentgym:latent/MNNS-token", task="MMNS"), "did you mean 'MNNS'"),
        (lambda: make(family="tokens"), "did you mean 'token'"),
        (lambda: LatentEnv("MNNS", "token", render_mode="rgb"), "choose ansi or human"),
        (
            lambda: make(colour="red"),
            "latent/MNNS-token got an unexpected .*colour.*; its options are arrow, ",
        ),
        (lambda: make("GSM8K-token", paths=3), "latent/GSM8K-token got an unexpected .*paths"),
        (
            lambda: make("GSM8K-token", format="xml", source="sample"),
            "are boxed, hashes, json",
        ),
        (
            lambda: make("GSM8K-token", think=-1, source="sample"),
            "from 0 to 2147483647 or none",
        ),
        (lambda: make(model="tiny:bert"), "choose gpt2, llama, "),
        (lambda: make("MNNS-continuous", support=90), "choose support <= 89"),
        (lambda: make(split="valid"), "splits train and test, not 'valid'"),
        (lambda: make("ProsQA-token", split="dev"), "splits train, valid, test, not 'dev'"),
        (lambda: make("RG_gcd-token", split="dev"), "splits train and test, not 'dev'"),
        (lambda: make(m=9), "from 2 to 8, not 9"),
        (lambda: make("MNNS-token", paths=2), "be 1 for tokens"),
        (lambda: make("MNNS-hybrid", paths=2), "be 1 for tokens and hybrids"),
        (lambda: make("MNNS-continuous", paths=17), "between 1 and 2.m = 16"),
        (lambda: make(think=2), "choose think=3 or, for no chain of thought, think=0"),
        (lambda: make("ProntoQA-token", think=5), "choose think=6"),
        (lambda: make(limit=6561), "choose a limit from 1 to"),
        (lambda: make(limit=0), "a whole number from 1 to .*, not 0"),
        (lambda: make("ProsQA-token", limit=11, size=10), "choose a limit from 1 to 10"),
        (lambda: make("RG_gcd-token", limit=11, size=10), "limit of at most 10"),
        (lambda: vector(0), "num_envs of latent/MNNS-token is a whole number from 1 to .*, not 0"),
        (lambda: vector(10**400), "num_envs of latent/MNNS-token is a whole number"),
        (lambda: make("MNNS-hybrid", hidden_size=10**400), "hidden_size of latent/MNNS-hybrid is"),
        (lambda: make_vector_env("latent/MNNS-token", 2, autoreset_mode="NextStep"), "leave auto"),
    ],
)
def test_bad_arguments(call: Callable[[], Any], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        call()


def test_a_limit_beyond_the_data() -> None:
    with pytest.raises(DataError, match="choose a limit of at most"):
        make("GSM8K-token", source="sample", limit=10_000)


ODD: tuple[Any, ...] = (1.7, 2.0, "3", True, float("nan"), 10**30, {}, object())


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"index": -1}, "there is no question -1: MNNS has"),
        ({"index": [0, 1, 2, 10**6]}, "there is no question 1000000"),
        ({"index": [1, 2, 3]}, "3 question numbers for 4 rows"),
        ({"group_size": 3}, "group_size 3 does not divide the 4 rows"),
        ({"group_size": 0}, "group_size of a reset is a whole number from 1"),
        *(({"group_size": size}, "group_size of a reset is a whole number") for size in ODD),
        *(({"index": number}, "index is the number of a question, or one for") for number in ODD),
        ({"index": [[0, 1], [2, 3]]}, "index is the number of a question, or one for"),
        ({"index": [[0], [1, 2]]}, "index is the number of a question, or one for"),
        ({"index": [0, 1.5, 2, 3]}, "index is the number of a question, or one for"),
        ({"index": [True] * 4}, "index is the number of a question, or one for"),
        ({"index": 2**64 - 1}, "there is no question 18446744073709551615"),
        ("index", "reset options are a mapping of names to values, not 'index'"),
        ({1: 2, "indx": 3}, r"unknown reset options \['1', 'indx'\]"),
        ({"indx": 3}, r"unknown reset options \['indx'\]; known are index"),
        ({"reset_mask": np.ones(4)}, "must hold 4 booleans"),
        ({"reset_mask": np.ones(3, dtype=bool)}, "must hold 4 booleans"),
    ],
)
def test_bad_reset_options(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        vector().reset(options=options)


def test_numbers_of_numpy_are_numbers() -> None:
    env, other = gym.make_vec("latent/MNNS-token", num_envs=np.int64(4)), vector()
    index = np.array([3, 1], dtype=np.uint8)
    env.reset(seed=np.int64(5), options={"index": index, "group_size": np.int32(2)})
    other.reset(seed=5, options={"index": [3, 3, 1, 1]})
    assert env.unwrapped.episodes.index_N.tolist() == other.unwrapped.episodes.index_N.tolist()
    assert env.unwrapped.np_random_seed == other.unwrapped.np_random_seed
    with pytest.raises(UsageError, match="a seed is a whole number, or one for each row"):
        env.reset(seed=1.5)


def test_a_prompt_beyond_the_budget_names_its_row_and_the_remedy() -> None:
    env = make("GSM8K-token", source="sample", prompt_budget=20)
    with pytest.raises(PromptTooLongError, match=r"question 2 of GSM8K .*budget is 20.*make the"):
        env.reset(options={"index": 2})


def test_a_failed_reset_leaves_the_episodes_as_they_are() -> None:
    env = vector()
    before, _ = env.reset(seed=0)
    with pytest.raises(UsageError):
        env.reset(options={"index": 10**6})
    env.action_space.seed(0)
    after, *_ = env.step(env.action_space.sample())
    assert (after["prompt"] == before["prompt"]).all()
    assert after["thoughts_used"].tolist() == [1] * 4


@pytest.mark.parametrize(
    ("env_id", "action"),
    [
        ("MNNS-token", 89),
        ("MNNS-token", -1),
        ("MNNS-token", 1.5),
        ("MNNS-token", [1]),
        ("MNNS-token", {"token": 1}),
        ("MNNS-hybrid", 1),
        ("MNNS-hybrid", {"token": 1, "latent": np.zeros(3), "gate": np.zeros(64)}),
        ("MNNS-hybrid", {"token": 1, "latent": np.full(64, np.nan), "gate": np.zeros(64)}),
        ("MNNS-continuous", {"ids": [1, 2], "weights": [0.5, 0.5]}),
        ("MNNS-continuous", {"ids": [1] * 8, "weights": [np.nan] * 8}),
        ("MNNS-continuous", {"ids": [1] * 8, "weights": [-0.5] * 8}),
        ("MNNS-continuous", {"ids": [1] * 8}),
    ],
)
def test_bad_actions_are_refused_and_take_no_step(env_id: str, action: Any) -> None:
    env = make(env_id)
    env.reset(seed=0)
    with pytest.raises(ActionError):
        env.step(action)
    observation, *_ = env.step(env.action_space.sample())
    assert observation["thoughts_used"] == 1


def test_actions_of_the_wrong_number_of_rows() -> None:
    env = vector()
    env.reset(seed=0)
    with pytest.raises(ActionError, match=r"shape \(3,\) for 4 rows"):
        env.step(np.zeros(3, dtype=np.int64))


@pytest.mark.parametrize("tokens", [[[1], [2]], [[1], [2], [3], [4], [5]]])
def test_segments_of_the_wrong_number_of_rows(tokens: Any) -> None:
    env = vector()
    env.reset(seed=0)
    with pytest.raises(UsageError, match="segments for 4 rows"):
        env.unwrapped.step_segment(tokens)


@pytest.mark.parametrize("bad", [-1, 89])
def test_segments_with_tokens_outside_the_vocabulary(bad: int) -> None:
    env, rows = make(), vector()
    env.reset(seed=0)
    rows.reset(seed=0)
    with pytest.raises(ActionError, match=f"but {bad} does not"):
        env.step_segment([1, bad])
    with pytest.raises(ActionError, match=f"but {bad} does not"):
        rows.unwrapped.step_segment([[1], [1, bad], [], []])


def test_segments_that_go_on_behind_the_end() -> None:
    env = make()
    env.reset(seed=0)
    with pytest.raises(ActionError, match="ended after 4 of 5 actions"):
        env.step_segment([1] * 5)
    env.reset(seed=0)
    with pytest.raises(ActionError, match="at least one token"):
        env.step_segment([])


def test_stepping_before_and_after_an_episode() -> None:
    env = make()
    with pytest.raises(gym.error.ResetNeeded):
        env.step(0)
    env.reset(seed=0)
    env.step_segment([1] * 4)
    with pytest.raises(gym.error.ResetNeeded):
        env.step(0)


def test_reasoning_gym_is_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    with pytest.raises(UsageError, match=r"pip install 'latentgym\[reasoning-gym\]'"):
        make("RG_gcd-token")
