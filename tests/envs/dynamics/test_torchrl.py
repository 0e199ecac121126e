"""TorchRL drives an environment with a model inside by the family's own Dict actions."""

from __future__ import annotations

import multiprocessing
import warnings
from typing import Any

import gymnasium as gym
import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what they are deprecated for is theirs
    from torchrl.envs import GymEnv, GymWrapper
    from torchrl.envs.utils import check_env_specs

# TorchRL changes how every later process is started, which is nothing for the other tests.
multiprocessing.set_start_method(None, force=True)

MADE: dict[str, Any] = {"dynamics": "tiny:gpt2:1x2x16", "limit": 50, "k": 4}

pytestmark = pytest.mark.filterwarnings("ignore:.*render_mode")


@pytest.mark.parametrize("family", ["token", "hybrid", "continuous"])
def test_an_id_with_native_actions(family: str) -> None:
    env = GymEnv(f"latent/MNNS-{family}", interface="native", **MADE)
    check_env_specs(env)
    steps = env.rollout(20)
    assert steps["next", "done"][-1] and not steps["next", "done"][:-1].any()
    assert steps["hidden"].shape == (len(steps), 16) and steps["hidden"].any()


def test_a_batch() -> None:
    envs = gym.make_vec("latent/MNNS-continuous", num_envs=3, autoreset_mode="Disabled", **MADE)
    env = GymWrapper(envs)
    check_env_specs(env)
    steps = env.rollout(7, break_when_any_done=False)
    assert steps.batch_size == (3, 7) and steps["next", "done"].any()
