"""Many questions on a few rows: where an episode ends, the next question takes its place.

A step costs a small batch nearly what it costs a large one, as the weights must be read for both.
So a batch that waits for its longest episode wastes half of its time and more. Here questions wait
instead: as soon as a quarter of the rows have ended, as many questions take their places, in the
same batch. Rows that called a tool are answered at the same moments. Each episode is what it would
be in any other batch.

Legend: G rows per question.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from latentgym.errors import UsageError
from latentgym.rollout.acting import Info, inserted, row_info
from latentgym.rollout.collect import Episodes, by_length
from latentgym.rollout.engine import Engine
from latentgym.rollout.rollouts import IntArray, Rollouts
from latentgym.rollout.session import Session


@dataclass
class _Place:
    """A row of the environment and what its episode has come to."""

    told: int = 0
    reward: float = 0.0
    final: Info | None = None


class Queue:
    """Questions of an environment, and the rows that answer them.

    Args:
        engine: with the policy; its steps are not compiled.
        env: a vector environment of ours without wrappers, which leaves resets to the agent.
        questions: their numbers.
        group_size: G.
        seed: of the random numbers.

    Raises:
        UsageError: the environment has fewer than G rows.
    """

    def __init__(
        self, engine: Engine, env: Any, questions: IntArray, group_size: int, seed: int
    ) -> None:
        if group_size > env.num_envs:
            raise UsageError(
                f"{group_size} samples of a question are collected together, but the environment "
                f"has {env.num_envs} rows; make it with num_envs={group_size} or more."
            )
        self.engine, self.env, self.questions = engine, env, questions
        self.group, self.seed = group_size, seed
        self._next = deque(by_length(env, questions).tolist())
        self._free = list(range(env.num_envs // group_size))  # groups of rows of the env
        self._session: Session | None = None
        self._asked: list[tuple[int, int]] = []  # of each group of the session: question, group
        self._rows: dict[int, _Place] = {}  # by row of the environment

    def run(self) -> Iterator[tuple[IntArray, Episodes]]:
        """Answer all.

        Yields:
            Positions in `questions`, and the episodes of those questions: as many at once as there
            are rows for, so that numbers of a batch are of many.
        """
        ended, size = list[tuple[IntArray, Episodes]](), len(self._free)
        for part in self._ended():
            ended.append(part)
            if sum(len(places) for places, _ in ended) >= size:
                yield _together(ended)
                ended = []
        if ended:
            yield _together(ended)

    def _ended(self) -> Iterator[tuple[IntArray, Episodes]]:
        """Questions and their episodes, as they end."""
        self._refill()
        while (session := self._session) is not None:
            n = len(session.prompt_N)
            standing = len(session.done)
            more = self._next or self.env.protocol.tool_call is not None
            session.run(until=standing + max(1, n // 4) if more else None)
            self._play(session)
            ended_G = np.isin(np.arange(n), session.done).reshape(-1, self.group).all(1)
            if ended_G.any():
                yield self._take(session, np.flatnonzero(ended_G))
            self._refill()

    def _refill(self) -> None:
        """Start questions in the groups of rows that are free."""
        count = min(len(self._free), len(self._next))
        if not count:
            return
        places = [self._next.popleft() for _ in range(count)]
        groups = [self._free.pop() for _ in range(count)]
        index = self.questions[places]
        mask_N, index_N = np.zeros(self.env.num_envs, dtype=bool), np.zeros(self.env.num_envs, int)
        for group, number in zip(groups, index.tolist(), strict=True):
            mine = slice(group * self.group, (group + 1) * self.group)
            mask_N[mine], index_N[mine] = True, number
        self.env.reset(options={"index": index_N[mask_N], "reset_mask": mask_N})
        self._rows |= {row: _Place() for row in np.flatnonzero(mask_N).tolist()}
        session = self.engine.start(
            [self.env.prompt(int(i)) for i in index],
            self.env.protocol,
            seed=self.seed,
            group_size=self.group,
            question_Q=index,
        )
        if self._session is None:
            self._session = session
        else:
            self._session.join(session)
        self._asked += zip(places, groups, strict=True)

    def _row(self, row: int) -> int:
        """The row of the environment behind one of the session."""
        return self._asked[row // self.group][1] * self.group + row % self.group

    def _play(self, session: Session) -> None:
        """Tell the environment what rows that ended or wait have done, and rows what it says."""
        waiting = session.waiting.tolist()
        fresh = [r for r in session.done.tolist() if self._rows[self._row(r)].final is None]
        rows = np.array([*fresh, *waiting], dtype=np.int64)
        if not rows.size:
            return
        record, segments = session.record(rows), [np.zeros(0, dtype=np.int64)] * self.env.num_envs
        for i, row in enumerate(rows.tolist()):
            tokens, place = record.action_tokens(i), self._rows[self._row(row)]
            segments[self._row(row)], place.told = tokens[place.told :], len(tokens)
        observation, reward_N, _, _, info = self.env.step_segment(segments)
        for row in rows.tolist():
            at = self._row(row)
            self._rows[at].reward += float(reward_N[at])
        for row in fresh:
            at = self._row(row)
            ended = bool(info.get("_score", np.zeros(self.env.num_envs, dtype=bool))[at])
            self._rows[at].final = row_info(info, at) if ended else {}
        if waiting:
            said = [inserted(observation, self._row(row)) for row in waiting]
            session.insert(np.array(waiting), said)

    def _take(self, session: Session, groups: IntArray) -> tuple[IntArray, Episodes]:
        """The episodes of some groups of the session, whose rows become free."""
        rows = (groups[:, None] * self.group + np.arange(self.group)).ravel()
        ended = [self._rows.pop(self._row(row)) for row in rows.tolist()]
        record = session.take(rows)
        asked = [self._asked[group] for group in groups.tolist()]
        self._asked = [each for each in self._asked if each not in asked]
        self._free += [group for _, group in asked]
        if not self._asked:
            self._session = None
        return np.array([place for place, _ in asked]), self._episodes(record, ended)

    def _episodes(self, record: Rollouts, ended: Sequence[_Place]) -> Episodes:
        reward_N: npt.NDArray[np.float64] = np.array([place.reward for place in ended])
        finals = {row: place.final or {} for row, place in enumerate(ended)}
        return Episodes.played(self.engine, self.env, record, reward_N, finals)


def _together(parts: Sequence[tuple[IntArray, Episodes]]) -> tuple[IntArray, Episodes]:
    places = np.concatenate([places for places, _ in parts])
    return places, Episodes.concatenate([episodes for _, episodes in parts])
