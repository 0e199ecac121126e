"""Options of environments: whatever is given, it works or is refused in a sentence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import pytest

from latentgym.envs import LatentVectorEnv
from latentgym.envs.mnns import MNNS
from latentgym.envs.task import Task, TaskMaker
from latentgym.episodes.spaces import Family
from latentgym.errors import LatentGymError, OptionError, UsageError
from latentgym.registry import REASONING_GYM_PREFIX, TASKS, task_maker
from latentgym.system.options.keywords import keywords

# One task of each kind, with what makes it small.
KINDS: dict[str, dict[str, Any]] = {
    "MNNS": {},
    "ProsQA": {"size": 20},
    "GSM8K": {"source": "sample"},
    "GSM8KAug": {"source": "generated", "size": 20},
    "NQ": {"source": "sample", "engine": "bm25s"},
    "MovieLens": {"source": "sample"},
    "RG_gcd": {"size": 20},
}
BAD: tuple[Any, ...] = (-1, 0, float("nan"), float("inf"), 1e9, 10**30, "text", True, [], {}, [[]])


def options_of(task: str) -> list[str]:
    maker = task_maker(task)
    assert isinstance(maker, TaskMaker)
    return sorted(maker.keywords(task, False).keys() | keywords(LatentVectorEnv).keys())


# Anything may be a retriever.
@pytest.mark.parametrize(
    ("task", "name"), [(t, name) for t in KINDS for name in options_of(t) if name != "index"]
)
def test_bad_values_are_refused_in_a_sentence_or_work(task: str, name: str) -> None:
    refused = []
    for value in BAD:
        try:
            gym.make_vec(f"latent/{task}-continuous", **{**KINDS[task], name: value}).reset(seed=0)
        except LatentGymError as error:
            refused.append(str(error))
    assert refused
    assert all(len(sentence) < 600 and sentence[-1] in ".?" for sentence in refused)


def test_every_option_says_what_it_is() -> None:
    for task in KINDS:
        maker = task_maker(task)
        assert isinstance(maker, TaskMaker)
        for words in (False, True):
            for name, keyword in maker.keywords(task, words).items():
                assert keyword.option.about, f"{name} of {task} has no Option"


def test_every_task_of_ours_knows_its_options() -> None:
    for task in TASKS:
        if not task.startswith(REASONING_GYM_PREFIX):
            assert isinstance(task_maker(task), TaskMaker)


@pytest.mark.parametrize("make", [gym.make, gym.make_vec])
@pytest.mark.parametrize("task", KINDS)
def test_unknown_arguments_are_type_errors(task: str, make: Any) -> None:
    with pytest.raises(TypeError, match=f"latent/{task}-token got an unexpected .*'frameskip'"):
        make(f"latent/{task}-token", **KINDS[task], frameskip=4)


@pytest.mark.filterwarnings("ignore:.*render_mode")
@pytest.mark.parametrize("make", [gym.make, gym.make_vec])
def test_unknown_render_modes_are_type_errors(make: Any) -> None:
    with pytest.raises(TypeError, match="no render mode 'rgb_array'; choose ansi"):
        make("latent/MNNS-token", render_mode="rgb_array")


@pytest.mark.parametrize(("make", "several"), [(gym.make, False), (gym.make_vec, True)])
def test_messages_name_the_arguments_that_are_taken(make: Any, several: bool) -> None:
    for model in (None, "tiny"):
        with pytest.raises(OptionError) as error:
            make("latent/MNNS-token", model=model, frameskip=4)
        told = str(error.value).partition(" was raised")[0]
        assert ("autoreset_mode" in told) == ("max_episode_steps" in told) == several
        assert "render_mode" in told and "split_seed" in told


def test_arguments_for_several_rows_are_not_for_one() -> None:
    with pytest.raises(OptionError, match=r"'autoreset_mode'; it is for gymnasium\.make_vec"):
        gym.make("latent/MNNS-token", autoreset_mode="Disabled")


def test_an_option_of_the_same_task_in_words_says_so() -> None:
    with pytest.raises(OptionError, match="it has that one with the model= of a language model"):
        gym.make("latent/MNNS-token", format="hashes")


def test_a_task_of_somebody_elses_refuses_unknown_arguments_too(
    registered: Callable[..., Any],
) -> None:
    def make(name: str, family: Family, tokenizer: None, options: dict[str, Any]) -> Task:
        return MNNS(family, **options)

    with registered("Plain", make):
        gym.make("latent/Plain-token", m=3)
        with pytest.raises(OptionError, match=r"latent/Plain-token does not take .*'colour'"):
            gym.make("latent/Plain-token", colour=1)


@pytest.mark.parametrize("config", [{"colour": 1}, {"min_numbers": -1}, {"min_numbers": "two"}])
def test_settings_that_a_generator_of_theirs_does_not_take(config: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="mend config"):
        gym.make("latent/RG_gcd-token", config=config)


@pytest.mark.parametrize("make", [gym.make, gym.make_vec])
def test_a_specification_says_how_long_an_episode_may_be(make: Any) -> None:
    env = make("latent/GSM8K-token", source="sample", think=7, answer=5)
    assert env.spec.max_episode_steps == env.unwrapped.spec.max_episode_steps == 12
    again = make(env.spec)
    assert again.spec.max_episode_steps == 12
    assert gym.spec("latent/GSM8K-token").max_episode_steps is None  # it depends on the options


def test_a_row_of_several_can_be_made_again_alone() -> None:
    rows = gym.make_vec("latent/MNNS-token", num_envs=2, m=3, autoreset_mode="SameStep")
    spec = rows.get_attr("spec")[0]
    assert spec.kwargs == {"task": "MNNS", "family": "token", "m": 3}
    assert gym.make(spec).unwrapped.protocol == rows.unwrapped.protocol
    assert rows.spec.kwargs["num_envs"] == 2 and gym.make_vec(rows.spec).num_envs == 2


def test_gymnasiums_own_time_limit_cuts_an_episode_off_ungraded() -> None:
    env = gym.make("latent/MNNS-token", max_episode_steps=2)
    env.reset(seed=0)
    assert env.step(5)[2:4] == (False, False)
    *_, terminated, truncated, info = env.step(5)
    assert (terminated, truncated) == (False, True) and "score" not in info


def test_a_bound_below_the_budgets_is_refused() -> None:
    gym.make_vec("latent/MNNS-token", max_episode_steps=4)
    with pytest.raises(UsageError, match=r"may take 4 steps.*not max_episode_steps \(3"):
        gym.make_vec("latent/MNNS-token", max_episode_steps=3)
