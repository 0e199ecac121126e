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
        (r"x \in (1,2]", "(1,2]"),
        (r"6, 8\text{, and }10", "6,8,10"),
        (r"31_{4}", "31_4"),
        (".50", r"\frac{1}{2}"),
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
        ("Fridya", r"\text{Friday}"),
        ("31_6", "31_4"),
        ("31", "31_4"),
        (r"\text{none}", "5"),
    ],
)
def test_cheap_difference(answer: str, gold: str) -> None:
    result = grade(f"so \\boxed{{{answer}}}.", gold)
    assert (result.score, result.status) == (0.0, "ok")


RIGHT = [
    (r"\frac{9}{5}", r"1\frac{4}{5}"),
    ("1 1/4", r"\frac54"),
    ("110,70", "70,110"),
    (r"\frac{52!}{47!\,5!}", "2598960"),
    (r"9:00\text{ a.m.}", r"9\text{ a.m.}"),
    ("y=2x+1", "2x-y+1=0"),
    ("x=-1, x=3", "-1,3"),
    ("√16", "4"),
    ("1i", "i"),
    (r"\mathbb{R}", r"(-\infty,\infty)"),
    (r"\sum_{k=1}^{100}k", "5050"),
    (r"2\pi cm", r"2\pi"),
    (r"50\%", "50"),
    (r"50\%", "0.5"),
    (r"50\%", r"\frac12"),
    (r"1 \pm \sqrt 2", r"1+\sqrt2, 1-\sqrt2"),
    ("x<3", r"(-\infty,3)"),
    (r"x \in (1,2]", "(1,2]"),
    (r"\{1,2\}", "2,1"),
    ("Friday", r"\text{Friday}"),
    ("31_{4}", "31_4"),
    (r"12\text{ cm}^2", "12"),
    ("12 square cm", "12"),
    ("10,000", "10000"),
    ("10{,}000", "10000"),
    (r"10\,000", "10000"),
    (r"10,\!000", "10000"),
    (r"45^\circ", "45"),
    (r"(1,2]\cup\{3\}", r"\{3\}\cup(1,2]"),
    (r"\left(\frac12, 3\right)", "(0.5,3)"),
    ("(B)", "B"),
    (r"\text{(B)}", "B"),
    (r"\log_2 8", "3"),
    (r"\binom{5}{2}", "10"),
    ("3!", "6"),
    (r"\lfloor 2.5\rfloor", "2"),
    ("|-3|", "3"),
    ("x = 5", "5"),
    ("5", "x=5"),
    (r"\text{area} = 5 \text{ cm}^2", "5"),
    ("area = 5 square cm", "5"),
    (r"AB = 2\sqrt3 cm", r"2\sqrt{3}"),
    (r"\sqrt 2", r"\sqrt{2}"),
    (r"6, 8\text{, and }10", "6,8,10"),
    (r"x \in (1, \frac{4}{2}]", "(1,2]"),
    (r"x = \sqrt{50}", r"5\sqrt{2}"),
    (r"AB = \sqrt{50}", r"5\sqrt{2}"),
    (r"\sin 30^\circ", r"\frac12"),
    ("(3i)^2", "-9"),
    ("(2+3i)(2-3i)", "13"),
    ("5 + 45i", "5+45i"),
    (r"e^{i\pi/3}", r"\frac{1 + i\sqrt{3}}{2}"),
    ("0.56", r"0.56 = 56\%"),
    (r"56\%", r"0.56 = 56\%"),
    (r"\frac23", r"\$\dfrac23 \approx \$0.67"),
    ("8.24", r"\approx 8.24 \text{ mph}"),
    (r"-80\le g(x) \le 82", r"-80\leq g(x)\leq 82"),
    (r"\{-2, 1-\sqrt5, 1+\sqrt5\}", r"\{1\pm\sqrt{5},-2\}"),
    (r"[2,3]\cup[0,1]", r"[0,1]\cup[2,3]"),
    (r"480(1+\sqrt3)", r"480 + 480\sqrt{3}\text{ feet}"),
    ("x>3", r"(3,\infty)"),
    ("3 < x", r"(3,\infty)"),
    ("x^2+y^2-13=0", "x^2+y^2=13"),
    (r"\frac{x^2}{16} - \frac{y^2}{9} - 1 = 0", r"\frac{x^2}{16} - \frac{y^2}{9} = 1"),
    ("(x+3)(x-3)", "x^2-9"),
    ("3pi/2", r"\frac{3\pi}{2}"),
    ("sqrt(16)", "4"),
    ("-16x^4(4x^2-4x+1)", "-64x^6+64x^5-16x^4"),
    ("(1,2), (3,4)", "(3,4),(1,2)"),
    ("100 + 25 = 125", "125"),
    ("2^9", "512"),
    ("2 million", "2000000"),
    (r"\frac{\pi}{2}", r"\frac\pi2"),
    (r"\overline{CD}", r"\overline{CD}"),
    (r"\begin{pmatrix} 2/2 \\ 2 \end{pmatrix}", r"\begin{pmatrix}1\\2\end{pmatrix}"),
    ("AB=9,CD=4", "AB=9, CD=4"),
    (r"\tan \theta = 2\theta", r"\tan \theta = 2\theta"),
    ("D, E", r"\text{E, D}"),
    (r"\text{B and C}", r"\text{B,C}"),
    ("05:00", "5:00"),
    (r"\frac{-1}{3}", r"-\frac13"),
    (r"\mathbb{R}\setminus\{1\}", r"(-\infty,1)\cup(1,\infty)"),
    ("x=3", r"\{3\}"),
    (r"-2 \text{ or } -12", "-12,-2"),
    (r"0.\overline{3}", r"\frac13"),
    (r"(x+1)^2", "x^2+2x+1"),
    (r"\frac{\sqrt{2}}{2}", r"\frac{1}{\sqrt{2}}"),
    (r"\frac{6}{4}\pi", r"\frac{3\pi}{2}"),
    ("2x - y = 0", "y = 2x"),
    (r"1+\sqrt3", r"\sqrt3 + 1"),
    ("x^{2}+1", "x^2 + 1"),
    ("3\N{GREEK SMALL LETTER PI}", r"3\pi"),
    ("[0,2]\N{INTERSECTION}[1,3]", "[1,2]"),
    (r"x \approx 8.24", "8.24"),
    (r"\approx 8.24\text{ mph}", "8.24"),
    (r"x = \frac23 \approx 0.67", "2/3"),
    (r"(\frac23 \approx 0.67, 3)", "(2/3,3)"),
    (r"(100,\,200)", "(100,200)"),
    (r"\{100,\,200\}", r"\{100, 200\}"),
    (r"2\,xyz", "2xyz"),
    ("2abc+1", "1+2abc"),
    (r"\frac{abc}{2}", r"\frac{1}{2}abc"),
    (r"x\cdot y\cdot z", "xyz"),
    ("5 abc", "5abc"),
    (r"3\frac{1}{2}\pi", r"\frac{7\pi}{2}"),
    (r"2\frac12\sqrt3", r"\frac{5\sqrt3}{2}"),
    (r"x \in (-\infty,1)\cup(1,\infty)", r"(-\infty,1)\cup(1,\infty)"),
    (r"x \in \mathbb{R}", r"\mathbb{R}"),
    ("x=1,2", "1,2"),
    (r"x = 1 \text{ or } 2", "1,2"),
    ("x_1 = 1, x_2 = 2", "1,2"),
    ("(x,y) = (1,2)", "(1,2)"),
    (r"(r,\theta) = (2,\pi)", r"(2,\pi)"),
    ("m + n = 70", "70"),
    ("m + n = 2 + 3 = 5", "5"),
    (r"\frac{m}{n}=2", "2"),
    (r"\sin\theta=\frac12", r"\frac12"),
    ("f^{-1}(2)=3", "3"),
    ("[ABC] = 5", "5"),
    (r"\begin{pmatrix}1\\[2pt]2\end{pmatrix}", r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}"),
    (r"\left(\begin{array}{cc}1&2\\3&4\end{array}\right)", r"\begin{pmatrix}1&2\\3&4\end{pmatrix}"),
    (r"\sum_{i=1}^{10} i", "55"),
    (r"\sqrt[3]{-8}", "-2"),
    (r"-\sqrt[3]{2}", r"\sqrt[3]{-2}"),
    (r"10\text{ percent}", r"10\%"),
    (r"\displaystyle.5", "0.5"),
    (r"\boldsymbol{5}", "5"),
    (r"\varnothing", r"\emptyset"),
    (r"3 \cdot 10^{40}", r"3 \cdot 10^{40}"),
    (r"30 \cdot 10^{39}", r"3 \cdot 10^{40}"),
]
WRONG = [
    (r"\frac{14}{5}", r"1\frac{4}{5}"),
    ("(-36,104)", "[-36,104]"),
    ("(0,100)", "[0,100]"),
    ("70110", "70,110"),
    (r"\frac{1}{2^{99}}", r"\frac{1}{2^{98}}"),
    (r"-\frac{1}{2^{98}}", r"\frac{1}{2^{98}}"),
    (r"\frac{1}{2006!}", r"\frac{1}{2004!}"),
    (r"8:34\text{ a.m.}", r"8\!:\!34 \text{ p.m.}"),
    (r"9\text{ p.m.}", r"9\text{ a.m.}"),
    ("2:05", "4:10"),
    (r"3.5\text{ million}", "3.5"),
    ("√16", "6"),
    ("6=5", "5"),
    ("5:1", "5"),
    ("1 0", "10"),
    (r"0.5\%", "1/2"),
    (r"\{1,2\}", "(1,2)"),
    (r"x\le 3", r"(-\infty,3)"),
    ("(1,2)", "1,2"),
    ("0.333333", "1/3"),
    (r"\text{Friday}", r"\text{Fridya}"),
    ("31_4", "31_6"),
    ("31", "31_4"),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", "(1,2)"),
    ("[1,2)", "(1,2)"),
    ("5x+3", "5y+3"),
    ("y = 5", "x = 5"),
    ("2x - y = 1", "y = 2x"),
    ("3xy", "3"),
    ("x", "5"),
    (r"\sin 30^\circ", r"\sin 30"),
    (r"-80< g(x) \le 82", r"-80\leq g(x)\leq 82"),
    ("13", "x^2+y^2=13"),
    ("(2,1), (3,4)", "(3,4),(1,2)"),
    ("18!", "18"),
    ("18^2", "18"),
    ("18 or 19", "18"),
    ("18=19", "18"),
    ("18 million", "18"),
    ("1.8e1.5", "18"),
    (r"60\sqrt{2}", "60"),
    (r"\sqrt{60}", "60"),
    (r"60 \text{ or } 7", "60"),
    ("60, 7, 8", "60"),
    ("2^9", "2"),
    ("9,4", "AB=9, CD=4"),
    (r"\mathbb{R}", r"(-\infty,1)\cup(1,\infty)"),
    (r"(x+1)^2", "x^2+2x+2"),
    ("(2, 1)", "(1, 2)"),
    ("(1, 2]", "[1, 2)"),
    (r"\sqrt{2}", r"\sqrt{3}"),
    ("x - x + 1", "x"),
    (r"x / 2^{99}", r"x / 2^{98}"),
    (r"\frac23 \approx 0.67", "0.67"),
    ("x^2 abc", "x^2"),
    (r"3\frac{1}{2}\pi", r"\frac{3\pi}{2}"),
    (r"2\frac12\sqrt3", r"\sqrt3"),
    ("x_1 = 1, x_2 = 2", "1,3"),
    ("(x,y) = (2,1)", "(1,2)"),
    ("m + n = 2 + 3 = 6", "5"),
    (r"\displaystyle.5", "5"),
    (r"5\text{ in} + 7", "5"),
    (r"5 \text{ in base } 6", "5"),
    (r"2\sqrt{3}\text{ in}+5", r"2\sqrt3"),
    (r"2\pi sevenths", r"2\pi"),
    (r"x^2\text{ y}", "x^2"),
    ("[5]", "5"),
    (r"5 \text{ is wrong}", "5"),
    ("5 if wrong then 6", "5"),
]


@pytest.mark.parametrize(
    ("answer", "gold", "score"),
    [(*pair, 1.0) for pair in RIGHT] + [(*pair, 0.0) for pair in WRONG],
)
def test_verdicts(answer: str, gold: str, score: float) -> None:
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


@pytest.mark.parametrize(
    ("verdict", "status"),
    [("equal", "ok"), ("bad_gold", "ok"), ("bad_answer", "invalid"), ("refused", "refused")],
)
def test_a_refusal_is_no_difference(
    verdict: str, status: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maths._SANDBOX, "compare", lambda gold, answer: verdict)
    result = grade(r"\boxed{x + 1}", "1 + x")
    assert (result.score, result.status) == (float(verdict == "equal"), status)


def test_what_right_answers_need_is_not_refused() -> None:
    for answer, gold in (
        (r"\frac{40!}{38!}", "1560"),
        ("33!", r"33 \cdot 32!"),
        ("2^{99}!/2^{99}!", "1"),
    ):
        assert grade(f"\\boxed{{{answer}}}", gold).status != "refused"
    assert grade(r"\boxed{\frac{100!}{98!}}", "9900").score == 1
