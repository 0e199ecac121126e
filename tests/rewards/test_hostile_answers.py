"""Two thousand hostile answers: none takes over a second, none raises, none scores.

`make chaos` tries many more.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable
from functools import partial

import pytest

from latentgym.rewards import ChoiceGrader, ExactGrader, Grader, MathGrader, NumberGrader
from latentgym.rewards.json_object import is_json_object, json_value

COUNT = 1_000
SEED = 20_260_101
MATH_GOLDS = (
    "1234567",
    r"\frac{355}{113}",
    "x^2+41",
    r"17\sqrt{19}",
    r"(\pi,37]",
    r"\text{Friday}",
    r"\begin{pmatrix}31\\41\end{pmatrix}",
    "y=29x+31",
    r"\sin 1 + 7",
)
OTHERS: tuple[tuple[Grader, str], ...] = (
    (NumberGrader(), "-73519.25"),
    (NumberGrader(integer_range=(0, 999), marker=r"\boxed"), "947"),
    (ChoiceGrader(("True", "False")), "True"),
    (ChoiceGrader(), "Mia is a dralpin."),
    (ExactGrader(), "Emmy Noether"),
)

Kind = Callable[[random.Random], str]


def powers(r: random.Random) -> str:
    return r.choice(("**", "^")).join(str(r.randint(5, 99)) for _ in range(r.randint(3, 9)))


def tower(r: random.Random) -> str:
    depth = r.randint(2, 30)
    return "^{".join(str(r.randint(5, 99)) for _ in range(depth)) + "}" * (depth - 1)


def braces(r: random.Random) -> str:
    return r.choice(("{", "}", "{}", "((", "[", r"\{", r"\left(")) * r.randint(1, 100_000)


def fractions(r: random.Random) -> str:
    depth = r.choice((5, 15, 100, 1000))
    return r"\frac{1}{" * depth + "9" + "}" * depth


def roots(r: random.Random) -> str:
    depth = r.randint(2, 60)
    return r"\sqrt{2+" * depth + "2" + "}" * depth


def invisible(r: random.Random) -> str:
    codes = (0, 1, 7, 27, 127, 0x200B, 0x200F, 0x202E, 0xFEFF, 0xD800, 0xDFFF, 0x10FFFF)
    return "".join(chr(r.choice(codes)) for _ in range(r.randint(1, 50))) + str(r.randint(1, 99))


def code(r: random.Random) -> str:
    lines = (
        "__import__('os').system('id')",
        "eval('1+1')",
        "exec(open('x').read())",
        "().__class__.__mro__[1].__subclasses__()",
        r"\input{/etc/hostname}",
        r"\write18{id}",
        r"\def\x{\x\x}\x",
    )
    return r.choice(lines) * r.randint(1, 3)


def lists(r: random.Random) -> str:
    return ",".join(["1"] * r.choice((10, 150, 1000, 100_000)))


def factorials(r: random.Random) -> str:
    one, two = r.randint(2, 9999), 10 ** r.randint(2, 9)
    forms = ("{2}!", "(((9!)!)!)!", "9!!!!!!", "{1}!^{{{1}!}}", r"\binom{{{2}}}{{{1}}}", "{1}!/{1}")
    return r.choice(forms).format(0, one, two)


def exponents(r: random.Random) -> str:
    forms = ("10^{%d}", "x^{%d}", "(x+1)^{%d}", "(x+y+z+w)^{%d}", "1.0000001^{%d}")
    return r.choice(forms) % (10 ** r.randint(2, 12) + r.randint(0, 99))


def analysis(r: random.Random) -> str:
    forms = (
        r"\sum_{n=1}^{%d} \frac{1}{n^n}",
        r"\prod_{n=1}^{%d} (n^2+1)",
        r"\int_0^{%d} e^{-x^{x}} dx",
        r"\lim_{x \to 0} \frac{\sin(%dx^x)}{x}",
        r"\sum_{n=1}^{\infty} \frac{1}{n^{%d}+n!}",
    )
    return r.choice(forms) % r.randint(3, 10**7)


def polynomials(r: random.Random) -> str:
    terms = (f"{r.choice('abxyz')}^{{{r.randint(1, 30)}}}" for _ in range(r.randint(2, 60)))
    return r.choice("+*<=").join(terms)


def nested(r: random.Random) -> str:
    depth = r.randint(2, 40)
    names = (r.choice((r"\sin(", r"\cos(", r"\tan(", r"\log(")) for _ in range(depth))
    return "".join(names) + "x" + ")" * depth


def matrices(r: random.Random) -> str:
    size = r.randint(2, 25)
    rows = r"\\".join("&".join([r.choice("x1")] * size) for _ in range(size))
    return rf"\begin{{pmatrix}}{rows}\end{{pmatrix}}"


def soup(r: random.Random) -> str:
    words = r"\frac { } ^ _ \sqrt x 1 9 ( ) ! \sum \cdot + - & \\ $ \text | < = \infty \mod , . /"
    return r.choice(("", " ")).join(r.choices(words.split(), k=r.randint(1, 120)))


def numbers(r: random.Random) -> str:
    digit = str(r.randint(1, 9))
    exponent = f"{digit}e{r.choice('+-')}{10 ** r.randint(2, 20)}"
    return r.choice((digit * r.choice((50, 70, 300, 5000, 200_000)), exponent, f"{digit}/0"))


def repeats(r: random.Random) -> str:
    parts = (
        "#",
        "$",
        r"\boxed{",
        "the answer is ",
        "answer: ",
        "#### ",
        " ",
        "\n",
        "\u200b",
        "1 /",
    )
    return r.choice(parts) * r.randint(1, 20_000)


def unicode(r: random.Random) -> str:
    return "".join(chr(r.randint(0, 0x2FFF)) for _ in range(r.randint(1, 300)))


def megabytes(r: random.Random) -> str:
    return r.choice(("{", "9", "(", r"\frac{", "a ", "####", "$x$ ", r"\boxed{")) * (1 << 20)


KINDS: tuple[Kind, ...] = (
    powers, tower, braces, fractions, roots, invisible, code, lists, factorials, exponents,
    analysis, polynomials, nested, matrices, soup, numbers, repeats, unicode,
)  # fmt: skip
WRAPS = ("%s", r"\boxed{%s}", "#### %s", "$ %s $", "The answer is %s.", r"so \boxed{\text{%s}}")


def hostile(r: random.Random) -> str:
    if r.random() < 0.001:
        return megabytes(r)
    return r.choice(WRAPS).replace("%s", r.choice(KINDS)(r))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the comparing process needs fork")
def test_hostile_answers(in_time: Callable) -> None:
    MathGrader.warm_up()
    r = random.Random(SEED)
    statuses: Counter[str] = Counter()
    for index in range(COUNT):
        answer = hostile(r)
        for grader, gold in ((MathGrader(), r.choice(MATH_GOLDS)), *OTHERS):
            grade = in_time(1.0, partial(grader, answer, gold))
            assert grade.score == 0.0, (index, answer[:200], gold, grade)
            statuses[grade.status] += 1
    print(dict(statuses))
    # Every way of refusing was exercised, and so was the comparing itself.
    assert set(statuses) >= {"ok", "no_answer", "invalid", "too_long", "timeout"}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the comparing process needs fork")
def test_hostile_answers_in_json(in_time: Callable) -> None:
    MathGrader.warm_up()
    r = random.Random(SEED)
    wraps = ('{"t": "", "a": "%s"}', '{"t": "", "a": %s}', '"a": "%s', '"a": {"t": %s', "%s")
    for index in range(COUNT // 10):
        text = r.choice(wraps).replace("%s", hostile(r))
        in_time(1.0, partial(is_json_object, text, "t", "a"))
        value = in_time(1.0, partial(json_value, text, "a"))
        for grader, gold in ((MathGrader(), r.choice(MATH_GOLDS)), *OTHERS):
            if value is not None:
                grade = in_time(1.0, partial(grader.alone, value, gold))
                assert grade.score == 0.0, (index, text[:200], gold, grade)
