"""Rows that are over: the three modes against Gymnasium's own, and under its vector wrappers.

`EnvConformance` compares random steps of every task with `SyncVectorEnv`, mode by mode; here are
episodes of unequal length, resets in between, and what is counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import data_equivalence
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorRewardWrapper
from gymnasium.wrappers import vector as wrappers
from hypothesis import given, settings
from hypothesis import strategies as st

from latentgym.envs import LatentVectorEnv
from latentgym.errors import UsageError

ROWS = 3
FAMILIES = ("token", "hybrid", "continuous")
# In bytes, a chain may end at any step: by its mark, by end-of-sequence, by its budgets.
RAGGED = {"source": "sample", "think": 4, "answer": 3, "render_mode": "ansi"}


def ours(mode: AutoresetMode, family: str = "token", rows: int = ROWS) -> Any:
    return gym.make_vec(f"latent/GSM8K-{family}", rows, autoreset_mode=mode, **RAGGED)


def theirs(mode: AutoresetMode, family: str = "token", rows: int = ROWS) -> Any:
    make = lambda: gym.make(f"latent/GSM8K-{family}", **RAGGED)  # noqa: E731
    return SyncVectorEnv([make] * rows, autoreset_mode=mode)


def drive(env: Any, actions: list[Any], seed: int) -> Iterator[Any]:
    """Steps; rows that are over are reset where nothing else does it."""
    yield env.reset(seed=seed)
    for action in actions:
        result = env.step(action)
        yield result
        over = result[2] | result[3]
        if over.any() and env.metadata["autoreset_mode"] is AutoresetMode.DISABLED:
            yield env.reset(options={"reset_mask": over})


BYTES = (*b"#### 1\n", 258)


@pytest.mark.parametrize("mode", AutoresetMode)
@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=6, deadline=None)
@given(
    said=st.lists(
        st.lists(st.sampled_from(BYTES), min_size=ROWS, max_size=ROWS), min_size=8, max_size=40
    ),
    seed=st.integers(0, 5),
)
def test_every_mode_is_gymnasiums(
    mode: AutoresetMode, family: str, said: list[list[int]], seed: int
) -> None:
    one, other = ours(mode, family), theirs(mode, family)
    actions = [one.speak(np.array(tokens)) for tokens in said]
    for mine, its in zip(drive(one, actions, seed), drive(other, actions, seed), strict=True):
        assert data_equivalence(mine, its, exact=True)


def test_the_mode_is_told_and_may_be_given_by_name() -> None:
    assert ours(AutoresetMode.SAME_STEP).metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    assert gym.make_vec("latent/MNNS-token").metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    for mode in AutoresetMode:
        env = gym.make_vec("latent/MNNS-token", autoreset_mode=mode.value)
        assert env.metadata["autoreset_mode"] is mode
    assert LatentVectorEnv.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    with pytest.raises(UsageError, match="choose one of NextStep, SameStep, Disabled"):
        gym.make_vec("latent/MNNS-token", autoreset_mode="never")


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_statistics_count_every_episode_once(mode: AutoresetMode) -> None:
    env = gym.make_vec("latent/MNNS-token", num_envs=4, autoreset_mode=mode)
    counted = wrappers.RecordEpisodeStatistics(env)
    counted.action_space.seed(0)
    counted.reset(seed=0)
    rewards = sum(counted.step(counted.action_space.sample())[1].sum() for _ in range(60))
    # Four steps an episode, and one more for the reset in the mode that takes one.
    steps = 5 if mode is AutoresetMode.NEXT_STEP else 4
    assert counted.episode_count == 4 * 60 // steps
    assert set(counted.length_queue) == {4}
    assert sum(counted.return_queue) == rewards


def test_rows_that_are_over_are_told_so_once() -> None:
    env = ours(AutoresetMode.DISABLED)
    counted = wrappers.RecordEpisodeStatistics(env)
    counted.reset(seed=0)
    end, on = 258, ord("a")
    ended, told = [], []
    for tokens in ([end, on, on], [on, end, on], [on, on, on], [on, on, end]):
        *_, terminated, truncated, info = counted.step(np.array(tokens))
        ended.append((terminated | truncated).tolist())
        told.append(info["_question"].sum())
    assert ended == [[True, False, False], [False, True, False], [False] * 3, [False, False, True]]
    assert told == [3, 2, 1, 1]
    assert counted.episode_count == 3
    assert list(counted.length_queue) == [1, 2, 4]
    with pytest.raises(gym.error.ResetNeeded):
        env.step(np.array([on] * ROWS))


@pytest.mark.parametrize("mode", AutoresetMode)
def test_stepping_before_the_first_reset(mode: AutoresetMode) -> None:
    env = ours(mode)
    with pytest.raises(gym.error.ResetNeeded):
        env.step(np.zeros(ROWS, dtype=np.int64))


class Sevens(VectorRewardWrapper[Any, Any, Any]):
    def rewards(self, rewards: Any) -> Any:
        return np.full_like(rewards, 7)


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
@pytest.mark.parametrize(
    "wrap",
    [
        Sevens,
        wrappers.NormalizeReward,
        wrappers.DictInfoToList,
        lambda env: wrappers.DictInfoToList(wrappers.RecordEpisodeStatistics(env, stats_key="e")),
        lambda env: wrappers.ClipReward(env, 0.0, 0.5),
        lambda env: wrappers.TransformReward(env, lambda reward: reward - 1),
    ],
)
def test_gymnasiums_wrappers_do_what_they_do_around_its_own(mode: AutoresetMode, wrap: Any) -> None:
    one, other = wrap(ours(mode)), wrap(theirs(mode))
    said = np.random.default_rng(1).choice(BYTES, (40, ROWS))
    assert data_equivalence(one.reset(seed=3), other.reset(seed=3))
    for tokens in said:
        mine, its = one.step(tokens), other.step(tokens)
        for result in (mine, its):
            if isinstance(result[4], list):
                [info["e"].pop("t") for info in result[4] if "e" in info]  # seconds
        assert data_equivalence(mine, its)


def test_a_step_by_itself_starts_a_question_of_the_rows_own_generator() -> None:
    env = ours(AutoresetMode.NEXT_STEP)
    env.reset(seed=5)
    env.step(np.array([258, 258, ord("a")]))
    observation, reward, *_, info = env.step(np.array([7, 7, ord("b")]))
    assert observation["thoughts_used"].tolist() == [0, 0, 2] and not reward.any()
    for row in range(2):
        alone = gym.make("latent/GSM8K-token", **RAGGED)
        alone.reset(seed=5 + row)
        assert info["index"][row] == alone.reset()[1]["index"]


# Rows as environments.


def test_attributes_and_calls_are_those_of_sync_vector_env() -> None:
    one, other = ours(AutoresetMode.NEXT_STEP), theirs(AutoresetMode.NEXT_STEP)
    for env in (one, other):
        env.reset(seed=4)
    for name in ("n_questions", "render_mode", "action_space", "np_random_seed", "metadata"):
        assert one.get_attr(name) == other.get_attr(name), name
    assert one.np_random_seed == other.np_random_seed == (4, 5, 6)
    assert one.call("prompt", 3) == other.call("prompt", 3)
    rng = [[rng.integers(1000) for rng in env.np_random] for env in (one, other)]
    assert rng[0] == rng[1]
    for env in (one, other):
        env.set_attr("note", ["a", "b", "c"])
        assert env.get_attr("note") == ("a", "b", "c")
    assert one.render() == other.render() == one.call("render")
    for wrong in (["a"], ("a", "b", "c", "d")):
        with pytest.raises(ValueError, match="values for 3 rows"):
            one.set_attr("note", wrong)
    with pytest.raises(AttributeError):
        one.get_attr("colour")


def test_a_row_is_a_view() -> None:
    env = ours(AutoresetMode.DISABLED)
    env.reset(seed=0)
    row = env.envs[1]
    observation, *_ = row.step(ord("a"))
    assert observation["thoughts_used"] == 1
    assert env.episodes.state.think_used.tolist() == [0, 1, 0]
    row.reset(seed=9, options={"index": 2})
    assert env.episodes.index_N[1] == 2 and env.np_random_seed == (0, 9, 2)
    env.step(np.full(ROWS, ord("b")))
    assert env.episodes.state.think_used.tolist() == [1, 1, 1]
    with pytest.raises(ValueError, match="2 seeds for 3 rows"):
        env.reset(seed=[1, 2])


@pytest.mark.parametrize("mode", AutoresetMode)
def test_rows_that_go_on_keep_their_own_randomness(mode: AutoresetMode) -> None:
    """A reset with a seed and a mask seeds the rows that start, as in `SyncVectorEnv`."""

    def questions(seed_rows: np.ndarray[Any, Any]) -> list[int]:
        env = gym.make_vec("latent/MNNS-token", num_envs=3, autoreset_mode=mode)
        env.reset(seed=0)
        env.reset(seed=9, options={"reset_mask": seed_rows})
        env.reset()
        return [int(i) for i in env.unwrapped.episodes.index_N]

    masked = questions(np.array([True, False, True]))
    whole, never = questions(np.ones(3, dtype=bool)), questions(np.zeros(3, dtype=bool))
    assert [masked[0], masked[2]] == [whole[0], whole[2]]
    assert masked[1] == never[1] != whole[1]


def test_seeds_may_be_of_any_whole_type() -> None:
    env = gym.make_vec("latent/MNNS-token", num_envs=3)
    for seed in (np.int64(4), np.array([4, 5, 6]), [np.int8(4), 5, np.uint64(6)]):
        env.reset(seed=seed)
        assert env.unwrapped.np_random_seed == (4, 5, 6)
