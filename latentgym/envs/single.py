"""The single environment: one row of the batched one."""

from __future__ import annotations

import copy
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec

from latentgym.envs.arguments import (
    Dynamics,
    HiddenSize,
    ModelName,
    PromptBudget,
    RenderMode,
    Support,
)
from latentgym.envs.episodes import Observation, one
from latentgym.envs.making import make_vec
from latentgym.envs.task import Demonstration, Task
from latentgym.envs.vector import IntArray, LatentVectorEnv, check_render_mode
from latentgym.episodes.protocol import Phase, Protocol
from latentgym.errors import ActionError, OptionError
from latentgym.registry import NAMESPACE
from latentgym.system.options.keywords import Keyword, keywords

# What `gymnasium.make_vec` notes of its call.
_OF_SEVERAL = frozenset({"num_envs", "vectorization_mode", "autoreset_mode", "max_episode_steps"})


class _Row(LatentVectorEnv):
    """The row behind an environment of its own, which has no arguments for several."""

    @staticmethod
    def _known() -> dict[str, Keyword]:
        return keywords(LatentEnv)


class LatentEnv(gym.Env[Any, Any]):
    """One question, one episode: think, then answer.

    Arguments are those of `LatentVectorEnv` without `num_envs` and what concerns several rows.
    `reset(options={"index": i})` picks a question. `step` takes one action, `step_segment` a whole
    run of them, `step_turn` as many of a run as there are before the environment responds.

    With `dynamics`, a model or the folder of a training run, that model stands inside, see
    `latentgym.wrappers.LatentDynamics`, whose options are keyword arguments then.

    Raises:
        OptionError: it does not take such an argument; also a `TypeError`.
        UsageError: an argument that cannot work.
    """

    metadata = {"render_modes": ["ansi", "human"], "render_fps": 4}  # noqa: RUF012

    def __init__(
        self,
        task: str,
        family: str,
        *,
        support: Support = 8,
        hidden_size: HiddenSize | None = None,
        prompt_budget: PromptBudget | None = None,
        render_mode: RenderMode | None = None,
        model: ModelName | None = None,
        dynamics: Dynamics | None = None,
        **options: Any,
    ) -> None:
        name = f"{NAMESPACE}/{task}-{family}"
        check_render_mode(render_mode, self.metadata["render_modes"], name)
        several = keywords(LatentVectorEnv).keys() - keywords(LatentEnv).keys()
        if wrong := next((key for key in options if key in {*several, "num_envs"}), None):
            raise OptionError(
                f"{name} got an unexpected keyword argument {wrong!r}; it is for "
                "gymnasium.make_vec, which makes several rows."
            )
        rows = make_vec(
            task,
            family,
            1,
            support=support,
            hidden_size=hidden_size,
            prompt_budget=prompt_budget,
            model=model,
            dynamics=dynamics,
            rows=_Row,
            **options,
        )
        self._be(rows, 0, render_mode)

    @classmethod
    def of_row(cls, rows: LatentVectorEnv, row: int) -> LatentEnv:
        """A row of a vector environment, as an environment of its own: a view, not a copy."""
        env = cls.__new__(cls)
        env._be(rows, row, rows.render_mode)
        return env

    def _be(self, rows: LatentVectorEnv, row: int, render_mode: str | None) -> None:
        self._rows, self._row, self.render_mode = rows, row, render_mode
        self.action_space = rows.single_action_space
        self.observation_space = rows.single_observation_space
        self._only = np.arange(rows.num_envs) == row  # the rows that its actions are for

    @property
    def spec(self) -> EnvSpec | None:
        """What it is made by; `max_episode_steps` follows from the budgets.

        A row of several has none of the arguments that are for several.
        """
        spec = self._rows.spec
        if spec is None or spec.kwargs.keys().isdisjoint(_OF_SEVERAL):
            return spec
        spec = copy.copy(spec)
        spec.kwargs = {k: v for k, v in spec.kwargs.items() if k not in _OF_SEVERAL}
        return spec

    @spec.setter
    def spec(self, spec: EnvSpec | None) -> None:
        self._rows.spec = spec

    @property
    def np_random(self) -> np.random.Generator:
        """The generator that questions are drawn with."""
        return self._rows.generators[self._row]

    @np_random.setter
    def np_random(self, value: np.random.Generator) -> None:
        self._rows.generators.use(self._row, value)

    @property
    def np_random_seed(self) -> int:
        """Of the generator; -1 where somebody has given another one."""
        seed: int = self._rows.np_random_seed[self._row]
        return seed

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

    @property
    def lm(self) -> Any:
        """The model inside; there is none without `dynamics`."""
        rows: Any = self._rows
        return rows.lm

    @property
    def hidden_scale(self) -> float:
        """What the hidden states of the model inside are divided by."""
        rows: Any = self._rows
        return float(rows.hidden_scale)

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
        if seed is not None:
            assert self._np_random is not None  # Gymnasium has just made it
            self._rows.generators.use(self._row, self._np_random, seed)
        self._rows.reset(options={**(options or {}), "reset_mask": self._only})
        if self.render_mode == "human":
            self.render()
        return one(self._rows.observe(), self._row), self._rows.episodes.info(self._row)

    def step(self, action: Any) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        self._check_running()
        return self._result(*self._shown(self._rows.act_in(self._row, action)))

    def step_segment(self, tokens: Any) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Take several actions, each read by its token; the same as stepping one by one.

        Raises:
            ActionError: the episode ends before the last one.
        """
        array = self._segment(tokens)
        for position in range(len(array)):
            result = self._result(*self._act(array[position : position + 1]))
            if position + 1 < len(array) and (result[2] or result[3]):
                raise ActionError(
                    f"the episode ended after {position + 1} of {len(array)} actions of a segment."
                )
        return result

    def step_turn(self, tokens: Any) -> tuple[int, Observation, float, bool, bool, dict[str, Any]]:
        """Take actions until the episode ends or the environment responds, and leave the others.

        For agents that write on without knowing when it is the environment's turn.

        Returns:
            How many actions were taken, and the result of the last one.
        """
        array, episodes = self._segment(tokens), self._rows.episodes
        taken = episodes.pass_over(self._row, array)
        reward, final = 0.0, dict[str, Any]()
        while taken < len(array):
            reward, final = self._act(array[taken : taken + 1])
            taken += 1
            if final or episodes.speaks(self._row):
                break
            taken += episodes.pass_over(self._row, array[taken:])
        return taken, *self._result(reward, final)

    def _segment(self, tokens: Any) -> IntArray:
        array = np.asarray(tokens, dtype=np.int64)
        if array.ndim != 1 or not array.size:
            raise ActionError("a segment is a list of at least one token.")
        self._rows.check_segment(array)
        return array

    def _act(self, token: IntArray) -> tuple[float, dict[str, Any]]:
        """One action; its reward, and the final info if it ended the episode."""
        self._check_running()
        return self._shown(self._rows.take_in(self._row, token))

    def _shown(self, gained: tuple[float, dict[str, Any]]) -> tuple[float, dict[str, Any]]:
        if self.render_mode == "human":
            self.render()
        return gained

    def _check_running(self) -> None:
        if self._rows.episodes.state.phase[self._row] == Phase.DONE:
            raise gym.error.ResetNeeded("no episode is running; call reset() before step().")

    def _result(
        self, reward: float, final: dict[str, Any]
    ) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        episodes = self._rows.episodes
        return (
            one(self._rows.observe(), self._row),
            reward,
            bool(episodes.state.terminated[self._row]),
            bool(episodes.state.truncated[self._row]),
            {**episodes.info(self._row), **final},
        )

    def render(self) -> str | None:
        """The transcript so far, and the gold answer and the score at the end.

        Thoughts show as the tokens nearest to them.
        """
        if self.render_mode is None:
            return None
        text = self._rows.episodes.transcript(self._row)
        if self.render_mode == "human":
            print(text)
            return None
        return text
