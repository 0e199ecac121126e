"""The batched environment: one real `VectorEnv` per id, not N copies of a single one."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AutoresetMode

from latentgym.envs.arguments import HiddenSize, ModelName, PromptBudget, RenderMode, Support
from latentgym.envs.catalogue import make_task
from latentgym.envs.episodes import BoolArray, LiveEpisodes, Observation, batched, one
from latentgym.envs.resets import Reset, RowGenerators, numbers_of
from latentgym.envs.task import Demonstration
from latentgym.episodes.protocol import Protocol
from latentgym.episodes.spaces import as_array
from latentgym.episodes.spaces import family as family_of
from latentgym.errors import ActionError, OptionError, UsageError
from latentgym.registry import NAMESPACE
from latentgym.system.options.keywords import Keyword, Option, check, keywords

if TYPE_CHECKING:
    from latentgym.envs.single import LatentEnv

IntArray = npt.NDArray[np.int64]
_ROWS = Keyword("num_envs", (int,), 1, Option("rows", least=1))
Gained = tuple[npt.NDArray[np.float64], dict[int, dict[str, Any]]]
"""Rewards of all rows, and the final infos of those that have ended."""
StepResult = tuple[Observation, npt.NDArray[np.float64], BoolArray, BoolArray, dict[str, Any]]


class LatentVectorEnv(gym.vector.VectorEnv[Any, Any, Any]):
    """N questions at once.

    What becomes of a row whose episode is over is said by `autoreset_mode`, as in Gymnasium: its
    next step starts another question (`NEXT_STEP`), the step that ends it does (`SAME_STEP`), or
    nothing does but a `reset` (`DISABLED`). In the last case rows that are over ignore actions and
    are told as over once, in the step that ends them.

    Args:
        task: name of the task, as in the environment id.
        family: `token`, `hybrid` or `continuous`.
        num_envs: rows.
        autoreset_mode: a `gymnasium.vector.AutoresetMode` or its value.
        max_episode_steps: as Gymnasium passes it on; not below what an episode may take.
        support: ids in a superposition (continuous family).
        hidden_size: width of a latent (hybrid family); a given model's own by default.
        prompt_budget: longest prompt in tokens; default by task.
        render_mode: `ansi` or None.
        model: name of the model whose vocabulary and prompts to use; none for the built-in ones.
        options: of the task, see its class: `split`, `source`, `limit`, `think`, ...

    Raises:
        OptionError: it does not take such an argument; also a `TypeError`.
        UsageError: an argument that cannot work.

    `reset(options=...)` knows `index` (a question number, or one per started row), `reset_mask`
    (which rows start; the others are done if they never started) and `group_size` (that many
    neighbouring rows share a question).
    """

    metadata = {  # noqa: RUF012 - Gymnasium's own convention
        "render_modes": ["ansi"],
        "render_fps": 4,
        "autoreset_mode": AutoresetMode.NEXT_STEP,
    }

    def __init__(
        self,
        task: str,
        family: str,
        num_envs: int = 1,
        *,
        autoreset_mode: Annotated[
            AutoresetMode | str, Option("`NextStep`, `SameStep` or `Disabled`")
        ] = AutoresetMode.NEXT_STEP,
        max_episode_steps: Annotated[int, Option("no fewer than an episode may take")]
        | None = None,
        support: Support = 8,
        hidden_size: HiddenSize | None = None,
        prompt_budget: PromptBudget | None = None,
        render_mode: RenderMode | None = None,
        model: ModelName | None = None,
        **options: Any,
    ) -> None:
        self.family = family_of(family)
        known, name = keywords(LatentVectorEnv), f"{NAMESPACE}/{task}-{family}"
        _ROWS.check(num_envs, name)
        num_envs = int(num_envs)
        own = {
            "autoreset_mode": autoreset_mode,
            "max_episode_steps": max_episode_steps,
            "support": support,
            "hidden_size": hidden_size,
            "prompt_budget": prompt_budget,
            "render_mode": render_mode,
            "model": model,
        }
        check(own, known, name)
        check_render_mode(render_mode, self.metadata["render_modes"], name)
        self.autoreset_mode = _mode(autoreset_mode)
        self.metadata = {**self.metadata, "autoreset_mode": self.autoreset_mode}
        self.task, width = make_task(task, self.family, model, options, self._known())
        if prompt_budget is not None:
            self.task.prompt_budget = prompt_budget
        self.episodes = LiveEpisodes(self.task, num_envs)
        most = self.protocol.max_actions
        if max_episode_steps is not None and max_episode_steps < most:
            raise UsageError(
                f"an episode of {name} may take {most} steps, its budgets of thoughts and answer, "
                f"and is graded at their end; lower these, not max_episode_steps "
                f"({max_episode_steps})."
            )
        self.num_envs = num_envs
        self.render_mode = render_mode
        self.support, self.hidden_size = support, hidden_size or width
        vocab = self.task.tokenizer.vocab_size
        self.single_action_space = self.family.space(vocab, self.hidden_size, support)
        self.single_observation_space = self.episodes.observation_space()
        self.action_space = batched(self.single_action_space, num_envs)
        self.observation_space = batched(self.single_observation_space, num_envs)
        self._begin()

    @staticmethod
    def _known() -> dict[str, Keyword]:
        """The keyword arguments that its messages name beside those of the task."""
        return keywords(LatentVectorEnv)

    def _begin(self) -> None:
        """The state of an environment that was never reset."""
        self.generators = RowGenerators(self.num_envs)
        self._envs: list[LatentEnv] | None = None
        self._started = False

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
        other._begin()
        return other

    # Gymnasium.

    @property
    def spec(self) -> EnvSpec | None:
        """What it was made by; `max_episode_steps` follows from the budgets."""
        return self._spec

    @spec.setter
    def spec(self, spec: EnvSpec | None) -> None:
        self._spec = bounded(spec, self.protocol)

    _spec: EnvSpec | None = None

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Observation, dict[str, Any]]:
        asked = Reset.of(options, self.num_envs)
        self.generators.seed(seed, asked.mask_N)
        self._start(asked.mask_N, asked.index, asked.group_size)
        return self.observe(), self.episodes.infos(asked.mask_N)

    def observe(self) -> Observation:
        """The observations of all rows; every call gives fresh arrays."""
        return self.episodes.observe()

    def _start(self, mask: BoolArray, chosen: Any = None, group: int = 1) -> None:
        """Begin new episodes in these rows."""
        rows = np.flatnonzero(mask)
        index_N = self.episodes.index_N.copy()
        index_N[rows] = self._choose(rows, chosen, group)
        self.episodes.start(mask, index_N)
        self._started = True

    def _choose(self, rows: IntArray, chosen: Any, group: int) -> IntArray:
        n = self.n_questions
        if chosen is None:
            leaders = [int(self.generators[int(row)].integers(n)) for row in rows[::group]]
            return np.repeat(np.array(leaders, dtype=np.int64), group)
        index = numbers_of(chosen)
        if index.size == rows.size // group and group > 1:
            index = np.repeat(index, group)
        if index.size not in (1, rows.size):
            raise UsageError(f"{index.size} question numbers for {rows.size} rows.")
        if index.min() < 0 or index.max() >= n:
            bad = int(index[(index < 0) | (index >= n)][0])
            raise UsageError(
                f"there is no question {bad}: {self.task.name} has {n} (0 to {n - 1})."
            )
        return np.broadcast_to(index.astype(np.int64), rows.shape)

    def step(self, actions: Any) -> StepResult:
        over = self.episodes.state.done
        renewed = over & (self.autoreset_mode is AutoresetMode.NEXT_STEP)
        if not self._started or (over & ~renewed).all():
            raise gym.error.ResetNeeded("no episode is running; call reset() before step().")
        rewards, finals = self._act(actions, ~over)
        if renewed.any():
            self._start(renewed)
        return self._result(rewards, finals, ~over | renewed)

    def _act(self, actions: Any, acting_N: BoolArray) -> Gained:
        """Take an action in each of these rows, of a batch that has one for every row."""
        return self._take(self.read(actions), acting_N)

    def act_in(self, row: int, action: Any) -> tuple[float, dict[str, Any]]:
        """Take an action in one row; its reward, and the final info if it ends the episode."""
        return self.take_in(row, self.read_as(self._one_action, batch_of_one(action)))

    def take_in(self, row: int, token: IntArray) -> tuple[float, dict[str, Any]]:
        """The same, of an action that is read already: its token, int64 (1,)."""
        only_N = np.arange(self.num_envs) == row
        rewards, finals = self._take(np.where(only_N, token, 0), only_N)
        return float(rewards[row]), finals.get(row, {})

    @cached_property
    def _one_action(self) -> gym.Space[Any]:
        return batched(self.single_action_space, 1)

    def _take(self, token_N: IntArray, acting_N: BoolArray) -> Gained:
        """The same, of actions that are read already."""
        gained = self.episodes.act(token_N, acting_N)
        self.episodes.respond()
        return gained

    def read(self, actions: Any) -> IntArray:
        """The tokens that a batch of actions is read by, int64 (num_envs,).

        Raises:
            ActionError: an action is outside the action space.
        """
        return self.read_as(self.action_space, actions)

    def read_as(self, space: gym.Space[Any], actions: Any) -> IntArray:
        """The same of a batch of another number of rows, from the space of such batches."""
        tokens = self.family.read(actions, self.task.tokenizer.vocab_size)
        parts = space.spaces if isinstance(space, gym.spaces.Dict) else {"action": space}
        given = actions if isinstance(space, gym.spaces.Dict) else {"action": actions}
        for name, part in parts.items():
            shape: Any = part.shape
            if np.shape(given[name]) != shape:
                raise ActionError(
                    f"{name} has the shape {np.shape(given[name])} for {shape[0]} rows, but "
                    f"the action space has {shape}."
                )
        return tokens

    def step_segment(self, tokens: Sequence[npt.ArrayLike]) -> StepResult:
        """Take a whole segment of actions per row, each read by its token.

        The same as stepping one by one, for agents that think in an engine of their own.

        Args:
            tokens: for each row its action tokens in order; rows may differ in length, and a row
                that is done or idle has none.

        Raises:
            UsageError: rows are reset by themselves, or there is not one segment per row.
            ActionError: a token is outside the vocabulary.
        """
        self.check_resets()
        arrays = [np.asarray(row, dtype=np.int64) for row in tokens]
        if len(arrays) != self.num_envs:
            raise UsageError(f"{len(arrays)} segments for {self.num_envs} rows.")
        self.check_segment(np.concatenate(arrays))
        length = max(map(len, arrays))
        padded = np.full((self.num_envs, max(length, 1)), -1, dtype=np.int64)
        for row, array in enumerate(arrays):
            padded[row, : len(array)] = array
        rewards = np.zeros(self.num_envs)
        finals: dict[int, dict[str, Any]] = {}
        acted = (padded[:, 0] >= 0) & ~self.episodes.state.done
        for column in padded.T:
            acting = column >= 0
            # Tool responses are asked for together, so only when a row cannot go on without.
            if self.episodes.waiting(acting):
                self.episodes.respond()
            gained, ended = self.episodes.act(np.maximum(column, 0), acting)
            rewards += gained
            finals.update(ended)
        self.episodes.respond()
        return self._result(rewards, finals, acted)

    def speak(self, token_N: IntArray) -> Any:
        """Actions of all rows that say these tokens plainly."""
        return self.family.speak(token_N, self.hidden_size, self.support)

    def check_resets(self) -> None:
        """Raise `UsageError` unless resets are left to the agent."""
        if self.autoreset_mode is not AutoresetMode.DISABLED:
            raise UsageError(
                "who takes segments says when a row gets a new question; make the environment with "
                f"autoreset_mode={AutoresetMode.DISABLED.value!r}, as "
                "latentgym.registry.make_vector_env does."
            )

    def check_segment(self, tokens: IntArray) -> None:
        """Raise `ActionError` unless all tokens are in the vocabulary."""
        family_of("token").read(tokens, self.task.tokenizer.vocab_size)

    def render(self) -> tuple[Any, ...]:
        """The transcript of every row, see `LatentEnv.render`."""
        return self.call("render")

    def _result(
        self,
        rewards: npt.NDArray[np.float64],
        finals: dict[int, dict[str, Any]],
        told: BoolArray,
    ) -> StepResult:
        """What a step returns, where these episodes have ended and these rows have news."""
        episodes = self.episodes
        ended = np.isin(np.arange(self.num_envs), list(finals))
        terminated, truncated = ended & episodes.state.terminated, ended & episodes.state.truncated
        observation = self.observe()
        if self.autoreset_mode is AutoresetMode.SAME_STEP and finals:
            finals = {
                row: {
                    "final_obs": one(observation, row),
                    "final_info": {**episodes.info(row), **final},
                }
                for row, final in finals.items()
            }
            self._start(ended)
            observation = self.observe()
        infos = episodes.infos(told)
        for row, final in finals.items():
            infos = self._add_info(infos, final, row)
        return observation, rewards, terminated, truncated, infos

    # Rows as environments of their own, as `SyncVectorEnv` has them.

    @property
    def envs(self) -> list[LatentEnv]:
        """Each row as a single environment: a view, not a copy."""
        if self._envs is None:
            from latentgym.envs.single import LatentEnv

            self._envs = [LatentEnv.of_row(self, row) for row in range(self.num_envs)]
        return self._envs

    def call(self, name: str, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Call a method of every row, or read an attribute; the results by row."""
        found = [env.get_wrapper_attr(name) for env in self.envs]
        return tuple(x(*args, **kwargs) if callable(x) else x for x in found)

    def get_attr(self, name: str) -> tuple[Any, ...]:
        """An attribute of every row."""
        return self.call(name)

    def set_attr(self, name: str, values: Any) -> None:
        """Set an attribute of every row.

        Args:
            name: of the attribute.
            values: a list or tuple with one for each row, or one value for all.

        Raises:
            UsageError: another number of values than rows.
        """
        values = values if isinstance(values, list | tuple) else [values] * self.num_envs
        if len(values) != self.num_envs:
            raise UsageError(f"{len(values)} values for {self.num_envs} rows.")
        for env, value in zip(self.envs, values, strict=True):
            env.set_wrapper_attr(name, value)

    @property  # type: ignore[misc]
    def np_random(self) -> Any:
        """The generator of each row."""
        return tuple(self.generators[row] for row in range(self.num_envs))

    @property
    def np_random_seed(self) -> Any:
        """The seed of each row's generator; -1 where somebody has given another generator."""
        return self.generators.seeds


def batch_of_one(action: Any) -> Any:
    """An action as a batch of one row.

    Raises:
        ActionError: it is no array.
    """
    if isinstance(action, dict):
        return {name: as_array(part, name)[None] for name, part in action.items()}
    return as_array(action, "an action")[None]


def bounded(spec: EnvSpec | None, rules: Protocol) -> EnvSpec | None:
    """A specification that says how many steps an episode may take."""
    if spec is not None:
        spec = copy.deepcopy(spec)
        spec.max_episode_steps = rules.max_actions
    return spec


def check_render_mode(mode: str | None, known: Sequence[str], env: str) -> None:
    """Raise `OptionError` unless there is such a render mode."""
    if mode is not None and mode not in known:
        raise OptionError(f"{env} has no render mode {mode!r}; choose {' or '.join(known)}.")


def _mode(value: AutoresetMode | str) -> AutoresetMode:
    try:
        return AutoresetMode(value)
    except ValueError:
        known = ", ".join(mode.value for mode in AutoresetMode)
        raise UsageError(f"no autoreset_mode {value!r}; choose one of {known}.") from None
