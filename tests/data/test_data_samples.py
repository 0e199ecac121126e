"""The packaged samples are right: every answer is computed again."""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Callable
from fractions import Fraction

import pytest

from latentgym.data import DATASETS, load
from latentgym.data.maths import last_boxed
from latentgym.data.sources import SAMPLES

NAMES = [name for name, spec in DATASETS.items() if isinstance(spec.sample, str)]


def rows(name: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in (SAMPLES / name).read_text().splitlines()]


def value(expression: str) -> Fraction:
    assert re.fullmatch(r"[0-9.+*/() -]+", expression), expression
    exact = re.sub(r"[0-9.]+", lambda number: f"Fraction('{number[0]}')", expression)
    result = eval(exact, {"Fraction": Fraction})
    assert isinstance(result, Fraction)
    return result


@pytest.mark.parametrize("name", NAMES)
def test_samples_read_and_differ(name: str) -> None:
    data = load(DATASETS[name], "test", source="sample")
    assert len({question.text for question in data}) == len(data) >= 10
    assert len(data.hash) == 16


@pytest.mark.parametrize("name", ["GSM8K", "GSM8KAug"])
def test_calculations(name: str) -> None:
    fields = {"GSM8K": "answer", "GSM8KAug": "cot"}
    spec = DATASETS[name]
    assert isinstance(spec.sample, str)
    for row, question in zip(rows(spec.sample), load(spec, "test", source="sample"), strict=True):
        chain = re.findall(r"<<([^=]+)=([^>]+)>>", str(row[fields[name]]))
        assert all(value(left) == value(right) for left, right in chain)
        assert chain[-1][1] == question.gold
        assert len(question.steps) == len(chain) >= 2


@pytest.mark.parametrize(("name", "field"), [("SVAMP", "Equation"), ("MultiArith", "equation")])
def test_equations(name: str, field: str) -> None:
    spec = DATASETS[name]
    assert isinstance(spec.sample, str)
    for row, question in zip(rows(spec.sample), load(spec, "test", source="sample"), strict=True):
        assert value(str(row[field]).removeprefix("X=")) == Fraction(question.gold)


def test_programs() -> None:
    for row in rows("gsm_hard.jsonl"):
        space: dict[str, Callable[[], float]] = {}
        exec(str(row["code"]), space)
        assert float(space["solution"]()) == row["target"]


# One short computation for each problem of the sample, in order.
COMPETITION: tuple[Callable[[], int], ...] = (
    lambda: sum(n % 4 > 0 and n % 7 > 0 for n in range(100, 1000)),
    lambda: sum(math.factorial(n) for n in range(1, 51)) % 1000,
    lambda: sum(a < b < 30 - a - b for a in range(1, 30) for b in range(1, 30)),
    lambda: sum(sum(map(int, str(n))) == 10 for n in range(1, 2001)),
    lambda: math.comb(12, 6) - math.comb(6, 3) ** 2,
    lambda: sum(n for n in range(1, 1100) if square(n * n + 12 * n - 2007)) % 1000,
    lambda: sum(not chosen & chosen >> 3 for chosen in range(2**10)),
    lambda: sum(
        abs(x) + abs(y) <= 15 and (x + y) % 3 == 0
        for x in range(-15, 16)
        for y in range(-15, 16)
    ),
    lambda: sum(not set(str(n)) & set(str(n + 1)) for n in range(1, 1000)),
    lambda: len({
        int(a + b + c + d) + int(d + c + b + a)
        for a, b, c, d in itertools.combinations("123456789", 4)
    }),
)  # fmt: skip


def square(n: int) -> bool:
    return n >= 0 and math.isqrt(n) ** 2 == n


def test_competition_answers() -> None:
    data = load(DATASETS["AIME2024"], "test", source="sample")
    assert [int(question.gold) for question in data] == [compute() for compute in COMPETITION]
    for row in rows("aime.jsonl"):
        assert last_boxed(str(row["solution"])) == row["answer"]


# One short computation for each problem of the sample, in order, as sympy reads it.
MATHEMATICS = (
    "solve(3*x - 7 - 20, x)[0] - 9",
    "expand((x - 4)*(x + 9)) - (x**2 + 5*x - 36)",
    "sum(solve(2*x**2 - 11*x + 5, x)) - Rational(11, 2)",
    "int(solveset(abs(2*x - 3) < 7, x, Reals) != Interval.open(-2, 5))",
    "Rational(42, 70) - Rational(3, 5)",
    "Rational(15, 100)*260 - 39",
    "14*Rational('1.25') - Rational('17.5')",
    "Rational(5, 8)*24*60 - 900",
    "sqrt(9**2 + 12**2) - 15",
    "pi*(10*pi/(2*pi))**2 - 25*pi",
    "sqrt(3)/4*6**2 - 9*sqrt(3)",
    "pi*25*sqrt(13**2 - 5**2)/3 - 100*pi",
    "7**50 % 6 - 1",
    "divisor_count(360) - 24",
    "min(n for n in range(1, 99) if n % 5 == 2 and n % 7 == 3) - 17",
    "int('2688', 9) - 2024",
    "Rational(sum(a + b == 9 for a in range(1, 7) for b in range(1, 7)), 36) - Rational(1, 9)",
    "binomial(10, 3) - 120",
    "len({p for p in permutations('LATENT') if 'TT' not in ''.join(p)}) - 240",
    "expand((3 + 2*I)*(1 - 4*I)) - (11 - 10*I)",
    "radsimp(6/(3 - sqrt(3))) - (3 + sqrt(3))",
    "summation(8*Rational(-1, 2)**n, (n, 0, oo)) - Rational(16, 3)",
    "cos(2*pi/3) + Rational(1, 2)",
    "(Matrix([[1, 2], [3, 4]])*Matrix([5, -1]) - Matrix([3, 11])).norm()",
)


def test_mathematics_answers() -> None:
    sympy = pytest.importorskip("sympy")
    names = {**vars(sympy), "permutations": itertools.permutations, "sum": sum, "min": min}
    names.update(x=sympy.Symbol("x", real=True), n=sympy.Symbol("n"), __builtins__=__builtins__)
    for row, check in zip(rows("math.jsonl"), MATHEMATICS, strict=True):
        assert sympy.simplify(eval(check, names)) == 0, row
