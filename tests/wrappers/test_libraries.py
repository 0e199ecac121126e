"""Other people's libraries drive the environments as they drive Gymnasium's own."""

from __future__ import annotations

import multiprocessing
import warnings
from typing import Any

import gymnasium as gym
import pytest
import torch

from latentgym.wrappers import BoxMixture, FlatHybrid

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what they are deprecated for is theirs
    from stable_baselines3 import PPO
    from stable_baselines3.common.env_checker import check_env
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.evaluation import evaluate_policy
    from torchrl.envs import GymEnv, GymWrapper
    from torchrl.envs.utils import check_env_specs

# TorchRL changes how every later process is started, which is nothing for the other tests.
multiprocessing.set_start_method(None, force=True)

# What they know actions of: none of them plays a Dict.
PLAIN: dict[str, Any] = {"token": None, "continuous": BoxMixture, "hybrid": FlatHybrid}
TASKS: dict[str, dict[str, Any]] = {
    "MNNS": {},
    "GSM8K": {"source": "sample", "think": 4, "answer": 4, "prompt_budget": 512},
}

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*render_mode"),
    pytest.mark.usefixtures("own_random_numbers"),
]


def make(task: str, family: str) -> Any:
    env = gym.make(f"latent/{task}-{family}", **TASKS[task])
    wrap = PLAIN[family]
    return env if wrap is None else wrap(env)


@pytest.mark.parametrize("family", PLAIN)
@pytest.mark.parametrize("task", TASKS)
def test_stable_baselines3_accepts_it(task: str, family: str) -> None:
    check_env(make(task, family))


@pytest.mark.parametrize("family", PLAIN)
def test_ppo_of_stable_baselines3_runs(family: str) -> None:
    env = make_vec_env(f"latent/MNNS-{family}", n_envs=4, seed=0, wrapper_class=PLAIN[family])
    agent = PPO("MultiInputPolicy", env, n_steps=16, batch_size=32, n_epochs=1, seed=0)
    before = torch.nn.utils.parameters_to_vector(agent.policy.parameters()).clone()
    agent.learn(128)
    assert agent.num_timesteps == 128
    assert {episode["l"] for episode in agent.ep_info_buffer or ()} == {4}
    after = torch.nn.utils.parameters_to_vector(agent.policy.parameters())
    assert torch.isfinite(after).all() and (after != before).any()
    mean, _ = evaluate_policy(agent, env, n_eval_episodes=8)
    assert 0 <= mean <= 1


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("family", PLAIN)
def test_torchrl_plays_an_id(task: str, family: str) -> None:
    env = GymEnv(f"latent/{task}-{family}", **TASKS[task])  # Dict actions and all
    check_env_specs(env)
    steps = env.rollout(20)
    assert steps["next", "done"][-1] and not steps["next", "done"][:-1].any()


@pytest.mark.parametrize("family", ["continuous", "hybrid"])
def test_torchrl_plays_the_boxes(family: str) -> None:
    env = GymWrapper(make("MNNS", family))
    check_env_specs(env)
    assert len(env.rollout(20)) == 4


def test_torchrl_plays_the_batched_environment() -> None:
    env = GymWrapper(gym.make_vec("latent/MNNS-token", num_envs=3, autoreset_mode="Disabled"))
    check_env_specs(env)
    steps = env.rollout(9, break_when_any_done=False)
    assert steps.shape == (3, 9)
    assert steps["next", "done"].sum(1).flatten().tolist() == [2, 2, 2]


@pytest.mark.parametrize("family", ["continuous", "hybrid"])
def test_torchrl_plays_batches_of_boxes(family: str) -> None:
    env = GymWrapper(
        gym.make_vec(
            f"latent/MNNS-{family}",
            num_envs=3,
            vectorization_mode="sync",
            wrappers=[PLAIN[family]],
            vector_kwargs={"autoreset_mode": "Disabled"},
        )
    )
    check_env_specs(env)
    assert env.rollout(9, break_when_any_done=False)["next", "done"].sum() == 6


def test_torchrl_skips_frames_by_itself() -> None:
    env = GymEnv("latent/MNNS-token", frame_skip=2)
    assert len(env.rollout(20)) == 2
