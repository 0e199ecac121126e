r"""Plain numbers, read exactly, within bounds, and whole or not at all.

One grammar for all graders, on `latentgym.rewards.latex.tidy` text: a sign; then digits with at
most an exponent, a divisor or, behind a whole number, a proper fraction, or `\frac` of two numbers;
then perhaps per cent, a scale ("million") and a unit.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

from latentgym.rewards.latex import TEXT

MAX_DIGITS = 64
MAX_EXPONENT = 300

_DIGITS = r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]{1,3}(?:[ ][0-9]{3})+(?![0-9]|[ ]?/)|[0-9]+)"
_DECIMAL = rf"(?:{_DIGITS}(?:\.[0-9]+)?|\.[0-9]+)"
_NUMBER = re.compile(
    rf"""
    (?P<sign>[-+])?[ ]?
    (?P<digits>{_DECIMAL})?
    (?:
        [ ]?(?:\\times|\\cdot|\*|x)[ ]?10[ ]?(?:\^|\*\*)[ ]?[({{]?(?P<ten>[-+]?[0-9]+)[)}}]?
      | [ ]?/[ ]?(?P<divisor>{_DECIMAL})
      | [ ](?P<above>[0-9]+)[ ]?/[ ]?(?P<below>[0-9]+)
      | [ ]?\\[dtc]?frac[ ]?
        (?:\{{[ ]?(?P<minus>-)?[ ]?(?P<top>{_DECIMAL})[ ]?\}}[ ]?
            \{{[ ]?(?P<bottom>{_DECIMAL})[ ]?\}}
          | (?P<up>[0-9])[ ]?(?P<down>[0-9]))
    )?
    (?P<percent>[ ]?(?:\\?%|(?:percent|per[ ]cent)(?![a-z])))?
    """,
    re.VERBOSE,
)
_SEPARATORS = re.compile("[, ]")

_SCALES = {"thousand": 3, "million": 6, "billion": 9, "trillion": 12}
# Words behind a number that make it another one, or none.
_CHANGES = frozenset(
    """
    or and to half halves third thirds quarter quarters fourth fourths fifth fifths sixth sixths
    seventh sevenths eighth eighths ninth ninths tenth tenths twelfths sixteenths hundredth
    hundredths thousandth thousandths millionth millionths billionths
    one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen
    sixteen seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety
    hundred hundreds thousand thousands million millions mln billion billions trillion trillions
    quadrillion lakh crore gross dozen dozens score percent
    plus minus times multiplied divided over under below squared cubed doubled tripled factorial
    power root mod modulo base point out less greater smaller than negative is are was not no
    am pm a.m p.m noon
    """.split()
)
# Words that begin a phrase which says where, when or why, and may hold other numbers.
_QUALIFIES = frozenset("in for per after each every because since at on during when so".split())
_SHORT_UNITS = frozenset("cm mm km nm ft in yd mi kg mg lb lbs oz ml hr hrs sq cu mph min".split())
_POWER = r"(?: ?\^ ?(?:[123]|\{ ?[123] ?\}))?"
_IN_TEXT = re.compile(rf" ?{TEXT} ?\{{([^{{}}]*)\}}{_POWER} ?\.?")
_WORD = re.compile(rf"\(?([A-Za-z][A-Za-z.'/\u2019-]*?)(?:\(s\))?{_POWER}\)?([.,;:!?]*)")


class NumberOutOfBoundsError(ValueError):
    """The number has too many digits, too large an exponent, or the divisor zero."""


@dataclass(frozen=True)
class Number:
    """A plain number.

    Attributes:
        value: exact; with a per cent sign, what stands before it.
        percent: whether there is such a sign.
        numeral: whether it is written in digits alone, perhaps with a decimal point.
    """

    value: Fraction
    percent: bool = False
    numeral: bool = True

    def equals(self, other: Number) -> bool:
        """Whether both have the same value.

        A per cent sign divides by a hundred, but it is a unit beside a numeral of at least 1: where
        50 is right because a percentage was asked for, so is 50 %.
        """
        if self.percent == other.percent:
            return self.value == other.value
        share, plain = (self, other) if self.percent else (other, self)
        unit = plain.numeral and abs(plain.value) >= 1 and plain.value == share.value
        return unit or share.value == 100 * plain.value


def quantity(text: str) -> Number | None:
    r"""The number that a `tidy` text is, perhaps with a scale and a unit.

    A unit is words, in `\text{}` or plain. A plain one of one or two letters must be well known, as
    it may be a variable. A phrase such as "in 3 weeks" may follow.

    Raises:
        NumberOutOfBoundsError: it is one beyond the bounds.
    """
    found = _NUMBER.match(text)
    number = _number(found) if found else None
    if found is None or number is None:
        return None
    scale = unit_scale(text[found.end() :])
    if scale is None or (scale > 1 and number.percent):
        return None
    return Number(number.value * scale, number.percent, number.numeral)


def unit_scale(tail: str) -> int | None:
    """What a unit multiplies its number with: "million cm" with 10^6. None if it is no unit."""
    if not tail.strip():
        return 1
    if in_text := _IN_TEXT.fullmatch(tail):
        return _scale(in_text[1].split(), known=True)
    words = _IN_TEXT.sub(r" \1 ", tail).split()
    # "5xyz" is a product, "5 xyz" a number of things.
    if not tail.startswith(" ") and words[0] not in _SHORT_UNITS:
        return None
    return _scale(words, known=False)


def _scale(words: list[str], *, known: bool) -> int | None:
    """See `unit_scale`; `known` units may have any letters."""
    scale = 1
    if words and words[0].lower() in _SCALES:
        scale, words = 10 ** _SCALES[words[0].lower()], words[1:]
    for place, word in enumerate(words):
        found = _WORD.fullmatch(word)
        unit = found[1].lower().rstrip(".") if found else None
        if unit in _QUALIFIES:
            return scale if _is_phrase(words[place + 1 :]) else None
        if place and word.startswith("(") and unit not in _CHANGES:
            return scale  # a remark
        if unit is None or unit in _CHANGES:
            return None
        variable = is_product(unit) or (not place and scale == 1 and len(unit) < 3)
        if not known and variable and unit not in _SHORT_UNITS:
            return None
    return scale


def _is_phrase(words: list[str]) -> bool:
    """Whether words may follow one that qualifies: none, or words and numbers before a word."""
    plain = [word.strip(".,;:!?()").lower() for word in words]
    if any(word in _CHANGES or not (word.isalpha() or word.isdecimal()) for word in plain):
        return False
    return not plain or plain[-1].isalpha()


def is_product(letters: str) -> bool:
    """Whether some letters are a product of variables ("xyz", "mn") rather than a word.

    They follow one another in the alphabet, or have no vowel.
    """
    codes = [ord(letter) for letter in letters]
    steps = {after - before for before, after in pairwise(codes)}
    return letters.islower() and (steps == {1} or not set(letters) & set("aeiouy"))


def _number(found: re.Match[str]) -> Number | None:
    """The value of a match of `_NUMBER`; None if there is no number in it."""
    digits = found["digits"]
    top = found["top"] or found["up"] or found["above"]
    bottom = found["bottom"] or found["down"] or found["below"]
    if digits is None and top is None:
        return None
    exponent = found["ten"]
    if digits is None and (exponent or found["divisor"] or found["above"]):
        return None
    value = _decimal(digits) if digits else Fraction(0)
    if exponent:
        if len(exponent) > 4 or abs(int(exponent)) > MAX_EXPONENT:
            raise NumberOutOfBoundsError(found.group()[:80])
        value *= Fraction(10) ** int(exponent)
    if found["divisor"]:
        value = _over(value, found["divisor"])
    if top and bottom:
        part = _over(_decimal(top), bottom)
        if digits and (found["minus"] or part >= 1 or value.denominator > 1):
            return None  # a product rather than a mixed number
        value += -part if found["minus"] else part
    value = -value if found["sign"] == "-" else value
    return Number(value, bool(found["percent"]), not (top or found["divisor"]))


def _decimal(digits: str) -> Fraction:
    if len(digits) > MAX_DIGITS:
        raise NumberOutOfBoundsError(digits[:80])
    return Fraction(_SEPARATORS.sub("", digits))


def _over(above: Fraction, below: str) -> Fraction:
    divisor = _decimal(below)
    if not divisor:
        raise NumberOutOfBoundsError("a number divided by zero")
    return above / divisor
