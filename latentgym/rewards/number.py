"""Reading numbers from text, exactly and within bounds."""

from __future__ import annotations

import re
from collections import deque
from fractions import Fraction

MAX_DIGITS = 64
MAX_EXPONENT = 30

# A sign counts only where it cannot be a minus between two terms ("5-3").
_NUMBER = re.compile(
    r"""
    (?P<sign>(?<![0-9A-Za-z).}\]])[-+])?
    (?:[ ]?[$£€])?
    (?P<digits>(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+)
    (?:[eE](?P<e>[-+]?[0-9]+)(?![0-9A-Za-z])
      |[ ]?(?:\\times|\\cdot|\*|x)[ ]?10(?:\^|\*\*)[({]?(?P<ten>[-+]?[0-9]+)[)}]?)?
    (?:[ ]?/[ ]?(?P<divisor>(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?))?
    """,
    re.VERBOSE,
)
# Currency, emphasis and opening brackets that may stand before a number that is an answer.
_LEAD = re.compile(r"[\s$£€*_`:=({\[]*(?:\\[(\[]\s*)?")
# Units, per cent and closing brackets that may stand after a number which is the whole text.
_TRAIL = re.compile(r"[\s$£€%*_`)\]}.]*")
_FRACTION = re.compile(
    r"\\[dtc]?frac\s?(?:\{\s?(-?[0-9.,]+)\s?\}\s?\{\s?([0-9.,]+)\s?\}|([0-9])\s?([0-9]))"
)
_LATEX = re.compile(r"\\[!,;:%$ ]|\{,\}|\\(?:left|right|displaystyle)\b")
_REPLACED = {"{,}": ",", "\\$": "$", "\\%": "%"}
_TYPOGRAPHY = str.maketrans(
    {
        "\N{MINUS SIGN}": "-",
        "\N{EN DASH}": "-",
        "\N{MULTIPLICATION SIGN}": "x",
        "\N{THIN SPACE}": " ",
        "\N{NO-BREAK SPACE}": " ",
    }
)


class NumberOutOfBoundsError(ValueError):
    """The number has too many digits, too large an exponent, or the divisor zero."""


def _plain(text: str) -> str:
    """The text with typographic minus signs and the LaTeX of numbers written plainly."""
    if not text.isascii():
        text = text.translate(_TYPOGRAPHY)
    if "\\" in text or "{,}" in text:
        text = _LATEX.sub(lambda m: _REPLACED.get(m.group(), ""), text)
        text = _FRACTION.sub(lambda m: f"{m[1] or m[3]}/{m[2] or m[4]}", text)
    return text


def _value(found: re.Match[str]) -> Fraction:
    """The exact value of a match of `_NUMBER`."""
    digits, exponent, divisor = found["digits"], found["e"] or found["ten"] or "0", found["divisor"]
    if max(len(digits), len(divisor or "")) > MAX_DIGITS or len(exponent) > 4:
        raise NumberOutOfBoundsError(found.group()[:80])
    power = int(exponent)
    if abs(power) > MAX_EXPONENT:
        raise NumberOutOfBoundsError(found.group()[:80])
    value = Fraction(digits.replace(",", ""))
    if power:
        value *= Fraction(10) ** power
    if divisor:
        below = Fraction(divisor.replace(",", ""))
        if not below:
            raise NumberOutOfBoundsError(found.group()[:80])
        value /= below
    return -value if found["sign"] == "-" else value


def number_of(text: str) -> Fraction | None:
    """The value of a text that is one number, with currency, per cent or full stop at most.

    Raises:
        NumberOutOfBoundsError: it is a number beyond the bounds.
    """
    text = _plain(text)
    found = _NUMBER.match(text, _lead_end(text))
    if found is None or _TRAIL.fullmatch(text, found.end()) is None:
        return None
    return _value(found)


def leading_number(text: str) -> tuple[str, Fraction] | None:
    """The number at the start of a text ("18 dollars"), as written and as a value.

    Raises:
        NumberOutOfBoundsError: there is one, beyond the bounds.
    """
    text = _plain(text)
    found = _NUMBER.match(text, _lead_end(text))
    return (found.group(), _value(found)) if found else None


def last_number(text: str) -> tuple[str, Fraction] | None:
    """The last number in a text, as written and as a value.

    Raises:
        NumberOutOfBoundsError: there is one, beyond the bounds.
    """
    found = deque(_NUMBER.finditer(_plain(text)), maxlen=1)
    return (found[0].group(), _value(found[0])) if found else None


def _lead_end(text: str) -> int:
    lead = _LEAD.match(text)
    return lead.end() if lead else 0
