r"""Whether two answers are equal: the job of the sandbox that compares mathematics.

Kinds and parts are ours (`latentgym.rewards.answer`). math-verify reads the expressions in them,
and settles unions and inequalities. Values are compared exactly, as rational numbers where they are
some, else by 50 digits relative to their size: neither 2^-99 and 2^-98 nor 0.333333 and 1/3 are
equal.
"""

from __future__ import annotations

import re
from typing import Any

import sympy
from latex2sympy2_extended import NormalizationConfig
from math_verify import LatexExtractionConfig, parse, verify

from latentgym.rewards.answer import Answer, read, same
from latentgym.rewards.number import NumberOutOfBoundsError

# Exercised before the first fork, so that every child is born with warm caches and modules.
_WARM_UP = (
    (r"\frac{1}{2}", r"\sqrt{0.25}"),
    (r"x^2 + 2x + 1", "(x+1)^2"),
    (r"\sqrt{8}", r"2\sqrt{2}"),
    (r"(1, 2] \cup \{3\}", r"\{3\} \cup (1,2]"),
    (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix} 1 \\ \frac{4}{2} \end{pmatrix}"),
    (r"y = 2x", "2x - y = 0"),
    (r"e^{i\pi/3}", r"\frac{1 + i\sqrt{3}}{2}"),
    (r"3 \pi", r"\cos(x) \log 2"),
    (r"\frac{52!}{47!5!}", "2598960"),
)
_PRIMES = (11, 13, 17, 19, 23, 29, 31, 37)
# Units are ours: math-verify takes the s of "2s" for seconds and drops it.
_CONFIG = [
    LatexExtractionConfig(
        normalization_config=NormalizationConfig(malformed_operators=True, boxed="none")
    )
]
# 3\frac{1}{2}\pi is no product of three numbers.
_MIXED = re.compile(
    r"(?<![0-9.^_}])([0-9]+) ?(\\[dt]?frac ?(?:\{ ?[0-9]+ ?\} ?\{ ?[0-9]+ ?\}|[0-9] ?[0-9]))"
)
_DIGITS = 60
_NEAR = sympy.Rational(1, 10**50)
# What math-verify rounds away is absolute, so it must lie below anything that an answer can hold.
_EXACTLY = {"float_rounding": 300, "numeric_precision": 350}


class UnreadableError(Exception):
    """An expression that math-verify cannot read: of the gold answer, or of the other."""


def prepare(setting: str) -> None:
    """Load and exercise the algebra."""
    for gold, answer in _WARM_UP:
        compare(gold, answer)


def run(setting: str, *request: str) -> str:
    """See `compare`."""
    return compare(*request)


def compare(gold: str, answer: str) -> str:
    """Whether two answers are "equal" or "different", or "bad_gold" or "bad_answer"."""
    try:
        right = read(gold)
    except NumberOutOfBoundsError:
        right = None
    try:
        given = read(answer)
    except NumberOutOfBoundsError:
        given = None
    if right is None or given is None:
        return "bad_answer" if right else "bad_gold"
    try:
        return "equal" if same(right, given, equal) else "different"
    except UnreadableError as error:
        return str(error)


def equal(gold: Answer, answer: Answer) -> bool:
    """Whether computer algebra finds two answers equal.

    Raises:
        UnreadableError: one of them cannot be read.
    """
    return _equal(_value(gold, "bad_gold"), _value(answer, "bad_answer"))


def _value(answer: Answer, fault: str) -> Any:
    """What computer algebra takes an answer for; symbols of one name are one symbol.

    Raises:
        UnreadableError: it cannot be read.
    """
    if answer.number is not None:
        value = answer.number.value / (100 if answer.number.percent else 1)
        return sympy.Rational(value.numerator, value.denominator)
    text = _MIXED.sub(r"(\1+\2)", answer.text)
    found = parse(f"${text}$", _CONFIG, fallback_mode="no_fallback", parsing_timeout=None)
    if not found:
        raise UnreadableError(fault)
    return _plain(found[0])


def _plain(value: Any) -> Any:
    """A value with decimals as fractions, one kind of symbols, and i as the imaginary unit.

    math-verify takes i for a symbol, whose assumptions depend on the text around it.
    """
    if not hasattr(value, "atoms"):
        return value
    changed: dict[Any, Any] = {x: sympy.Rational(str(x)) for x in value.atoms(sympy.Float)}
    for power in value.atoms(sympy.Pow):
        base, exponent = power.args
        if exponent.is_Rational and exponent.p == 1 and exponent.q % 2 and base.is_negative:
            changed[power] = -((-base) ** exponent)  # the real root
    bound = value.atoms(sympy.Symbol) - value.free_symbols
    for symbol in value.atoms(sympy.Symbol):
        imaginary = symbol.name == "i" and symbol not in bound
        changed[symbol] = sympy.I if imaginary else sympy.Symbol(symbol.name, real=True)
    return value.xreplace(changed)


def _equal(gold: Any, answer: Any) -> bool:
    """Equality of two values of computer algebra."""
    if isinstance(gold, sympy.MatrixBase) and isinstance(answer, sympy.MatrixBase):
        return gold.shape == answer.shape and all(map(_equal, gold.flat(), answer.flat()))
    if isinstance(gold, sympy.Expr) and isinstance(answer, sympy.Expr):
        return _equal_expressions(gold.doit(), answer.doit())
    if isinstance(gold, sympy.Eq) and isinstance(answer, sympy.Eq):
        one, other = ((e.lhs - e.rhs).doit() for e in (gold, answer))
        if one.free_symbols != other.free_symbols:
            return False
        # Multiples of one another have the same solutions.
        ratio = sympy.simplify(one / other)
        if ratio.is_number and ratio.is_finite and not ratio.is_zero:
            return True
    if isinstance(gold, sympy.Set) and isinstance(answer, sympy.Set):
        gold, answer = gold.doit(), answer.doit()
    return bool(
        verify(gold, answer, **_EXACTLY, allow_set_relation_comp=True, timeout_seconds=None)
    )


def _equal_expressions(gold: Any, answer: Any) -> bool:
    if gold == answer:
        return True
    if gold.free_symbols != answer.free_symbols:
        # A symbol may cancel out: x - x + 1.
        gold, answer = sympy.simplify(gold), sympy.simplify(answer)
        if gold.free_symbols != answer.free_symbols:
            return False
    if not gold.free_symbols:
        return _equal_numbers(gold, answer)
    # A point where they differ is far cheaper than a proof that they do not.
    point = {x: sympy.Rational(at, 7) for x, at in zip(_ordered(gold), _PRIMES, strict=False)}
    if len(point) < len(gold.free_symbols) or not _equal_numbers(
        gold.subs(point), answer.subs(point)
    ):
        return False
    difference = sympy.expand(gold - answer)
    return bool(difference == 0 or sympy.simplify(difference) == 0)


def _ordered(expression: Any) -> list[Any]:
    return sorted(expression.free_symbols, key=str)


def _equal_numbers(gold: Any, answer: Any) -> bool:
    if gold.is_Rational and answer.is_Rational:
        return bool(gold == answer)
    one, other = (sympy.N(value, _DIGITS) for value in (gold, answer))
    if not (one.is_number and other.is_number and one.is_finite and other.is_finite):
        return bool(one == other)
    return bool(abs(one - other) <= _NEAR * max(abs(one), abs(other)))
