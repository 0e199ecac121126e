"""Answers have a kind and parts, and are read whole or not at all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentgym.rewards.answer import Answer, read, same
from latentgym.rewards.number import NumberOutOfBoundsError


def no_algebra(gold: Answer, answer: Answer) -> bool:
    raise AssertionError(f"{answer.text!r} for {gold.text!r} needs no algebra")


@pytest.mark.parametrize(
    ("text", "kind", "parts"),
    [
        ("5", "number", []),
        (r"12\text{ cm}^2", "number", []),
        (r"\frac{-33}{2}", "number", []),
        ("12{,}650", "number", []),
        ("1,234,567", "number", []),
        ("12,650", "list", ["12", "650"]),
        ("12,650, 13,000", "list", ["12,650", "13,000"]),
        ("1,2, 3", "list", ["1", "2", "3"]),
        ("(1,2), (3,4)", "list", ["(1,2)", "(3,4)"]),
        (r"6, 8\text{, and }10", "list", ["6", "8", "10"]),
        (r"1 \pm \sqrt{2}", "list", [r"1 + \sqrt{2}", r"1 - \sqrt{2}"]),
        (r"\{1\pm\sqrt{5},-2\}", "set", [r"1+\sqrt{5}", r"1-\sqrt{5}", "-2"]),
        ("(1, 2]", "tuple", ["1", "2"]),
        (r"\left( -\infty, \frac{3}{4} \right)", "tuple", [r"-\infty", r"\frac{3}{4}"]),
        ("(t-7)(t+7)", "expression", []),
        ("((5))", "number", []),
        (r"\max(1,2)", "expression", []),
        (r"480 + 480\sqrt{3}\text{ feet}", "expression", []),
        ("2s", "expression", []),
        (r"\begin{pmatrix} 4 \\ -3 \end{pmatrix}", "expression", []),
        ("x = 3", "equation", ["x", "3"]),
        (r"x \in [0,1)", "equation", ["x", "[0,1)"]),
        ("100 + 25 = 125", "equation", ["100 + 25", "125"]),
        (r"-80\leq g(x)\leq 82", "relation", []),
        (r"(-\infty,2) \cup (2,4)", "relation", []),
        ("1 : 2", "ratio", ["1", "2"]),
        (r"8\!:\!34 \text{ p.m.}", "ratio", ["8", "34"]),
        (r"9\text{ a.m.}", "ratio", ["9", "0"]),
        (r"\text{even}", "text", []),
        (r"\text{(B)}", "text", []),
        ("31_{4}", "text", []),
        ("LQSX", "text", []),
        ("18 and a half", "list", ["18", "a half"]),
    ],
)
def test_kinds(text: str, kind: str, parts: list[str]) -> None:
    answer = read(text)
    assert answer is not None
    assert (answer.kind, [part.text for part in answer.parts]) == (kind, parts)


@pytest.mark.parametrize("text", ["", " ", "$$", r"\!", "."])
def test_nothing_is_no_answer(text: str) -> None:
    assert read(text) is None


NUMBERS = st.integers(-999, 999).map(str)
MEMBERS = st.lists(NUMBERS, min_size=2, max_size=6, unique=True)


@given(MEMBERS, st.randoms(use_true_random=False))
def test_order_counts_in_brackets_alone(members: list[str], random: object) -> None:
    shuffled = sorted(members)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    for form in ("{}", r"\{{{}\}}", "({})", "[{}]", "({}]", "[{})"):
        gold, answer = (read(form.format(", ".join(m))) for m in (members, shuffled))
        assert gold is not None and answer is not None
        ordered = form not in ("{}", r"\{{{}\}}")
        assert same(gold, answer, no_algebra) == (not ordered or shuffled == members)


@given(MEMBERS)
def test_brackets_are_part_of_an_answer(members: list[str]) -> None:
    inside = ", ".join(members)
    forms = [read(form.format(inside)) for form in ("({})", "[{}]", "({}]", "[{})", "{}")]
    for i, gold in enumerate(forms):
        for j, answer in enumerate(forms):
            assert gold is not None and answer is not None
            assert same(gold, answer, no_algebra) == (i == j)


@given(MEMBERS)
def test_nothing_may_be_left_out_or_added(members: list[str]) -> None:
    for form in ("{}", r"\{{{}\}}", "({})"):
        gold = read(form.format(", ".join(members)))
        for others in (members[1:], members[:-1], [*members, "1000"], ["".join(members)]):
            answer = read(form.format(", ".join(others)))
            assert gold is not None and answer is not None
            assert not same(gold, answer, no_algebra)


@given(st.text(alphabet="0123456789,.:=<>+-*/^_!%() []{}\\xyabmil$\n", max_size=80))
def test_whatever_is_said_can_be_read(text: str) -> None:
    try:
        answer = read(text)
    except NumberOutOfBoundsError:
        return
    assert answer is None or same(answer, answer, lambda gold, given: gold == given)
