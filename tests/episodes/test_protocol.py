"""Markers are found in any tokenisation, and the episode state keeps the rules of an episode."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from latentgym.episodes.protocol import Budget, EpisodeState, Phase, Protocol, StopMatcher
from latentgym.errors import UsageError
from latentgym.rollout.episode_tensors import EpisodeTensors

TEXT = st.text("ab#", max_size=12)


class PlainSearch:
    """Finds a mark by looking at all the text since it was last found."""

    def __init__(self, marker: str | None) -> None:
        self.marker, self.text = marker, ""

    def found_after(self, piece: str) -> bool:
        self.text += piece
        if self.marker is None or self.marker not in self.text:
            return False
        self.text = ""
        return True


def hits(table: StopMatcher, tokens: list[int]) -> list[bool]:
    state, found = 0, []
    for token in tokens:
        state = int(table.next_SV[state, token])
        found.append(state == table.final)
    return found


@given(st.text("ab#", min_size=1, max_size=5), st.lists(TEXT, min_size=1, max_size=6), st.data())
def test_marks_are_found_like_by_plain_search(
    marker: str, pieces: list[str], data: st.DataObject
) -> None:
    tokens = data.draw(st.lists(st.integers(0, len(pieces) - 1), max_size=30))
    search = PlainSearch(marker)
    expected = [search.found_after(pieces[token]) for token in tokens]
    assert hits(StopMatcher(marker, pieces), tokens) == expected


@given(TEXT, TEXT, st.sets(st.integers(0, 30)))
def test_a_mark_is_found_however_it_is_split(before: str, after: str, cuts: set[int]) -> None:
    marker, text = "##a#", f"{before}##a#{after}"
    ends = sorted({c for c in cuts if c < len(text)} | {0, len(text)})
    pieces = [text[a:b] for a, b in pairwise(ends)]
    first = next(i for i, end in enumerate(ends[1:]) if marker in text[:end])
    assert hits(StopMatcher(marker, pieces), list(range(len(pieces)))).index(True) == first


def test_a_token_without_text_leaves_a_mark_half_read() -> None:
    assert hits(StopMatcher("##", ["#", "", "x"]), [0, 1, 0, 0, 2, 0]) == [
        *(False, False, True),
        *(False, False, False),
    ]


def test_an_empty_mark_is_refused() -> None:
    with pytest.raises(UsageError, match="empty"):
        StopMatcher("", ["a"])


def test_a_negative_budget_is_refused() -> None:
    with pytest.raises(UsageError, match="negative"):
        Budget(-1)


# The state, against the same rules in plain Python for one row.

PIECES = ["#", "##", "a", "b", "", "a#b"]
EOS = 4


@dataclass
class Rules:
    """A protocol, and its marks as text for the plain reference."""

    protocol: Protocol
    marker: str | None
    stop: str | None
    call: str | None


@st.composite
def rules(draw: st.DrawFn) -> Rules:
    markers = [draw(st.sampled_from([None, "##", "a#", "b"])) for _ in range(3)]
    tables = [None if marker is None else StopMatcher(marker, PIECES) for marker in markers]
    budget = st.builds(Budget, st.integers(0, 5), st.booleans())
    protocol = Protocol(
        think=draw(budget),
        answer=draw(budget),
        marker=tables[0],
        stop=tables[1],
        tool_call=tables[2],
        max_tool_calls=draw(st.sampled_from([None, 0, 1, 2])),
        eos=draw(st.sampled_from([(), (EOS,)])),
        force_answer=draw(st.booleans()),
        forced_prompt=draw(st.sampled_from([(), (2,), (3, 0)])),
    )
    return Rules(protocol, *markers)


class OneRow:
    """The rules of an episode, told step by step."""

    def __init__(self, rules: Rules) -> None:
        self.rules, self.p = rules, rules.protocol
        self.phase, self.thoughts, self.said, self.forced_prompt = Phase.THINK, 0, 0, 0
        self.calls = 0
        self.terminated = self.truncated = False
        self.marker, self.stop = PlainSearch(rules.marker), PlainSearch(rules.stop)
        self.call = PlainSearch(rules.call)
        if self.p.think.steps == 0:
            self.open_answer(by_force=True)

    def open_answer(self, by_force: bool) -> None:
        if self.p.answer.steps == 0:
            self.end(terminated=True)
            return
        self.phase = Phase.ANSWER
        self.forced_prompt = len(self.p.forced_prompt) if by_force else 0

    def end(self, terminated: bool) -> None:
        self.phase, self.terminated, self.truncated = Phase.DONE, terminated, not terminated

    def advance(self, token: int) -> bool:
        if self.phase == Phase.THINK:
            return self.think(token)
        if self.phase != Phase.ANSWER:
            return False
        if self.forced_prompt:
            self.forced_prompt -= 1
            return True
        self.said += 1
        stopped = self.stop.found_after(PIECES[token]) or token in self.p.eos
        full = self.said >= self.p.answer.steps
        if self.p.answer.exact:
            stopped = full
        if stopped or full:
            self.end(terminated=stopped)
        return True

    def think(self, token: int) -> bool:
        self.thoughts += 1
        marked = self.marker.found_after(PIECES[token])
        called = self.call.found_after(PIECES[token])
        ended, full = token in self.p.eos, self.thoughts >= self.p.think.steps
        if self.p.think.exact:
            if full:
                self.open_answer(by_force=True)
        elif marked:
            self.open_answer(by_force=False)
            return True
        elif ended or full:
            if self.p.force_answer:
                self.open_answer(by_force=True)
            else:
                self.end(terminated=ended)
        elif called and (self.p.max_tool_calls is None or self.calls < self.p.max_tool_calls):
            self.phase, self.calls = Phase.TOOL_CALL, self.calls + 1
        return False


@given(
    rules(), st.lists(st.lists(st.integers(0, 5), min_size=3, max_size=3), max_size=20), st.data()
)
def test_the_state_keeps_the_rules_for_every_row(
    rules: Rules, stream: list[list[int]], data: st.DataObject
) -> None:
    state, rows = EpisodeState(rules.protocol, 3), [OneRow(rules) for _ in range(3)]
    for tokens in stream:
        forced = state.forced()
        for i, row in enumerate(rows):
            forced_prompt = rules.protocol.forced_prompt
            waits = row.forced_prompt and row.phase != Phase.DONE
            assert (
                forced[i]
                == (
                    forced_prompt[len(forced_prompt) - row.forced_prompt]
                    if row.forced_prompt
                    else -1
                )
                or not waits
            )
        if data.draw(st.booleans()):
            state.resume(np.arange(3))
            for row in rows:
                row.forced_prompt = 0
                row.phase = Phase.THINK if row.phase == Phase.TOOL_CALL else row.phase
        as_token = state.advance(np.array(tokens))
        assert as_token.tolist() == [row.advance(t) for row, t in zip(rows, tokens, strict=True)]
        assert state.phase.tolist() == [row.phase for row in rows]
        assert state.think_used.tolist() == [row.thoughts for row in rows]
        assert state.answer_used.tolist() == [row.said for row in rows]
        assert state.tool_calls_used.tolist() == [row.calls for row in rows]
        assert state.terminated.tolist() == [row.terminated for row in rows]
        assert state.truncated.tolist() == [row.truncated for row in rows]


STREAMS = st.lists(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=3, max_size=3))


@given(rules(), STREAMS)
def test_tensors_follow_the_same_rules(rules: Rules, stream: list[list[tuple[int, bool]]]) -> None:
    """The rollout engine keeps the state where its model is."""
    arrays = EpisodeState(rules.protocol, 3)
    tensors = EpisodeTensors(rules.protocol, 3, torch.device("cpu"))
    for step in stream:
        token_N, acting_N = np.array([t for t, _ in step]), np.array([a for _, a in step])
        expected = arrays.advance(token_N, acting_N)
        found = tensors.advance(torch.from_numpy(token_N), torch.from_numpy(acting_N))
        assert found.tolist() == expected.tolist()
        assert tensors.forced().tolist() == arrays.forced().tolist()
        for name, value in vars(arrays).items():
            if name != "protocol":
                assert getattr(tensors, name).tolist() == value.tolist(), name
        waiting = np.flatnonzero(arrays.phase == Phase.TOOL_CALL)[:1]
        arrays.resume(waiting)
        tensors.resume(torch.from_numpy(waiting))


@given(rules(), STREAMS)
def test_rows_that_do_not_act_are_left_alone(
    rules: Rules, stream: list[list[tuple[int, bool]]]
) -> None:
    """Entirely: each row is what it would be if the steps at which it stands still had not been."""
    together, alone = (
        EpisodeState(rules.protocol, 3),
        [EpisodeState(rules.protocol, 1) for _ in range(3)],
    )
    for step in stream:
        token_N, acting_N = np.array([t for t, _ in step]), np.array([a for _, a in step])
        as_token = together.advance(token_N, acting_N)
        expected = [
            bool(acts and state.advance(np.array([token]))[0])
            for (token, acts), state in zip(step, alone, strict=True)
        ]
        assert as_token.tolist() == expected
        assert together.forced().tolist() == [int(state.forced()[0]) for state in alone]
        for name, value in vars(together).items():
            if name not in ("protocol", "_forced_prompt"):
                rows = [vars(state)[name][0] for state in alone]
                np.testing.assert_array_equal(value, rows, name)


@given(rules(), st.lists(st.integers(0, 5), max_size=12))
def test_passing_over_is_advancing(rules: Rules, tokens: list[int]) -> None:
    """And what it leaves to `advance` is an event."""
    fast, plain = EpisodeState(rules.protocol, 2), EpisodeState(rules.protocol, 2)
    rows, array = np.arange(2), np.array(tokens, dtype=np.int64)
    for state in (fast, plain):
        state.resume(rows)
        state.phase[1] = Phase.DONE
    taken = 0
    while True:
        passed = fast.pass_over(0, array[taken:])
        for token in tokens[taken : taken + passed]:
            before = plain.phase[0]
            plain.advance(np.array([token, 0]))
            assert plain.phase[0] == before
        taken += passed
        for name in ("phase", "think_used", "answer_used", "_marker_state", "_stop_state"):
            np.testing.assert_array_equal(getattr(fast, name), getattr(plain, name), name)
        np.testing.assert_array_equal(fast._tool_call_state, plain._tool_call_state)
        if taken == len(tokens) or plain.phase[0] == Phase.DONE:
            break
        before = plain.phase[0]
        for state in (fast, plain):
            state.advance(np.array([tokens[taken], 0]))
        assert plain.phase[0] != before
        for state in (fast, plain):
            state.resume(rows)
        taken += 1


def test_reset_starts_only_the_rows_it_names() -> None:
    state = EpisodeState(Protocol(think=Budget(1), answer=Budget(1)), 2)
    for _ in range(2):
        state.advance(np.array([0, 0]))
    assert state.done.all()
    state.reset(np.array([True, False]))
    assert state.phase.tolist() == [Phase.THINK, Phase.DONE]
    assert state.think_used.tolist() == [0, 1]
    assert state.truncated.tolist() == [False, True]


def test_a_mark_half_read_does_not_survive_a_reset() -> None:
    state = EpisodeState(
        Protocol(think=Budget(9), answer=Budget(1), marker=StopMatcher("##", PIECES)), 1
    )
    state.advance(np.array([0]))
    state.reset(np.array([True]))
    state.advance(np.array([0]))
    assert state.phase[0] == Phase.THINK
    state.advance(np.array([0]))
    assert state.phase[0] == Phase.ANSWER


def test_max_steps_counts_what_an_episode_adds() -> None:
    rules = Protocol(think=Budget(5), answer=Budget(3), forced_prompt=(1, 2), max_tool_response=7)
    assert rules.turn_steps == rules.max_steps == 10
    assert replace(rules, max_tool_calls=2).max_steps == 24
