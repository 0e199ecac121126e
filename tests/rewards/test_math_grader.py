"""MathGrader: extraction, the cheap path, and what is left to math-verify."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentgym.rewards import GraderError, MathGrader, maths
from latentgym.rewards.extract import last_box, last_dollars, statement

grade = MathGrader()


@pytest.fixture
def no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(gold: str, answer: str) -> str:
        raise AssertionError(f"{answer!r} for {gold!r} went to the worker")

    monkeypatch.setattr(maths._SANDBOX, "compare", refuse)


@pytest.mark.usefixtures("no_worker")
@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        (r"\dfrac{1}{2}", r"\frac12"),
        ("0.5", r"\frac{1}{2}"),
        ("1/2", r"\frac{1}{2}"),
        (r"10{,}000", "10000"),
        (r"10,\!000", r"10\,000"),
        (r"\$ 18.90", "18.9"),
        (r"45^\circ", "45"),
        (r"12\text{ cm}^2", "12"),
        ("12 square cm", "12"),
        (r"5 \text{ miles}.", "5"),
        (r"\left(1, 2\right]", "(1,2]"),
        (r"\text{Friday}", "friday"),
        (r"\text{(B)}", "B"),
        (r"x = 5", "5"),
        (r"5", "x=5"),
        (r"\text{area} = 5 \text{ cm}^2", "5"),
        (r"area = 5 square cm", "5"),
        (r"AB = 2\sqrt3 cm", r"2\sqrt{3}"),
        (r"x \in (1,2]", "(1,2]"),
        (r"\sqrt 2", r"\sqrt{2}"),
        (r"6, 8\text{, and }10", "6,8,10"),
        (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix}1\\2\end{pmatrix}"),
        (r"x^{2}+1", "x^2 + 1"),
        (r"31_{4}", "31_4"),
        (".50", r"\frac{1}{2}"),
        ("3\N{GREEK SMALL LETTER PI}", r"3\pi"),
    ],
)
def test_cheap_equality(answer: str, gold: str) -> None:
    assert grade(f"so \\boxed{{{answer}}}.", gold).score == 1.0


@pytest.mark.usefixtures("no_worker")
@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("0.33", r"\frac{1}{3}"),
        ("12", "13"),
        ("3xy", "3"),
        ("Fridya", r"\text{Friday}"),
        ("31_6", "31_4"),
        ("31", "31_4"),
        ("x", "5"),
        ("y = 5", "x = 5"),
        (r"\text{none}", "5"),
    ],
)
def test_cheap_difference(answer: str, gold: str) -> None:
    result = grade(f"so \\boxed{{{answer}}}.", gold)
    assert (result.score, result.status) == (0.0, "ok")


@pytest.mark.parametrize(
    ("answer", "gold", "score"),
    [
        (r"(x+1)^2", r"x^2+2x+1", 1.0),
        (r"\frac{\sqrt{2}}{2}", r"\frac{1}{\sqrt{2}}", 1.0),
        (r"\frac{6}{4}\pi", r"\frac{3\pi}{2}", 1.0),
        (r"2^{10}", "1024", 1.0),
        (r"x \in (1, \frac{4}{2}]", "(1,2]", 1.0),
        (r"x = \sqrt{50}", r"5\sqrt{2}", 1.0),
        (r"AB = \sqrt{50}", r"5\sqrt{2}", 1.0),
        (r"\{2, 1\}", r"\{1, 2\}", 1.0),
        (r"2x - y = 0", "y = 2x", 1.0),
        (r"1+\sqrt3", r"\sqrt3 + 1", 1.0),
        (r"\begin{pmatrix} 2/2 \\ 2 \end{pmatrix}", r"\begin{pmatrix}1\\2\end{pmatrix}", 1.0),
        (r"(x+1)^2", r"x^2+2x+2", 0.0),
        (r"(2, 1)", r"(1, 2)", 0.0),
        (r"(1, 2]", "[1, 2)", 0.0),
        (r"\sqrt{2}", r"\sqrt{3}", 0.0),
        (r"2x - y = 1", "y = 2x", 0.0),
    ],
)
def test_symbolic(answer: str, gold: str, score: float) -> None:
    result = grade(f"so \\boxed{{{answer}}}.", gold)
    assert (result.score, result.status) == (score, "ok")


@pytest.mark.parametrize(
    ("text", "content", "count"),
    [
        (r"\boxed{1} then \boxed{2}", "2", 2),
        (r"\boxed{1} cut off \boxed{2", "1", 1),
        (r"\frac{1}{ \boxed{3}", "3", 1),
        (r"\boxed{\boxed{5}}", r"\boxed{5}", 1),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}", 1),
        (r"\boxed{\{1\}}", r"\{1\}", 1),
        (r"\fbox{7}", "7", 1),
        (r"\framebox{7}", "7", 1),
        (r"\boxed 5.", "5", 1),
        (r"\boxed", None, 0),
        ("a box {5}", None, 0),
        ("", None, 0),
    ],
)
def test_last_box(text: str, content: str | None, count: int) -> None:
    assert last_box(text) == (content, count)


def test_fallbacks_and_strict() -> None:
    assert grade("We find $x^2$ and then $\\frac12$.", "0.5").score == 1.0
    assert grade("It is $3$ dollars, so \\$5", "3").score == 1.0
    assert grade("In the end 42 remain.", "42").score == 1.0
    assert grade("$5", "5").score == 1.0
    strict = MathGrader(strict=True)
    assert strict("In the end $42$ remain.", "42").status == "no_answer"
    assert strict(r"\boxed{42}", "42").score == 1.0


def test_last_dollars() -> None:
    assert last_dollars("$$a$$") == "a"
    assert last_dollars("$a$ and $b$ cost $5") == "b"
    assert last_dollars("no maths") is None


def test_statement() -> None:
    assert statement("think\n#### Yes\nmore") == "Yes"
    assert statement("The answer is: yes.\nBye") == "yes."
    assert statement("one\ntwo\n") == "two"
    assert statement("") == ""


def test_format_is_one_box() -> None:
    assert grade(r"\boxed{5}", "5").components == {"correct": 1.0, "format": 1.0}
    assert grade(r"\boxed{4} \boxed{5}", "5").components == {"correct": 1.0, "format": 0.0}
    assert grade("5", "5").components == {"correct": 1.0, "format": 0.0}


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        ("", "no_answer"),
        (r"\boxed{}", "no_answer"),
        (r"\boxed{" + "1+" * 250 + "1}", "too_long"),
        ("{" * 300_000, "too_long"),
        (r"\boxed{9^{9^{9^{9}}}}", "invalid"),
        (r"\boxed{9**9**9**9}", "invalid"),
        (r"\boxed{" + r"\sqrt{" * 40 + "2" + "}" * 41, "invalid"),
        (r"\boxed{100000!}", "invalid"),
        (r"\boxed{2^{100000000}}", "invalid"),
        ("\\boxed{\x00\\pi}", "invalid"),
        ("\\boxed{\u202e\\pi}", "invalid"),
        ("\\boxed{\ud800\\pi}", "invalid"),
        (r"\boxed{__import__('os')}", "invalid"),
        (r"\boxed{\frac{}{}}", "invalid"),
    ],
)
def test_refused(answer: str, status: str) -> None:
    result = grade(answer, r"\frac{\pi}{7}")
    assert (result.score, result.status) == (0.0, status)


@pytest.mark.parametrize("gold", ["", "  ", "$$", "1" * 3000, "5/0"])
def test_bad_gold_raises(gold: str) -> None:
    with pytest.raises(GraderError):
        grade(r"\boxed{5}", gold)


def test_gold_that_only_text_can_match() -> None:
    assert grade(r"\boxed{\sin^2 t}", r"\sin^2 t").score == 1.0
    assert grade(r"\boxed{\cos t}", r"\sin^2 t").score == 0.0


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet="0123456789xy+-*/^_{}()[]\\frac sqrt,.=<>!&|", max_size=40))
def test_soup_never_raises_nor_scores(text: str) -> None:
    assert grade(f"\\boxed{{{text}}}", r"\frac{\pi}{7}").score == 0.0
