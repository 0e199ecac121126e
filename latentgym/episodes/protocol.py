"""How an episode runs, in token ids only: phases, budgets and markers.

An episode is one question. It has two phases: *think*, then *answer*. Environments and the
rollout engine must agree to the step on when a thought ends, when an answer is complete and
what the environment inserts in between, so both drive the same vectorised state machine, the
`EpisodeState`. It knows nothing of text, models or methods.

Shapes: N rows, V vocabulary, S states of a marker.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from latentgym.errors import UsageError

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
Array = Any
"""Of NumPy, or a tensor: see `EpisodeState`."""


class Phase(IntEnum):
    """What a row is doing. `CALL` waits for the environment to insert tokens (a search result)."""

    THINK = 0
    ANSWER = 1
    TOOL_CALL = 2
    DONE = 3


_THINK, _ANSWER, _TOOL_CALL, _DONE = map(int, Phase)  # plain numbers, for torch's compiler


class StopMatcher:
    """Finds a text in a stream of token ids, however the marker is split over tokens.

    A Knuth-Morris-Pratt automaton over characters, composed with the text of every vocabulary
    entry: `next_SV[state, token]` is the state after that token. One table lookup a step
    replaces the decoding of text, and the marker is found in any tokenisation.

    Args:
        text: what to find, not empty.
        pieces: the text of each token id, length V.
    """

    def __init__(self, text: str, pieces: Sequence[str]) -> None:
        if not text:
            raise UsageError("a marker cannot be the empty string; leave it out instead.")
        self.text = text
        self.final = len(text)
        step = _kmp(text)
        relevant = set(text)
        # A token without any character of the marker leads to state 0, so only a few need a walk.
        self.next_SV = np.zeros((self.final + 1, len(pieces)), dtype=np.int16)
        for token, piece in enumerate(pieces):
            if relevant.isdisjoint(piece):
                if not piece:  # an empty piece (a control token) leaves the state alone
                    self.next_SV[:, token] = np.arange(self.final + 1)
                continue
            for state in range(self.final):
                s = state
                for char in piece:
                    s = step[s].get(char, 0)
                    if s == self.final:
                        break
                self.next_SV[state, token] = s
        self.next_SV[self.final] = self.next_SV[0]

    def before(self, state: int, tokens: IntArray) -> int:
        """How many of the tokens stand before the one that completes the marker; all if none."""
        step = self.next_SV.item
        for count, token in enumerate(tokens.tolist()):
            state = step(state, token)
            if state == self.final:
                return count
        return len(tokens)

    def after(self, state: int, tokens: IntArray) -> int:
        """The state after all of the tokens."""
        step = self.next_SV.item
        for token in tokens.tolist():
            state = step(state, token)
        return state


def _kmp(marker: str) -> list[dict[str, int]]:
    """Transitions of the automaton that finds `marker`: one dict per state, missing means 0."""
    step: list[dict[str, int]] = [{marker[0]: 1}]
    fallback = 0
    for i in range(1, len(marker)):
        row = dict(step[fallback])
        row[marker[i]] = i + 1
        fallback = step[fallback].get(marker[i], 0)
        step.append(row)
    return step


@dataclass(frozen=True)
class Budget:
    """The most steps of a phase; `exact` makes it the number of steps, whatever is thought."""

    steps: int
    exact: bool = False

    def __post_init__(self) -> None:
        if self.steps < 0:
            raise UsageError(f"a budget cannot be negative, but is {self.steps}.")


@dataclass(frozen=True)
class Protocol:
    """The rules of an episode.

    Attributes:
        think: budget of thoughts. With `exact`, markers and end-of-sequence are ignored in it.
        answer: budget of answer tokens. With `exact`, reaching it completes the answer.
        marker: ends the think phase; the token that completes it is a plain token, no thought.
        stop: ends an answer.
        tool_call: a marker after which the environment responds (a search request); thinking goes
            on after.
        max_tool_calls: how many times it does so; a marker beyond that is only text. None for
            always.
        max_tool_response: the most ids of one response.
        eos: end-of-sequence ids.
        force_answer: when thinking ends without its marker, insert `forced_prompt` and open the
            answer phase; otherwise the episode ends there (terminated by end-of-sequence, else
            truncated).
        forced_prompt: ids that the environment inserts on the way from thoughts to a forced answer.
    """

    think: Budget
    answer: Budget
    marker: StopMatcher | None = field(default=None, compare=False)
    stop: StopMatcher | None = field(default=None, compare=False)
    tool_call: StopMatcher | None = field(default=None, compare=False)
    max_tool_calls: int | None = None
    max_tool_response: int = 0
    eos: tuple[int, ...] = ()
    force_answer: bool = True
    forced_prompt: tuple[int, ...] = ()

    @property
    def turn_steps(self) -> int:
        """The most positions that one turn can add to what was read, its forced prompt included."""
        return self.think.steps + len(self.forced_prompt) + self.answer.steps

    @property
    def cutting(self) -> dict[str, int]:
        """The budgets that can cut an episode off, `think` and `answer`, and their steps."""
        forced = self.force_answer or self.think.exact
        budgets = {} if forced else {"think": self.think.steps}
        return budgets if self.answer.exact else {**budgets, "answer": self.answer.steps}

    @property
    def max_actions(self) -> int:
        """The most actions of an episode; what the environment inserts is none."""
        return self.think.steps + self.answer.steps

    @property
    def max_steps(self) -> int:
        """The most positions that an episode can add to its prompt, as far as calls are bounded."""
        return self.turn_steps + (self.max_tool_calls or 0) * self.max_tool_response


class EpisodeState:
    """Runs the protocol for N rows at once.

    `advance` takes the token by which each row's action is read: the token itself, or for a
    superposition the id of greatest weight. Rows that are done, or wait for the environment, are
    left alone. What the environment inserts is no action: whoever feeds a whole prompt at once
    calls `resume`, whoever feeds token by token passes the `forced` ids to `advance`.

    Environments keep it in arrays of NumPy, the rollout engine in tensors where the model is
    (`EpisodeTensors`): the rules are written in what both know, and in shapes that do not depend
    on what is in them.

    Attributes:
        phase, think_used, answer_used, tool_calls_used: int64 arrays of shape (N,).
        forced_left: how many tokens of the forced prompt a row must still read, shape (N,).
        terminated, truncated: bool arrays of shape (N,).
    """

    _where: Any = staticmethod(np.where)

    def __init__(self, protocol: Protocol, n: int) -> None:
        self.protocol = protocol
        self._forced_prompt = self._array(np.array([*protocol.forced_prompt, -1], dtype=np.int64))
        zeros, false = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=bool)
        self.phase, self.think_used, self.answer_used = (self._array(zeros) for _ in range(3))
        self.tool_calls_used, self.forced_left = self._array(zeros), self._array(zeros)
        self._marker_state, self._stop_state = self._array(zeros), self._array(zeros)
        self._tool_call_state = self._array(zeros)
        self.terminated, self.truncated = self._array(false), self._array(false)
        self.reset(self._array(~false))

    def _array(self, values: npt.NDArray[Any]) -> Any:
        """An array of the state's own with these values."""
        return values.copy()

    def _table(self, matcher: StopMatcher) -> Any:
        """The transitions of a text that is looked for, (S, V)."""
        return matcher.next_SV

    @property
    def done(self) -> Array:
        """Rows whose episode has ended."""
        return self.phase == _DONE

    def reset(self, rows: Array) -> None:
        """Start a new episode in `rows`, a mask."""
        where, p = self._where, self.protocol
        self.phase = where(rows, _THINK, self.phase)
        self.think_used, self.answer_used, self.tool_calls_used, self.forced_left = (
            where(rows, 0, x)
            for x in (self.think_used, self.answer_used, self.tool_calls_used, self.forced_left)
        )
        self._marker_state, self._stop_state, self._tool_call_state = (
            where(rows, 0, x) for x in (self._marker_state, self._stop_state, self._tool_call_state)
        )
        self.terminated, self.truncated = self.terminated & ~rows, self.truncated & ~rows
        if p.think.steps == 0:
            self._leave_think(rows, by_force=rows)

    def forced(self) -> Array:
        """The forced token that each row must read next, -1 where it is free; int64 (N,)."""
        return self._forced_prompt[len(self.protocol.forced_prompt) - self.forced_left]

    def advance(self, token_N: Array, acting_N: Array | None = None) -> Array:
        """Count one action per row; rows in the forced prompt read one of its tokens instead.

        Args:
            token_N: the token by which each action is read, int64 of shape (N,).
            acting_N: which rows act at all; None for all. The others are left alone.

        Returns:
            Which of the actions the model reads as their plain token. These are the answer tokens
            and the thought that completes the marker, bool of shape (N,).
        """
        acting = self.phase >= 0 if acting_N is None else acting_N
        as_token = acting & (self.phase == _ANSWER)
        reading = as_token & (self.forced_left > 0)
        thinking = acting & (self.phase == _THINK)
        self.forced_left = self.forced_left - self._count(reading)
        marked = self._think(thinking, token_N)
        self._answer(as_token & ~reading, token_N)
        return as_token | marked

    def _think(self, thinking: Array, token_N: Array) -> Array:
        """Count thoughts; which of them complete the marker."""
        p, where = self.protocol, self._where
        self.think_used = self.think_used + self._count(thinking)
        spent = thinking & (self.think_used >= p.think.steps)
        marked = ended = thinking & False
        if not p.think.exact:
            marked, self._marker_state = self._found(
                p.marker, self._marker_state, thinking, token_N
            )
            ended = thinking & self._ends(token_N) & ~marked
        if p.tool_call is not None and not p.think.exact:
            called, self._tool_call_state = self._found(
                p.tool_call, self._tool_call_state, thinking, token_N
            )
            called = called & ~(marked | ended | spent)
            if p.max_tool_calls is not None:
                called = called & (self.tool_calls_used < p.max_tool_calls)
            self.tool_calls_used = self.tool_calls_used + self._count(called)
            self.phase = where(called, _TOOL_CALL, self.phase)
        out = (ended | spent) & ~marked
        if p.force_answer or p.think.exact:
            self._leave_think(marked | out, by_force=out)
        else:
            self._leave_think(marked, by_force=None)
            self.phase = where(out, _DONE, self.phase)
            self.terminated = self.terminated | (out & ended)
            self.truncated = self.truncated | (out & ~ended)
        return marked

    def _answer(self, answering: Array, token_N: Array) -> None:
        """Count answer tokens."""
        p = self.protocol
        self.answer_used = self.answer_used + self._count(answering)
        spent = answering & (self.answer_used >= p.answer.steps)
        stopped = spent
        if not p.answer.exact:
            found, self._stop_state = self._found(p.stop, self._stop_state, answering, token_N)
            stopped = found | (answering & self._ends(token_N))
        self.phase = self._where(stopped | spent, _DONE, self.phase)
        self.terminated = self.terminated | stopped
        self.truncated = self.truncated | (spent & ~stopped)

    def pass_over(self, row: int, tokens: IntArray) -> int:
        """Count a row's next actions up to the first that is an event: ends a phase, or calls.

        The same as `advance` on each of them, but a hundred times faster: between events an action
        changes nothing but counts.

        Args:
            row: the row; other rows are left alone.
            tokens: by which its actions are read, int64 (n,).

        Returns:
            How many were counted; `advance` takes the one behind them.
        """
        p, phase = self.protocol, self.phase[row]
        if phase not in (Phase.THINK, Phase.ANSWER) or self.forced_left[row]:
            return 0
        thinking = phase == Phase.THINK
        budget, used = (p.think, self.think_used) if thinking else (p.answer, self.answer_used)
        tokens = tokens[: max(0, budget.steps - int(used[row]) - 1)]
        watched = (
            [(p.marker, self._marker_state), (p.tool_call, self._tool_call_state)]
            if thinking
            else [(p.stop, self._stop_state)]
        )
        if not budget.exact:
            ends = np.flatnonzero(np.isin(tokens, p.eos))
            tokens = tokens[: ends[0]] if ends.size else tokens
            for table, state_N in watched:
                ends_here = table is not p.tool_call or self._may_call_tool(row)
                if table is not None and ends_here:
                    tokens = tokens[: table.before(int(state_N[row]), tokens)]
        for table, state_N in watched:
            if table is not None and not budget.exact:
                state_N[row] = table.after(int(state_N[row]), tokens)
        used[row] += len(tokens)
        return len(tokens)

    def resume(self, rows: Array) -> None:
        """The environment has responded: what it forced is read, and rows that waited think on.

        Args:
            rows: their numbers.
        """
        self.forced_left[rows] = 0
        phase = self.phase[rows]
        waits = phase == _TOOL_CALL
        self.phase[rows] = self._where(waits, _THINK, phase)

    def _may_call_tool(self, row: int) -> bool:
        """Whether a row has a call left."""
        most = self.protocol.max_tool_calls
        return most is None or bool(self.tool_calls_used[row] < most)

    def _leave_think(self, rows: Array, *, by_force: Array | None) -> None:
        """Open the answer phase; an answer budget of zero ends the episode at once.

        Args:
            rows: those that leave it, a mask.
            by_force: those of them that the environment leads to their answer.
        """
        where = self._where
        if self.protocol.answer.steps == 0:
            self.phase = where(rows, _DONE, self.phase)
            self.terminated = self.terminated | rows
            return
        self.phase = where(rows, _ANSWER, self.phase)
        if by_force is not None and self.protocol.forced_prompt:
            self.forced_left = where(by_force, len(self.protocol.forced_prompt), self.forced_left)

    def _count(self, rows: Array) -> Array:
        """1 where the mask is true."""
        return self._where(rows, 1, 0)

    def _ends(self, token_N: Array) -> Array:
        """Which tokens are ends of sequence."""
        ends = token_N < 0
        for eos in self.protocol.eos:
            ends = ends | (token_N == eos)
        return ends

    def _found(
        self, matcher: StopMatcher | None, state_N: Array, rows: Array, token_N: Array
    ) -> tuple[Array, Array]:
        """Of some rows, which find a text with their tokens; and the states of all after that."""
        if matcher is None:
            return rows & False, state_N
        state_N = self._where(rows, self._table(matcher)[state_N, token_N], state_N)
        return rows & (state_N == matcher.final), state_N
