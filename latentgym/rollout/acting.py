"""Taking what an engine has decoded to a vector environment, and what came of it.

An environment of ours takes whole segments. One with wrappers around it is stepped through them,
one action at a time, so that they see every step; their rewards and infos count. What they cannot
change is what is asked, observed and done, as the engine has read and decided that already: this is
seen from what they do, not from what they are, and refused.

Legend: N rows.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from latentgym.errors import UsageError, told
from latentgym.rollout.rollouts import IntArray

Info = dict[str, Any]
BoolArray = npt.NDArray[np.bool_]


@dataclass
class Taken:
    """What came of some actions.

    Attributes:
        reward_N: what each row was given for them, float64.
        finals: the final infos of the rows that ended, by row.
        tool_responses: what the environment says in the rows that cannot go on without, token ids
            by row.
    """

    reward_N: npt.NDArray[np.float64]
    finals: dict[int, Info]
    tool_responses: dict[int, list[int]]


class Actor(Protocol):
    """Plays episodes of which somebody else decides the actions."""

    def reset(self, index_N: IntArray) -> None:
        """Start an episode in each of the first rows: the numbers of their questions."""
        ...

    def take(self, segments: Sequence[IntArray], waiting: IntArray) -> Taken:
        """Act.

        Args:
            segments: further tokens of each of these rows, by which its actions are read.
            waiting: the rows that need a response behind them.
        """
        ...


def actor(env: Any) -> Actor:
    """What plays the episodes of a vector environment.

    Raises:
        UsageError: it resets rows by itself, has wrappers that cannot be honoured, or is a vector
            of single environments.
    """
    if not hasattr(env.unwrapped, "step_segment"):
        raise UsageError(
            f"{type(env.unwrapped).__name__} has no rows of one batched environment; make it with "
            "latentgym.registry.make_vector_env(id, num_envs=n)."
        )
    return _Segments(env) if env is env.unwrapped else _Steps(env)


def unstepped(env: Any, who: str) -> Any:
    """The environment below its wrappers, for those who never step it.

    Raises:
        UsageError: there are wrappers, which would change nothing.
    """
    if env is not env.unwrapped and hasattr(env.unwrapped, "num_envs"):
        raise UsageError(
            f"{who} never steps its environment, so the wrappers around it ({env}) would change "
            "nothing; give it env.unwrapped."
        )
    return env.unwrapped


class _Segments:
    """Hands over whole segments."""

    def __init__(self, env: Any) -> None:
        self._env = env

    def reset(self, index_N: IntArray) -> None:
        mask_N = np.arange(self._env.num_envs) < len(index_N)
        self._env.reset(options={"index": index_N, "reset_mask": mask_N})
        self._n = len(index_N)

    def take(self, segments: Sequence[IntArray], waiting: IntArray) -> Taken:
        idle: list[Any] = [[]] * (self._env.num_envs - self._n)
        observation, reward_N, _, _, info = self._env.step_segment([*segments, *idle])
        ended = np.flatnonzero(info.get("_score", np.zeros(self._n, dtype=bool))[: self._n])
        return Taken(
            reward_N[: self._n],
            {row: row_info(info, row) for row in ended.tolist()},
            {row: inserted(observation, row) for row in waiting.tolist()},
        )


class _Steps:
    """Steps through wrappers, each action given as the token by which it is read.

    A row whose actions have run out waits for the environment's response, and holds up the
    others until it is given.
    """

    def __init__(self, env: Any) -> None:
        self._env, self._base = env, env.unwrapped
        self._base.check_resets()
        for kind in ("single_action_space", "single_observation_space"):
            if getattr(env, kind) != getattr(self._base, kind):
                raise self._refused(f"change the {kind}")

    def reset(self, index_N: IntArray) -> None:
        self._n = len(index_N)
        self._queues: list[deque[int]] = [deque() for _ in index_N]
        mask_N = np.arange(self._base.num_envs) < self._n
        observation, _ = self._env.reset(options={"index": index_N, "reset_mask": mask_N})
        if not np.array_equal(self._base.episodes.index_N[: self._n], index_N):
            raise self._refused("ask other questions")
        self._check(observation)

    def take(self, segments: Sequence[IntArray], waiting: IntArray) -> Taken:
        taken = Taken(np.zeros(self._n), {}, {})
        for queue, tokens in zip(self._queues, segments, strict=True):
            queue.extend(np.asarray(tokens).tolist())
        while True:
            running_N = ~self._base.episodes.state.done[: self._n]
            out = [row for row in np.flatnonzero(running_N).tolist() if not self._queues[row]]
            if out or not running_N.any():
                observation = self._base.episodes.observe()
                taken.tool_responses = {row: inserted(observation, row) for row in out}
                return taken
            self._step(running_N, taken)

    def _step(self, running_N: BoolArray, taken: Taken) -> None:
        token_N = np.zeros(self._base.num_envs, dtype=np.int64)
        running = np.flatnonzero(running_N)
        token_N[running] = [self._queues[row].popleft() for row in running.tolist()]
        observation, reward_N, terminated_N, truncated_N, info = self._env.step(
            self._base.speak(token_N)
        )
        if not np.array_equal(self._base.episodes.last_N[running], token_N[running]):
            raise self._refused("change actions")
        self._check(observation)
        over_N = self._base.episodes.state.done[: self._n]
        if not np.array_equal((terminated_N | truncated_N)[running], over_N[running]):
            raise self._refused("end episodes, or go on where they end")
        given_N = np.asarray(reward_N, dtype=np.float64)
        if given_N.shape != token_N.shape or not np.isfinite(given_N[running]).all():
            raise UsageError(
                f"the wrappers {self._env} give rewards that are not one finite number for each "
                "row; mend the one that does."
            )
        taken.reward_N[running] += given_N[running]
        for row in running[over_N[running]].tolist():
            # Wrappers add to what the task says of an episode; the grader's score stays its own.
            given = row_info(info, row, f"the wrappers {self._env}")
            taken.finals[row] = {**given, **self._base.episodes.final(row)}

    def _check(self, observation: Any) -> None:
        own = self._base.episodes.observe()
        same = isinstance(observation, Mapping) and observation.keys() == own.keys()
        if not same or not all(np.array_equal(observation[k], own[k]) for k in own):
            raise self._refused("change observations")

    def _refused(self, what: str) -> UsageError:
        return UsageError(
            f"the wrappers {self._env} {what}, but the rollout engine has read its prompt and "
            "decided on its actions by the environment itself; use wrappers of rewards and infos "
            "only, and options of the environment for the rest."
        )


def row_info(info: Any, row: int, who: str = "the environment") -> Info:
    """What a batch of infos, or a list of them, tells of one row, as plain data.

    Args:
        info: of all rows.
        row: which one.
        who: gives them, for the error.

    Raises:
        UsageError: one of them does not have an entry for the row.
    """
    if not isinstance(info, Mapping):
        return {name: _plain(value) for name, value in _entry(info, row, "info", who).items()}
    found = {}
    for name, value in info.items():
        mask = info.get(f"_{name}")
        if not name.startswith("_") and (mask is None or _entry(mask, row, f"_{name}", who)):
            inner = isinstance(value, Mapping)
            found[name] = (
                row_info(value, row, who) if inner else _plain(_entry(value, row, name, who))
            )
    return found


def _entry(values: Any, row: int, name: str, who: str) -> Any:
    """The entry of a row, of what should have one for each."""
    try:
        if isinstance(values, str | bytes):
            raise TypeError("a text has no rows")
        return values[row]
    except (TypeError, LookupError) as error:
        raise UsageError(
            f"the info {name!r} of {who} is {told(values)}, with no entry for row {row}; "
            "make it an array with one entry for each row, as Gymnasium's vector environments do."
        ) from error


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(inner) for name, inner in value.items()}
    return value.tolist() if isinstance(value, np.generic | np.ndarray) else value


def inserted(observation: Mapping[str, Any], row: int) -> list[int]:
    """What the environment has inserted last in a row."""
    ids: list[int] = observation["inserted"][row, : observation["inserted_length"][row]].tolist()
    return ids
