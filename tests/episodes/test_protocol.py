"""Marks are found in any tokenisation, and the clock keeps the rules of an episode."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentgym.episodes.protocol import Budget, Clock, MarkTable, Phase, Protocol
from latentgym.errors import UsageError

TEXT = st.text("ab#", max_size=12)


class PlainSearch:
    """Finds a mark by looking at all the text since it was last found."""

    def __init__(self, mark: str | None) -> None:
        self.mark, self.text = mark, ""

    def found_after(self, piece: str) -> bool:
        self.text += piece
        if self.mark is None or self.mark not in self.text:
            return False
        self.text = ""
        return True


def hits(table: MarkTable, tokens: list[int]) -> list[bool]:
    state, found = 0, []
    for token in tokens:
        state = int(table.next_SV[state, token])
        found.append(state == table.final)
    return found


@given(st.text("ab#", min_size=1, max_size=5), st.lists(TEXT, min_size=1, max_size=6), st.data())
def test_marks_are_found_like_by_plain_search(
    mark: str, pieces: list[str], data: st.DataObject
) -> None:
    tokens = data.draw(st.lists(st.integers(0, len(pieces) - 1), max_size=30))
    search = PlainSearch(mark)
    expected = [search.found_after(pieces[token]) for token in tokens]
    assert hits(MarkTable(mark, pieces), tokens) == expected


@given(TEXT, TEXT, st.sets(st.integers(0, 30)))
def test_a_mark_is_found_however_it_is_split(before: str, after: str, cuts: set[int]) -> None:
    mark, text = "##a#", f"{before}##a#{after}"
    ends = sorted({c for c in cuts if c < len(text)} | {0, len(text)})
    pieces = [text[a:b] for a, b in pairwise(ends)]
    first = next(i for i, end in enumerate(ends[1:]) if mark in text[:end])
    assert hits(MarkTable(mark, pieces), list(range(len(pieces)))).index(True) == first


def test_a_token_without_text_leaves_a_mark_half_read() -> None:
    assert hits(MarkTable("##", ["#", "", "x"]), [0, 1, 0, 0, 2, 0]) == [
        *(False, False, True),
        *(False, False, False),
    ]


def test_an_empty_mark_is_refused() -> None:
    with pytest.raises(UsageError, match="empty"):
        MarkTable("", ["a"])


def test_a_negative_budget_is_refused() -> None:
    with pytest.raises(UsageError, match="negative"):
        Budget(-1)


# The clock, against the same rules in plain Python for one row.

PIECES = ["#", "##", "a", "b", "", "a#b"]
EOS = 4


@dataclass
class Rules:
    """A protocol, and its marks as text for the plain reference."""

    protocol: Protocol
    mark: str | None
    stop: str | None
    call: str | None


@st.composite
def rules(draw: st.DrawFn) -> Rules:
    marks = [draw(st.sampled_from([None, "##", "a#", "b"])) for _ in range(3)]
    tables = [None if mark is None else MarkTable(mark, PIECES) for mark in marks]
    budget = st.builds(Budget, st.integers(0, 5), st.booleans())
    protocol = Protocol(
        think=draw(budget),
        answer=draw(budget),
        mark=tables[0],
        stop=tables[1],
        call=tables[2],
        calls=draw(st.sampled_from([None, 0, 1, 2])),
        eos=draw(st.sampled_from([(), (EOS,)])),
        force_answer=draw(st.booleans()),
        bridge=draw(st.sampled_from([(), (2,), (3, 0)])),
    )
    return Rules(protocol, *marks)


class OneRow:
    """The rules of an episode, told step by step."""

    def __init__(self, rules: Rules) -> None:
        self.rules, self.p = rules, rules.protocol
        self.phase, self.thoughts, self.said, self.bridge = Phase.THINK, 0, 0, 0
        self.calls = 0
        self.terminated = self.truncated = False
        self.mark, self.stop = PlainSearch(rules.mark), PlainSearch(rules.stop)
        self.call = PlainSearch(rules.call)
        if self.p.think.steps == 0:
            self.open_answer(bridged=True)

    def open_answer(self, bridged: bool) -> None:
        if self.p.answer.steps == 0:
            self.end(terminated=True)
            return
        self.phase = Phase.ANSWER
        self.bridge = len(self.p.bridge) if bridged else 0

    def end(self, terminated: bool) -> None:
        self.phase, self.terminated, self.truncated = Phase.DONE, terminated, not terminated

    def advance(self, token: int) -> bool:
        if self.phase == Phase.THINK:
            return self.think(token)
        if self.phase != Phase.ANSWER:
            return False
        if self.bridge:
            self.bridge -= 1
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
        marked = self.mark.found_after(PIECES[token])
        called = self.call.found_after(PIECES[token])
        ended, full = token in self.p.eos, self.thoughts >= self.p.think.steps
        if self.p.think.exact:
            if full:
                self.open_answer(bridged=True)
        elif marked:
            self.open_answer(bridged=False)
            return True
        elif ended or full:
            if self.p.force_answer:
                self.open_answer(bridged=True)
            else:
                self.end(terminated=ended)
        elif called and (self.p.calls is None or self.calls < self.p.calls):
            self.phase, self.calls = Phase.CALL, self.calls + 1
        return False


@given(
    rules(), st.lists(st.lists(st.integers(0, 5), min_size=3, max_size=3), max_size=20), st.data()
)
def test_the_clock_keeps_the_rules_for_every_row(
    rules: Rules, stream: list[list[int]], data: st.DataObject
) -> None:
    clock, rows = Clock(rules.protocol, 3), [OneRow(rules) for _ in range(3)]
    for tokens in stream:
        forced = clock.forced()
        for i, row in enumerate(rows):
            bridge = rules.protocol.bridge
            waits = row.bridge and row.phase != Phase.DONE
            assert (
                forced[i] == (bridge[len(bridge) - row.bridge] if row.bridge else -1) or not waits
            )
        if data.draw(st.booleans()):
            clock.resume(np.arange(3))
            for row in rows:
                row.bridge = 0
                row.phase = Phase.THINK if row.phase == Phase.CALL else row.phase
        spoken = clock.advance(np.array(tokens))
        assert spoken.tolist() == [row.advance(t) for row, t in zip(rows, tokens, strict=True)]
        assert clock.phase.tolist() == [row.phase for row in rows]
        assert clock.think_used.tolist() == [row.thoughts for row in rows]
        assert clock.answer_used.tolist() == [row.said for row in rows]
        assert clock.calls_used.tolist() == [row.calls for row in rows]
        assert clock.terminated.tolist() == [row.terminated for row in rows]
        assert clock.truncated.tolist() == [row.truncated for row in rows]


@given(
    rules(), st.lists(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=3, max_size=3))
)
def test_rows_that_do_not_act_are_left_alone(
    rules: Rules, stream: list[list[tuple[int, bool]]]
) -> None:
    """Entirely: each row is what it would be if the steps at which it stands still had not been."""
    together, alone = Clock(rules.protocol, 3), [Clock(rules.protocol, 1) for _ in range(3)]
    for step in stream:
        token_N, acting_N = np.array([t for t, _ in step]), np.array([a for _, a in step])
        spoken = together.advance(token_N, acting_N)
        expected = [
            bool(acts and clock.advance(np.array([token]))[0])
            for (token, acts), clock in zip(step, alone, strict=True)
        ]
        assert spoken.tolist() == expected
        assert together.forced().tolist() == [int(clock.forced()[0]) for clock in alone]
        for name, value in vars(together).items():
            if name != "protocol":
                rows = [vars(clock)[name][0] for clock in alone]
                np.testing.assert_array_equal(value, rows, name)


@given(rules(), st.lists(st.integers(0, 5), max_size=12))
def test_passing_over_is_advancing(rules: Rules, tokens: list[int]) -> None:
    """And what it leaves to `advance` is an event."""
    fast, plain = Clock(rules.protocol, 2), Clock(rules.protocol, 2)
    rows, array = np.arange(2), np.array(tokens, dtype=np.int64)
    for clock in (fast, plain):
        clock.resume(rows)
        clock.phase[1] = Phase.DONE
    taken = 0
    while True:
        passed = fast.pass_over(0, array[taken:])
        for token in tokens[taken : taken + passed]:
            before = plain.phase[0]
            plain.advance(np.array([token, 0]))
            assert plain.phase[0] == before
        taken += passed
        for name in ("phase", "think_used", "answer_used", "_mark_state", "_stop_state"):
            np.testing.assert_array_equal(getattr(fast, name), getattr(plain, name), name)
        np.testing.assert_array_equal(fast._call_state, plain._call_state)
        if taken == len(tokens) or plain.phase[0] == Phase.DONE:
            break
        before = plain.phase[0]
        for clock in (fast, plain):
            clock.advance(np.array([tokens[taken], 0]))
        assert plain.phase[0] != before
        for clock in (fast, plain):
            clock.resume(rows)
        taken += 1


def test_reset_starts_only_the_rows_it_names() -> None:
    clock = Clock(Protocol(think=Budget(1), answer=Budget(1)), 2)
    for _ in range(2):
        clock.advance(np.array([0, 0]))
    assert clock.done.all()
    clock.reset(np.array([True, False]))
    assert clock.phase.tolist() == [Phase.THINK, Phase.DONE]
    assert clock.think_used.tolist() == [0, 1]
    assert clock.truncated.tolist() == [False, True]


def test_a_mark_half_read_does_not_survive_a_reset() -> None:
    clock = Clock(Protocol(think=Budget(9), answer=Budget(1), mark=MarkTable("##", PIECES)), 1)
    clock.advance(np.array([0]))
    clock.reset(np.array([True]))
    clock.advance(np.array([0]))
    assert clock.phase[0] == Phase.THINK
    clock.advance(np.array([0]))
    assert clock.phase[0] == Phase.ANSWER


def test_max_steps_counts_what_an_episode_adds() -> None:
    rules = Protocol(think=Budget(5), answer=Budget(3), bridge=(1, 2), reply=7)
    assert rules.turn_steps == rules.max_steps == 10
    assert replace(rules, calls=2).max_steps == 24
