"""The batched environment: one real `VectorEnv` per id, not N copies of a single one."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode

from latentgym.envs.catalogue import make_task
from latentgym.envs.episodes import LiveEpisodes, Observation, batched
from latentgym.envs.task import Demonstration
from latentgym.errors import ActionError, UsageError
from latentgym.protocol import Protocol
from latentgym.spaces import family as family_of

IntArray = npt.NDArray[np.int64]
StepResult = tuple[
    Observation,
    npt.NDArray[np.float64],
    npt.NDArray[np.bool_],
    npt.NDArray[np.bool_],
    dict[str, Any],
]


class LatentVectorEnv(gym.vector.VectorEnv[Any, Any, Any]):
    """N questions at once.

    Rows are never reset by themselves (`AutoresetMode.DISABLED`): one question is one episode,
    and the agent decides when a row gets a new one. Actions of rows that are done are ignored.

    Args:
        task: name of the task, as in the environment id.
        family: `token`, `hybrid` or `continuous`.
        num_envs: rows.
        support: ids in a superposition (continuous family).
        hidden_size: width of a latent (hybrid family); a given model's own by default.
        prompt_budget: longest prompt in tokens; default by task.
        render_mode: `ansi` or None.
        model: name of the model whose vocabulary and prompts to use; none for the built-in ones.
        options: of the task, see its class: `split`, `source`, `limit`, `think`, ...

    `reset(options=...)` knows `index` (a question number, or one per started row), `reset_mask`
    (which rows start; the others are done if they never started) and `group_size` (that many
    neighbouring rows share a question).
    """

    metadata = {  # noqa: RUF012 - Gymnasium's own convention
        "render_modes": ["ansi"],
        "render_fps": 4,
        "autoreset_mode": AutoresetMode.DISABLED,
    }

    def __init__(
        self,
        task: str,
        family: str,
        num_envs: int = 1,
        *,
        support: int = 8,
        hidden_size: int | None = None,
        prompt_budget: int | None = None,
        render_mode: str | None = None,
        model: str | None = None,
        **options: Any,
    ) -> None:
        if num_envs < 1:
            raise UsageError(f"num_envs must be at least 1, but is {num_envs}.")
        self.family = family_of(family)
        self.task, width = make_task(task, self.family, model, options)
        if prompt_budget is not None:
            self.task.prompt_budget = prompt_budget
        self.episodes = LiveEpisodes(self.task, num_envs)
        self.num_envs = num_envs
        self.render_mode = render_mode
        self.support, self.hidden_size = support, hidden_size or width
        vocab = self.task.tokenizer.vocab_size
        self.single_action_space = self.family.space(vocab, self.hidden_size, support)
        self.single_observation_space = self.episodes.observation_space()
        self.action_space = batched(self.single_action_space, num_envs)
        self.observation_space = batched(self.single_observation_space, num_envs)
        self._rngs: list[np.random.Generator | None] = [None] * num_envs

    # What engines and agents ask beyond Gymnasium's own interface.

    @property
    def protocol(self) -> Protocol:
        """The rules of an episode."""
        return self.episodes.protocol

    @property
    def n_questions(self) -> int:
        """How many questions the task has."""
        return len(self.task)

    def prompt(self, index: int) -> list[int]:
        """Token ids of a question's prompt."""
        return self.episodes.checked_prompt(index)

    def demonstration(self, index: int) -> Demonstration:
        """A right chain for a question, for supervised training."""
        return self.task.demonstration(index)

    def another(self) -> LatentVectorEnv:
        """A further environment over the same task, with episodes of its own; nothing is loaded."""
        other = copy.copy(self)
        other.episodes = LiveEpisodes(self.task, self.num_envs, self.protocol)
        other._rngs = [None] * self.num_envs
        return other

    # Gymnasium.

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Observation, dict[str, Any]]:
        self._seed(seed)
        options = dict(options or {})
        mask = np.asarray(options.pop("reset_mask", np.ones(self.num_envs, dtype=bool)))
        if mask.shape != (self.num_envs,) or mask.dtype != bool:
            raise UsageError(f"reset_mask must hold {self.num_envs} booleans, one per row.")
        group = int(options.pop("group_size", 1))
        rows = np.flatnonzero(mask)
        if group < 1 or rows.size % group:
            raise UsageError(f"group_size {group} does not divide the {rows.size} rows that start.")
        chosen = options.pop("index", None)
        if options:
            raise UsageError(
                f"unknown reset options {sorted(options)}; known are index, reset_mask, group_size."
            )
        index_N = self.episodes.index_N.copy()
        index_N[rows] = self._choose(rows, chosen, group)
        self.episodes.start(mask, index_N)
        infos = {row: self.episodes.info(row) for row in rows.tolist()}
        return self.episodes.observe(), self._infos(infos)

    def _choose(self, rows: IntArray, chosen: Any, group: int) -> IntArray:
        n = self.n_questions
        if chosen is None:
            leaders = [int(self._rng(int(row)).integers(n)) for row in rows[::group]]
            return np.repeat(np.array(leaders, dtype=np.int64), group)
        index = np.atleast_1d(np.asarray(chosen, dtype=np.int64))
        if index.size == rows.size // group and group > 1:
            index = np.repeat(index, group)
        if index.size not in (1, rows.size):
            raise UsageError(f"{index.size} question numbers for {rows.size} rows.")
        if index.min() < 0 or index.max() >= n:
            bad = int(index[(index < 0) | (index >= n)][0])
            raise UsageError(
                f"there is no question {bad}: {self.task.name} has {n} (0 to {n - 1})."
            )
        return np.broadcast_to(index, rows.shape)

    def step(self, actions: Any) -> StepResult:
        rewards, finals = self.episodes.act(self.read(actions))
        self.episodes.reply()
        return self._result(rewards, finals)

    def read(self, actions: Any) -> IntArray:
        """The tokens that a batch of actions is read by, int64 (num_envs,).

        Raises:
            ActionError: an action is outside the action space.
        """
        tokens = self.family.read(actions, self.task.tokenizer.vocab_size)
        space = self.action_space
        parts = space.spaces if isinstance(space, gym.spaces.Dict) else {"action": space}
        given = actions if isinstance(space, gym.spaces.Dict) else {"action": actions}
        for name, part in parts.items():
            if np.shape(given[name]) != part.shape:
                raise ActionError(
                    f"{name} has the shape {np.shape(given[name])} for {self.num_envs} rows, but "
                    f"the action space has {part.shape}."
                )
        return tokens

    def step_segment(self, tokens: Sequence[npt.ArrayLike]) -> StepResult:
        """Take a whole segment of actions per row, each read by its token.

        The same as stepping one by one, for agents that think in an engine of their own.

        Args:
            tokens: for each row its action tokens in order; rows may differ in length, and a row
                that is done or idle has none.
        """
        arrays = [np.asarray(row, dtype=np.int64) for row in tokens]
        if len(arrays) != self.num_envs:
            raise UsageError(f"{len(arrays)} segments for {self.num_envs} rows.")
        self.family_check(np.concatenate(arrays))
        length = max(map(len, arrays))
        padded = np.full((self.num_envs, max(length, 1)), -1, dtype=np.int64)
        for row, array in enumerate(arrays):
            padded[row, : len(array)] = array
        rewards = np.zeros(self.num_envs)
        finals: dict[int, dict[str, Any]] = {}
        for column in padded.T:
            acting = column >= 0
            # Replies are asked for together, so only when a row cannot go on without.
            if self.episodes.waiting(acting):
                self.episodes.reply()
            gained, ended = self.episodes.act(np.maximum(column, 0), acting)
            rewards += gained
            finals.update(ended)
        self.episodes.reply()
        return self._result(rewards, finals)

    def family_check(self, tokens: IntArray) -> None:
        """Raise `ActionError` unless all tokens are in the vocabulary."""
        family_of("token").read(tokens, self.task.tokenizer.vocab_size)

    def render(self) -> tuple[str, ...] | None:
        if self.render_mode is None:
            return None
        return tuple(self.episodes.transcript(row) for row in range(self.num_envs))

    def _result(
        self, rewards: npt.NDArray[np.float64], finals: dict[int, dict[str, Any]]
    ) -> StepResult:
        clock = self.episodes.clock
        infos = {row: {**self.episodes.info(row), **final} for row, final in finals.items()}
        return (
            self.episodes.observe(),
            rewards,
            clock.terminated.copy(),
            clock.truncated.copy(),
            self._infos(infos),
        )

    def _infos(self, rows: dict[int, dict[str, Any]]) -> dict[str, Any]:
        infos: dict[str, Any] = {}
        for row, info in rows.items():
            infos = self._add_info(infos, info, row)
        return infos

    def _seed(self, seed: int | Sequence[int | None] | None) -> None:
        if seed is None:
            return
        seeds = [seed + i for i in range(self.num_envs)] if isinstance(seed, int) else list(seed)
        for row, value in enumerate(seeds):
            if value is not None:
                self._rngs[row] = seeding.np_random(value)[0]

    def _rng(self, row: int) -> np.random.Generator:
        rng = self._rngs[row]
        if rng is None:
            rng = self._rngs[row] = seeding.np_random(None)[0]
        return rng

    def use_rng(self, row: int, rng: np.random.Generator) -> None:
        """Let a row draw its questions with a generator of the caller's."""
        self._rngs[row] = rng
