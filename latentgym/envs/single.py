"""The single environment: one row of the batched one."""

from __future__ import annotations

import copy
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt

from latentgym.envs.episodes import Observation
from latentgym.envs.task import Demonstration, Task
from latentgym.envs.vector import LatentVectorEnv
from latentgym.errors import ActionError, UsageError
from latentgym.protocol import Phase, Protocol


class LatentEnv(gym.Env[Any, Any]):
    """One question, one episode: think, then answer.

    Arguments are those of `LatentVectorEnv` without `num_envs`. `reset(options={"index": i})`
    picks a question. `step` takes one action, `step_segment` a whole run of them, `step_turn` as
    many of a run as there are before the environment speaks.
    """

    metadata = {"render_modes": ["ansi", "human"], "render_fps": 4}  # noqa: RUF012

    def __init__(
        self, task: str, family: str, *, render_mode: str | None = None, **options: Any
    ) -> None:
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise UsageError(f"no render mode {render_mode!r}; choose ansi or human.")
        self.render_mode = render_mode
        self._rows = LatentVectorEnv(task, family, 1, **options)
        self.action_space = self._rows.single_action_space
        self.observation_space = self._rows.single_observation_space

    @property
    def task(self) -> Task:
        """The task: questions, prompts, grader."""
        return self._rows.task

    @property
    def protocol(self) -> Protocol:
        """The rules of an episode."""
        return self._rows.protocol

    @property
    def n_questions(self) -> int:
        """How many questions the task has."""
        return self._rows.n_questions

    def prompt(self, index: int) -> list[int]:
        """Token ids of a question's prompt."""
        return self._rows.prompt(index)

    def demonstration(self, index: int) -> Demonstration:
        """A right chain for a question, for supervised training."""
        return self._rows.demonstration(index)

    def another(self) -> LatentEnv:
        """A further environment over the same task, with an episode of its own; nothing is loaded.

        The two may run in different threads.
        """
        other = copy.copy(self)
        other._rows, other._np_random = self._rows.another(), None
        return other

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        super().reset(seed=seed)
        self._rows.use_rng(0, self.np_random)
        observation, _ = self._rows.reset(options=options)
        if self.render_mode == "human":
            self.render()
        return _first(observation), self._rows.episodes.info(0)

    def step(self, action: Any) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        batched = (
            {k: np.asarray(v)[None] for k, v in action.items()}
            if isinstance(action, dict)
            else np.asarray(action)[None]
        )
        return self._take(self._rows.read(batched))

    def step_segment(self, tokens: Any) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Take several actions, each read by its token; the same as stepping one by one.

        Raises:
            ActionError: the episode ends before the last one.
        """
        array = self._segment(tokens)
        for position, token in enumerate(array):
            result = self._take(token[None])
            if position + 1 < len(array) and (result[2] or result[3]):
                raise ActionError(
                    f"the episode ended after {position + 1} of {len(array)} actions of a segment."
                )
        return result

    def step_turn(self, tokens: Any) -> tuple[int, Observation, float, bool, bool, dict[str, Any]]:
        """Take actions until the episode ends or the environment speaks, and leave the others.

        For agents that write on without knowing when it is the environment's turn.

        Returns:
            How many actions were taken, and the result of the last one.
        """
        array, episodes = self._segment(tokens), self._rows.episodes
        taken = episodes.pass_over(0, array)
        reward, final = 0.0, dict[str, Any]()
        while taken < len(array):
            reward, final = self._act(array[taken : taken + 1])
            taken += 1
            if final or episodes.speaks(0):
                break
            taken += episodes.pass_over(0, array[taken:])
        return taken, *self._result(reward, final)

    def _segment(self, tokens: Any) -> npt.NDArray[np.int64]:
        array = np.asarray(tokens, dtype=np.int64)
        if array.ndim != 1 or not array.size:
            raise ActionError("a segment is a list of at least one token.")
        self._rows.family_check(array)
        return array

    def _take(self, token: Any) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        return self._result(*self._act(token))

    def _act(self, token: Any) -> tuple[float, dict[str, Any]]:
        """One action; its reward, and the final info if it ended the episode."""
        episodes = self._rows.episodes
        if episodes.clock.phase[0] == Phase.DONE:
            raise gym.error.ResetNeeded("the episode is over; call reset() before step().")
        rewards, finals = episodes.act(token)
        episodes.reply()
        if self.render_mode == "human":
            self.render()
        return float(rewards[0]), finals.get(0, {})

    def _result(
        self, reward: float, final: dict[str, Any]
    ) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        episodes = self._rows.episodes
        return (
            _first(episodes.observe()),
            reward,
            bool(episodes.clock.terminated[0]),
            bool(episodes.clock.truncated[0]),
            {**episodes.info(0), **final},
        )

    def render(self) -> str | None:
        """The transcript so far; thoughts show as the tokens nearest to them."""
        if self.render_mode is None:
            return None
        text = self._rows.episodes.transcript(0)
        if self.render_mode == "human":
            print(text)
            return None
        return text


def _first(observation: Observation) -> Observation:
    # A zero-dimensional element is a NumPy scalar, as Discrete spaces want it.
    return {
        key: value[0] if value.ndim == 1 else value[0].copy() for key, value in observation.items()
    }
