"""Other ways to write a gold answer, and answers that look like it and are wrong.

They try a grader of mathematics where graders go wrong: spacing, separators, brackets, order, signs
and exponents. They know nothing of how ours reads an answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction

Variant = tuple[str, str]
"""What was done to the gold answer, and the answer that came of it."""

_INTEGER = re.compile(r"-?[0-9]+")
_DECIMAL = re.compile(r"-?[0-9]*\.[0-9]+")
_FRACTION = re.compile(r"(-?)\\[dt]?frac\{([0-9]+)\}\{([0-9]+)\}")
_BRACKETS = re.compile(r"(?:\\left ?)?([(\[])(.+?)(?:\\right ?)?([)\]])")
_SET = re.compile(r"\\\{(.+)\\\}")
_ROUND, _SQUARE = {"(": "[", ")": "]"}, {"[": "(", "]": ")"}
# Letters, relations and notation in which a change of a digit or sign may change nothing.
_SUBTLE = re.compile(r"text|mbox|\\pm|\\%|%|\\approx|[=<>:_]|\\l|\\g|\\ne|\\in|\\cup|\\begin|circ")
# Lists, relations, words, units and figures, letters that stand for a choice, mixed numbers.
_NO_VALUE = re.compile(
    r"""
    text | mbox | [a-zA-Z]{3,}(?<!frac)(?<!sqrt)(?<!cdot) | [,=<>%:_] | \\[lg] | \\ne | \\in | \\pm
    | \\cup | \\begin | circ | \\approx | \\\$ | \\! | \\overline | \\mathbb | ^\(?[A-Z]\)?$
    | [0-9][ ]?\\[dt]?frac | \\dfrac[ ]*[0-9]
    """,
    re.VERBOSE,
)


def right_variants(gold: str) -> Iterator[Variant]:
    """Answers that are the gold answer.

    Args:
        gold: in LaTeX or plain, as MATH, GSM8K and AIME give it.
    """
    if _INTEGER.fullmatch(gold):
        yield from _right_integers(int(gold))
    elif _DECIMAL.fullmatch(gold):
        yield "zero behind a decimal", f"{gold}0"
        yield "decimal as fraction", str(Fraction(gold))
    elif fraction := _FRACTION.fullmatch(gold):
        yield from _right_fractions(*fraction.groups())
    if r"\frac" in gold:
        yield r"\dfrac", gold.replace(r"\frac", r"\dfrac")
    if parts := _listed(gold):
        yield "another order", ", ".join(reversed(parts))
        yield "blanks in a list", " , ".join(parts)
        yield "as a set", rf"\{{{', '.join(parts)}\}}"
        yield "and", f"{', '.join(parts[:-1])} \\text{{ and }} {parts[-1]}"
    if found := _SET.fullmatch(gold):
        yield "another order", rf"\{{{', '.join(reversed(_parts(found[1])))}\}}"
    if found := _bracketed(gold):
        yield "sized brackets", rf"\left{found[1]} {found[2]} \right{found[3]}"
        yield "blanks in brackets", f"{found[1]} {' , '.join(_parts(found[2]))} {found[3]}"
    if _is_value(gold):
        yield "with its name", f"n = {gold}"
        yield "twice its half", rf"\frac{{2 \cdot ({gold})}}{{2}}"
        yield "plus nothing", f"({gold}) + 0"
    yield "blanks around", f"  {gold} "
    yield "dollars around", f"${gold}$"
    yield "full stop", f"{gold}."


def wrong_variants(gold: str) -> Iterator[Variant]:
    """Answers that are not the gold answer, though they look like it.

    Args:
        gold: in LaTeX or plain, as MATH, GSM8K and AIME give it.
    """
    if parts := _listed(gold):
        yield "one entry dropped", ", ".join(parts[1:])
        yield "one entry more", ", ".join([*parts, "98765"])
        yield "joined entries", "".join(parts)
        yield "in brackets", f"({', '.join(parts)})"
    if found := _bracketed(gold):
        opening, inside, closing = found.groups()
        parts = _parts(inside)
        yield "another left bracket", f"{({**_ROUND, **_SQUARE})[opening]}{inside}{closing}"
        yield "another right bracket", f"{opening}{inside}{({**_ROUND, **_SQUARE})[closing]}"
        yield "without brackets", inside
        if parts[0].strip() != parts[-1].strip():
            yield "another order in brackets", f"{opening}{', '.join(reversed(parts))}{closing}"
        yield "one entry dropped", f"{opening}{', '.join(parts[1:])}{closing}"
        yield "one entry more", f"{opening}{', '.join([*parts, '98765'])}{closing}"
    if _is_value(gold) and gold != "0":
        yield "sign", f"-({gold})"
        yield "plus one", f"({gold}) + 1"
        yield "times six", f"({gold}) \\cdot 3!"
        if not re.fullmatch("-?0*1", gold):
            yield "another power", f"({gold})^3"
        yield "two answers", f"{gold} \\text{{ or }} 98765"
    if not _SUBTLE.search(gold):
        if digit := re.search("[0-9]", gold):
            changed = str((int(digit.group()) + 1) % 10)
            yield "a digit", gold[: digit.start()] + changed + gold[digit.end() :]
        if power := re.search(r"\^\{?([0-9])(?![0-9])\}?", gold):
            more = f"^{{{int(power[1]) + 1}}}"
            yield "exponent plus one", gold[: power.start()] + more + gold[power.end() :]
        if _DECIMAL.fullmatch(gold):
            yield "decimal point lost", gold.replace(".", "")
    yield "a number more", f"{gold}, 98765"
    yield "another answer", "98765"
    yield "words", r"\text{no such answer}"


def _right_integers(value: int) -> Iterator[Variant]:
    yield "decimals", f"{value}.0"
    yield "as a fraction", rf"\frac{{{2 * value}}}{{2}}"
    yield "dollar", rf"\${value}"
    yield "unit", rf"{value}\text{{ apples}}"
    yield "plain unit", f"{value} apples"
    if value < 0:
        yield "blank behind the sign", f"- {-value}"
        yield "typographic minus", f"\N{MINUS SIGN}{-value}"
    if abs(value) >= 1000:
        comma = f"{value:,}"
        for name, separator in (
            ("comma", ","),
            ("comma in braces", "{,}"),
            ("comma without space", r",\!"),
            ("thin space in LaTeX", r"\,"),
            ("thin space", "\N{THIN SPACE}"),
            ("no-break space", "\N{NO-BREAK SPACE}"),
        ):
            yield f"thousands by {name}", comma.replace(",", separator)


def _right_fractions(sign: str, above: str, below: str) -> Iterator[Variant]:
    yield "slash", f"{sign}{above}/{below}"
    value = Fraction(int(above), int(below))
    rest = value.denominator
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    if rest == 1:
        digits = format(float(value), ".12f").rstrip("0")
        if Fraction(digits) == value:
            yield "fraction as decimal", f"{sign}{digits}"
    if value > 1 and value.denominator > 1:
        whole, part = divmod(value.numerator, value.denominator)
        mixed = rf"\frac{{{part}}}{{{value.denominator}}}"
        yield "mixed number", f"{sign}{whole}{mixed}"
        yield "mixed number with a slash", f"{sign}{whole} {part}/{value.denominator}"


def _is_value(gold: str) -> bool:
    """Whether an answer is a plain value, with which one can calculate."""
    return bool(re.search(r"[0-9A-Za-z]", gold)) and not _NO_VALUE.search(gold)


def _bracketed(gold: str) -> re.Match[str] | None:
    """A tuple or interval: something in brackets as a whole, with a comma."""
    found = _BRACKETS.fullmatch(gold)
    whole = found and not re.search(r"[)\]].*[(\[]|\\cup", found[2]) and len(_parts(found[2])) > 1
    return found if whole else None


def _listed(gold: str) -> list[str]:
    """The parts of a plain list; none of anything else."""
    if re.search(r"[()\[\]]|\\\{|text|mbox|\\!|\{,\}|=|\\begin", gold) or "," not in gold:
        return []
    if re.fullmatch(r"[0-9]{1,3}(,[0-9]{3})+", gold):
        return []
    parts = [part.strip() for part in _parts(gold)]
    return parts if len(set(parts)) == len(parts) > 1 else []


def _parts(inside: str) -> list[str]:
    """Pieces between commas outside of braces and brackets."""
    pieces, depth = [""], 0
    for symbol in inside:
        depth += (symbol in "{([") - (symbol in "})]")
        if symbol == "," and not depth:
            pieces.append("")
        else:
            pieces[-1] += symbol
    return pieces
