"""The kit finds what is wrong: each check fails on an environment or task that breaks it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from latentgym.data import Question
from latentgym.envs import Demonstration, LatentVectorEnv, Task
from latentgym.envs.mnns import MNNS
from latentgym.episodes.spaces import family
from latentgym.errors import UsageError
from latentgym.rewards import Grade
from latentgym.testing import EnvConformance, check_task, check_vector_env

FLAGS = ("terminated", "truncated")


class Sound(LatentVectorEnv):
    """The environment that the others break."""

    def __init__(self, num_envs: int) -> None:
        super().__init__("MNNS", "token", num_envs, limit=50, autoreset_mode="Disabled")


class OtherRows(Sound):
    def __init__(self, num_envs: int) -> None:
        super().__init__(num_envs + 1)


class UnbatchedSpace(Sound):
    def __init__(self, num_envs: int) -> None:
        super().__init__(num_envs)
        self.action_space = self.single_action_space


class Autoreset(Sound):
    def __init__(self, num_envs: int) -> None:
        super().__init__(num_envs)
        self.metadata["autoreset_mode"] = AutoresetMode.NEXT_STEP


class ReusedArrays(Sound):
    def _result(self, *args: Any) -> Any:
        observation, *rest = super()._result(*args)
        observation["prompt"] = self.episodes._prompt_NP
        return observation, *rest


class SingleReward(Sound):
    def step(self, actions: Any) -> Any:
        observation, reward, *rest = super().step(actions)
        return observation, reward.astype(np.float32), *rest


class OutsideItsSpace(Sound):
    def step(self, actions: Any) -> Any:
        observation, *rest = super().step(actions)
        observation["token"] = observation["token"] + 1000
        return observation, *rest


class NoMasks(Sound):
    def reset(self, **kwargs: Any) -> Any:
        observation, info = super().reset(**kwargs)
        return observation, {k: v for k, v in info.items() if not k.startswith("_")}


class Unseeded(Sound):
    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        return super().reset(options=options)


class SameSeedForAll(Sound):
    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        if isinstance(seed, int):
            seed = [seed] * self.num_envs
        return super().reset(seed=seed, options=options)


class NeverEnds(Sound):
    def step(self, actions: Any) -> Any:
        if self.episodes.state.done.all():
            self.reset()
        observation, reward, *_, info = super().step(actions)
        return observation, reward, *(np.zeros(self.num_envs, dtype=bool) for _ in range(2)), info


class ResetsEverything(Sound):
    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        return super().reset(seed=seed)


class EatsOptions(Sound):
    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        result = super().reset(seed=seed, options=options)
        (options or {}).clear()
        return result


class EndsOnAndOn(Sound):
    def step(self, actions: Any) -> Any:
        observation, reward, *_, info = super().step(actions)
        return observation, reward, *(getattr(self.episodes.state, x).copy() for x in FLAGS), info


class PaysTheDead(Sound):
    def step(self, actions: Any) -> Any:
        done = self.episodes.state.done.copy()
        observation, reward, *rest = super().step(actions)
        return observation, reward + done, *rest


def test_a_sound_environment_passes() -> None:
    check_vector_env(Sound)


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        (OtherRows, "num_envs is 4, not 3"),
        (UnbatchedSpace, "action_space is not single_action_space, batched"),
        (Autoreset, "not DISABLED"),
        (ReusedArrays, "return copies"),
        (SingleReward, "reward is no .*float64"),
        (OutsideItsSpace, "outside its space"),
        (NoMasks, "has no mask"),
        (Unseeded, "unequal episodes"),
        (SameSeedForAll, "list of seed . row differ"),
        (NeverEnds, "one episode should end"),
        (EndsOnAndOn, "told so once more"),
        (ResetsEverything, "rows it does not name"),
        (EatsOptions, "changes the options"),
        (PaysTheDead, "rewards rows that are over"),
    ],
)
def test_a_broken_environment_is_found(
    broken: type[Sound], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("latentgym.testing.checks._MOST_STEPS", 50)
    with pytest.raises(AssertionError, match=sentence):
        check_vector_env(broken)


def task() -> Task:
    env = gym.make("latent/MNNS-continuous", limit=50).unwrapped
    found: Task = env.task  # type: ignore[attr-defined]
    return found


def shown(change: Callable[[Demonstration], Demonstration]) -> Callable[[Task], None]:
    def apply(broken: Task) -> None:
        right = broken.demonstration
        broken.demonstration = lambda index: change(right(index))  # type: ignore[method-assign]

    return apply


def setter(**attributes: Any) -> Callable[[Task], None]:
    def apply(broken: Task) -> None:
        for name, value in attributes.items():
            setattr(broken, name, value)

    return apply


RIGHT = Grade(1.0, "S1", "ok", {"correct": 1.0})
WRONG = Grade(0.0, "S1", "ok", {"correct": 0.0})


@pytest.mark.parametrize(
    ("break_it", "sentence"),
    [
        (setter(prompt=lambda index: []), "0 tokens"),
        (setter(prompt_budget=3), "tokens, but a budget of 3"),
        (setter(prompt=lambda index: [89]), "outside the vocabulary"),
        (setter(grade=lambda *_: WRONG), "the gold completion is graded"),
        (setter(grade=lambda *_: RIGHT), "the completion '' is graded"),
        (setter(question=lambda index: Question("D1", "S36")), "the gold completion is graded"),
        (shown(lambda d: Demonstration(d.ids_TS, d.weights_TS / 2, d.thoughts)), "add up to one"),
        (shown(lambda d: Demonstration(d.ids_TS, d.weights_TS[:1], d.thoughts)), "differ in shape"),
        (shown(lambda d: Demonstration(d.ids_TS + 89, d.weights_TS, d.thoughts)), "unknown ids"),
        (shown(lambda d: Demonstration(d.ids_TS, d.weights_TS, 2)), "exact number of thoughts"),
        (shown(lambda d: replace(d, steps=(2, 2))), "more thoughts than there are"),
        (shown(lambda d: Demonstration(d.ids_TS[:3], d.weights_TS[:3], 3)), "and an answer"),
    ],
)
def test_a_broken_task_is_found(break_it: Callable[[Task], None], sentence: str) -> None:
    broken = task()
    check_task(broken)
    break_it(broken)
    with pytest.raises(AssertionError, match=sentence):
        check_task(broken)


class Lacking(MNNS):
    """Lacks an attribute as soon as it is made."""

    gone = ""

    def __getattribute__(self, name: str) -> Any:
        if name == object.__getattribute__(self, "gone"):
            raise AttributeError(name)
        return super().__getattribute__(name)


class NotWhole(Task):
    """Has none of the methods."""


def lacking(gone: str, **attributes: Any) -> Callable[..., Task]:
    def make(name: str, family: Any, tokenizer: Any, options: Any) -> Task:
        made = Lacking(family, limit=20, **options)
        made.gone = gone
        vars(made).update(attributes)
        return made

    return make


ATTRIBUTES = ("family", "tokenizer", "name", "split", "source", "dataset_hash", "licence")


@pytest.mark.parametrize("gone", ATTRIBUTES)
def test_what_a_task_lacks_is_told(gone: str, registered: Callable[..., Any]) -> None:
    with pytest.raises(AssertionError, match=f"^Lacking lacks {gone}; .*envs.Task"):
        check_task(lacking(gone)("Lacking", family("token"), None, {}))

    class Kit(EnvConformance):
        env_id = "latent/Lacking-token"

    checks = [getattr(Kit(), name) for name in dir(Kit) if name.startswith("test_")]
    with registered("Lacking", lacking(gone)):
        assert len(checks) >= 9
        for check in checks:
            with pytest.raises(UsageError, match=f"task of latent/Lacking-token lacks {gone}; set"):
                check()


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lacking("split", licence=None), "lacks split, licence; set them"),
        (lacking("", dataset_hash=7), "lacks dataset_hash; set them"),
        (lambda *_: NotWhole(*_[1:3]), "is not whole: .*abstract.*question.*write what is missing"),
        (lambda *_: "MNNS", "gives 'MNNS'; let it give a latentgym.envs.Task"),
    ],
)
def test_what_is_no_whole_task_is_told(
    make: Callable[..., Any], sentence: str, registered: Callable[..., Any]
) -> None:
    with registered("Lacking", make), pytest.raises(UsageError, match=sentence):
        gym.make("latent/Lacking-token")


def test_a_demonstration_that_its_own_rules_cut_short_is_found() -> None:
    env: Any = gym.make("latent/GSM8K-token", source="sample").unwrapped
    right = env.task.gold_completion
    env.task.question = lambda index: Question("1 + 1?", "1\n2")  # ends at the line break
    env.task.gold_completion = right
    with pytest.raises(AssertionError, match="the demonstration ends after"):
        check_task(env.task)


def test_conformance_finds_a_vector_environment_that_differs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Kit(EnvConformance):
        env_id = "latent/MNNS-token"

        def make(self, **more: Any) -> Any:
            return super().make(think=0, **more)

    for check in (
        Kit().test_vector_equals_stacked_singles,
        Kit().test_segments_equal_steps,
    ):
        with pytest.raises((AssertionError, gym.error.ResetNeeded)):
            check()
