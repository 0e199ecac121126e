"""Stable-Baselines3 trains on one batched environment with a model inside."""

from __future__ import annotations

import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.wrappers import vector as wrappers

from latentgym.errors import UsageError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what they are deprecated for is theirs
    from stable_baselines3 import PPO
    from stable_baselines3.common.env_checker import check_env
    from stable_baselines3.common.vec_env import VecMonitor

    from latentgym.adapters.sb3 import SB3VecEnv

MADE: dict[str, Any] = {"dynamics": "tiny:gpt2:1x2x16", "limit": 50, "k": 4}
BOXES = {"mixture": "continuous", "latent": "continuous", "gate": "hybrid", "token": "token"}


pytestmark = pytest.mark.usefixtures("own_random_numbers")


def batch(n: int = 4, mode: str = "SameStep", **options: Any) -> Any:
    return gym.make_vec(
        "latent/MNNS-continuous", num_envs=n, autoreset_mode=mode, **MADE, **options
    )


@pytest.mark.parametrize("interface", BOXES)
def test_its_checker_accepts_it(interface: str) -> None:
    env = gym.make(f"latent/MNNS-{BOXES[interface]}", interface=interface, **MADE)
    check_env(env.unwrapped)


@pytest.mark.parametrize("interface", ["mixture", "token"])
def test_ppo_learns_over_one_batch(interface: str) -> None:
    envs = batch(interface=interface, observe=["hidden", "log_probs", "steps_left"])
    env = VecMonitor(SB3VecEnv(envs))
    agent = PPO("MultiInputPolicy", env, n_steps=16, batch_size=32, n_epochs=1, seed=0)
    before = torch.nn.utils.parameters_to_vector(agent.policy.parameters()).clone()
    agent.learn(128)
    assert agent.num_timesteps == 128
    assert {episode["l"] for episode in agent.ep_info_buffer or ()} == {3}
    after = torch.nn.utils.parameters_to_vector(agent.policy.parameters())
    assert torch.isfinite(after).all() and (after != before).any()


def test_what_it_is_told_is_what_gymnasium_is_told() -> None:
    ours, theirs = SB3VecEnv(batch()), batch()
    ours.seed(3)
    observation = ours.reset()
    expected, _ = theirs.reset(seed=3)
    theirs.action_space.seed(0)
    for _ in range(6):
        assert all(np.array_equal(observation[name], expected[name]) for name in expected)
        action = theirs.action_space.sample()
        observation, reward_N, done_N, infos = ours.step(action)
        expected, gained_N, ended_N, cut_N, info = theirs.step(action)
        assert np.array_equal(reward_N, gained_N) and np.array_equal(done_N, ended_N | cut_N)
        for row in np.flatnonzero(done_N).tolist():
            last = info["final_obs"][row]
            told = infos[row]
            assert all(np.array_equal(told["terminal_observation"][k], last[k]) for k in last)
            assert told["score"] == gained_N[row] and not told["TimeLimit.truncated"]
    assert ours.get_attr("spec")[0].id == "latent/MNNS-continuous"
    assert ours.env_method("prompt", 0, indices=[1]) == [theirs.unwrapped.prompt(0)]
    assert ours.env_is_wrapped(gym.Wrapper) == [False] * 4


def test_statistics_of_gymnasium_reach_it() -> None:
    env = SB3VecEnv(wrappers.RecordEpisodeStatistics(batch()))
    env.reset()
    for _ in range(3):
        _, _, done_N, infos = env.step(np.zeros((4, 4), dtype=np.float32))
    assert done_N.all() and all(int(info["episode"]["l"]) == 3 for info in infos)


def test_options_of_rows_are_those_of_one_reset() -> None:
    env = SB3VecEnv(batch(3))
    for options, asked in (
        ({"index": 2}, [2, 2, 2]),
        ([{"index": i} for i in (4, 5, 6)], [4, 5, 6]),
    ):
        env.set_options(options)
        env.reset()
        assert env.get_attr("unwrapped")[0]._rows.episodes.index_N.tolist() == asked
    for options in ([{"index": 1}, {}, {}], [{"index": 1}, {"group_size": 3}, {"index": 1}]):
        env.set_options(options)
        with pytest.raises(UsageError, match="give all the same options"):
            env.reset()


def test_another_mode_of_resets() -> None:
    with pytest.raises(UsageError, match="autoreset_mode='SameStep'"):
        SB3VecEnv(batch(mode="NextStep"))
