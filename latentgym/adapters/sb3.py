"""Stable-Baselines3: its vector environment over a batched one of ours, not over n copies.

```py
made = {"dynamics": "runs/mnns", "autoreset_mode": "SameStep"}
envs = SB3VecEnv(gym.make_vec("latent/MNNS-continuous", num_envs=64, **made))
PPO("MultiInputPolicy", envs).learn(100_000)
```
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode

from latentgym.errors import UsageError

try:
    from stable_baselines3.common.vec_env.base_vec_env import (
        VecEnv,
        VecEnvIndices,
        VecEnvObs,
        VecEnvStepReturn,
    )
except ImportError as error:
    raise UsageError(
        "this adapter is for Stable-Baselines3; pip install 'latentgym[sb3]'."
    ) from error


class SB3VecEnv(VecEnv):
    """A Gymnasium vector environment as Stable-Baselines3's.

    Rows that are over start again within the step that ends them, as that library has it: their
    last observation is `terminal_observation` of their info, and `TimeLimit.truncated` says how
    they ended.

    Args:
        envs: a vector environment with `autoreset_mode` SAME_STEP; wrappers may be around it.

    Raises:
        UsageError: another autoreset mode.
    """

    def __init__(self, envs: gym.vector.VectorEnv[Any, Any, Any]) -> None:
        if envs.metadata.get("autoreset_mode") is not AutoresetMode.SAME_STEP:
            raise UsageError(
                "Stable-Baselines3 wants rows to start again in the step that ends them; make the "
                f"environment with autoreset_mode={AutoresetMode.SAME_STEP.value!r}."
            )
        self.envs = envs
        self._unwrapped: Any = envs.unwrapped
        # What its constructor asks.
        self.render_mode = envs.render_mode
        super().__init__(envs.num_envs, envs.single_observation_space, envs.single_action_space)
        self._actions: Any = None

    def reset(self) -> VecEnvObs:
        # Seeds and options are for the next reset alone.
        seeds: Any = None if all(seed is None for seed in self._seeds) else list(self._seeds)
        options = _options(self._options)
        observation, info = self.envs.reset(seed=seeds, options=options)
        self.reset_infos = [_row_info(info, row) for row in range(self.num_envs)]
        self._reset_seeds()
        self._reset_options()
        return observation

    def step_async(self, actions: np.ndarray) -> None:
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        observation, reward_N, terminated_N, truncated_N, info = self.envs.step(self._actions)
        done_N = terminated_N | truncated_N
        infos = []
        for row, done in enumerate(done_N.tolist()):
            own = _row_info(info, row)
            if done:
                # Of the episode that is over; the rest tells of the next one.
                counted = {"episode": own["episode"]} if "episode" in own else {}
                last, final = own["final_obs"], own["final_info"]
                own = {**final, **counted, "terminal_observation": last}
                own["TimeLimit.truncated"] = bool(truncated_N[row] and not terminated_N[row])
            infos.append(own)
        return observation, reward_N.astype(np.float32), done_N, infos

    def close(self) -> None:
        self.envs.close()

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        found = self._unwrapped.get_attr(attr_name)
        return [found[row] for row in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        rows: Sequence[Any] = self._unwrapped.envs
        for row in self._get_indices(indices):
            rows[row].set_wrapper_attr(attr_name, value)

    def env_method(
        self,
        method_name: str,
        *method_args: Any,
        indices: VecEnvIndices = None,
        **method_kwargs: Any,
    ) -> list[Any]:
        rows: Sequence[Any] = self._unwrapped.envs
        return [
            rows[row].get_wrapper_attr(method_name)(*method_args, **method_kwargs)
            for row in self._get_indices(indices)
        ]

    def env_is_wrapped(
        self, wrapper_class: type[gym.Wrapper], indices: VecEnvIndices = None
    ) -> list[bool]:
        # Wrappers of single environments are around none of the rows.
        return [False for _ in self._get_indices(indices)]


def _options(given: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """The options of one reset of all rows, from those of each.

    Raises:
        UsageError: rows differ in more than their question.
    """
    first = given[0]
    if all(options == first for options in given):
        return first or None
    if all(options.keys() == {"index"} for options in given):
        return {"index": [options["index"] for options in given]}
    raise UsageError(
        "rows are reset together; give all the same options, or each a dict with its index."
    )


def _row_info(info: dict[str, Any], row: int) -> dict[str, Any]:
    """What a batch of infos tells of a row."""
    told = {}
    for name, value in info.items():
        known = info.get(f"_{name}")  # dicts within have no masks of their own
        if not name.startswith("_") and (known is None or known[row]):
            told[name] = _row_info(value, row) if isinstance(value, dict) else value[row]
    return told
