r"""What an answer is: its kind and its parts, read whole or not at all.

Two answers are compared part by part and only where their kinds allow it (see
`latentgym.rewards.algebra`), so that no bracket, order, separator or word is lost on the way to the
algebra, which reads expressions alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from latentgym.rewards.latex import TEXT, symbols, tidy
from latentgym.rewards.number import Number, is_product, quantity, unit_scale

StepKind = Literal[
    "number",  # what `latentgym.rewards.number.quantity` reads
    "expression",  # what computer algebra reads
    "list",  # parts with commas between them, in any order
    "set",  # the same in braces
    "tuple",  # parts in brackets, in their order: a point, a vector, an interval
    "equation",  # parts with = between them
    "relation",  # an inequality, or a union of intervals
    "ratio",  # parts with colons between them; a time of day
    "text",  # words and other notation that can be compared as text only
]


@dataclass(frozen=True)
class Answer:
    """An answer.

    Attributes:
        kind: see `Kind`.
        text: tidy, without a unit; of kind "text" in lower case and without marks of LaTeX.
        parts: of a list, set, tuple, equation or ratio.
        shape: the brackets of a tuple, "am" or "pm" of a time.
        number: of a number, and of a list that could also be one ("12,650").
        name: what an equation gives the value of ("x"), or empty.
    """

    kind: StepKind
    text: str
    parts: tuple[Answer, ...] = ()
    shape: str = ""
    number: Number | None = None
    name: str = ""

    @property
    def values(self) -> tuple[Answer, ...]:
        """The parts of an equation without its name."""
        return self.parts[1:] if self.name else self.parts


# Whether computer algebra finds two answers equal, the gold one first.
Equal = Callable[[Answer, Answer], bool]

_ALGEBRAIC = ("number", "expression")
_COLLECTIONS = ("list", "set")
_REGIONS = ("tuple", "relation")
_RELATIONS = frozenset(
    r"""
    < > \le \leq \leqslant \lt \ge \geq \geqslant \gt \ne \neq \cup \cap \setminus \mathbb \mathbf
    """.split()
)
_PAIRS = {"(": ")", "[": "]", "{": "}", r"\{": r"\}", r"\langle": r"\rangle"}
_GREEK = "alpha beta gamma delta epsilon theta lambda mu rho sigma tau phi varphi omega Delta ell"
# What an equation can give the value of: x, x_1, f(2), AB, \angle ABC, \text{area}.
_NAME = re.compile(
    rf"(?:[A-Za-z]|\\(?:{'|'.join(_GREEK.split())}|angle|triangle)(?![A-Za-z])|[|' ]"
    rf"|(?:{TEXT}|\\(?:overline|vec|bar|hat)) ?\{{[A-Za-z ]*\}})+"
    r"(?:_(?:[A-Za-z0-9]|\{[A-Za-z0-9, ]+\}))?(?: ?\([A-Za-z0-9, -]*\))?"
    r"|\( ?(?:[A-Za-z]|\\[a-z]+|[ ,])+\)"
)
_ALL_TEXT = re.compile(rf"{TEXT} ?\{{([^{{}}]*)\}}")
_CHOICE = re.compile(rf"\(? ?(?:{TEXT} ?\{{)?\(?([A-Z])\)?\}}? ?\)?")
_TIME = re.compile(
    rf"([0-9]{{1,2}}(?: ?: ?[0-9]{{2}}){{0,2}}) ?(?:{TEXT} ?\{{ ?)?([ap])\.? ?m\.?[ }}]*",
    re.IGNORECASE,
)
_NUMERAL = re.compile(rf"((?:{TEXT} ?\{{)?[0-9A-Z]+\}}?) ?_ ?(?:([0-9])|\{{ ?([0-9]+) ?\}})")
_LIST_OR_NUMBER = re.compile(r"[-+]?[0-9]{1,3},[0-9]{3}")
_UNIT = re.compile(
    rf"(?P<value>.*?(?:[0-9)}}\]!A-Za-z]))"
    rf"(?P<unit> ?{TEXT} ?\{{[^{{}}]*\}}[^{{}}]*|(?<=[0-9)}}\]!i]) [A-Za-z][A-Za-z. ]*[^{{}}]*)"
)
_COMMAND = re.compile(rf"\\(?:begin|end) ?\{{[^{{}}]*\}}|(?!{TEXT})\\[A-Za-z]+")
_WORD = re.compile(r"[A-Za-z]{3,}")
_GREEK_LETTER = re.compile(rf"\\(?:{'|'.join(_GREEK.split())})(?![A-Za-z])")
_LETTERS = re.compile(r"[A-Za-z]")
_IN_TEXT_MARK = re.compile(TEXT)
_MARKUP = re.compile(rf"{TEXT}|[{{}}$]")
_BLANKS = re.compile(r"\s+")
_ENDS = " \t.,;:!?\"'`*()[]"


def read(text: str) -> Answer | None:
    """The answer that a text is; None if it is empty.

    Args:
        text: LaTeX or plain, without the mark or box around it.

    Raises:
        NumberOutOfBoundsError: it holds a number beyond the bounds.
    """
    tidied = tidy(text)
    return _read(tidied) if tidied else None


def _read(text: str) -> Answer:
    text = text.strip()
    if not text:
        return Answer("text", "")
    if whole := _ALL_TEXT.fullmatch(text):
        return _read(tidy(whole[1]))
    if choice := _CHOICE.fullmatch(text):
        return Answer("text", choice[1])
    if time := _TIME.fullmatch(text):
        clock = [int(part) for part in time[1].split(":")]
        parts = tuple(_read(str(part)) for part in [*clock, 0][: max(2, len(clock))])
        return Answer("ratio", text, parts, time[2].lower() + "m")
    if _LIST_OR_NUMBER.fullmatch(text):
        # As a gold answer it is a list: numbers are written 12{,}650, 12,\!650 or 12650.
        return Answer("list", text, _split(text, ","), number=quantity(text))
    if number := quantity(text):
        return Answer("number", text, number=number)
    if numeral := _NUMERAL.fullmatch(text):
        digits = _MARKUP.sub("", numeral[1])
        return Answer("text", f"{digits}_{numeral[2] or numeral[3]}")
    if parts := _split(text, ",", ";"):
        return Answer("list", text, parts)
    if parts := _split(text, ":"):
        return Answer("ratio", text, parts)
    # What is exact stands before what is near, perhaps behind its name: "x = 2/3 \\approx 0.67".
    near = [at for at, symbol, depth in symbols(text) if not depth and symbol == r"\approx"]
    if near:
        pieces = [piece for piece in _between(text, near, len(r"\approx")) if piece]
        return _read(next((p for p in pieces if not _NAME.fullmatch(p)), ""))
    return _bracketed(text) or _related(text) or _measured(text) or _plain(text)


def _split(text: str, *separators: str) -> tuple[Answer, ...]:
    """The parts between separators that stand outside of brackets; none without a separator.

    Where blanks stand behind some commas, those separate: "12,650, 13,000" are two numbers.
    """
    places = [at for at, symbol, depth in symbols(text) if not depth and symbol in separators]
    spaced = [at for at in places if text[at + 1 : at + 2] == " "]
    places = spaced or places
    pieces = _between(text, places, 1)
    if len(pieces) < 2:
        return ()
    parts: list[Answer] = []
    for part in (_read(piece) for piece in pieces if piece):
        # A list in a list is one list, unless it stands for a number.
        parts += part.parts if part.kind == "list" and part.number is None else [part]
    names = [part.name for part in parts if part.kind == "equation"]
    if len(parts) > 1 and names == [parts[0].name] and names[0]:
        parts[0] = parts[0].values[-1]  # "x = 1, 2" are two values
    if spaced:
        parts = [replace(p, kind="number") if p.kind == "list" else p for p in parts]
    return tuple(parts)


def _between(text: str, places: list[int], width: int) -> list[str]:
    """The pieces of a text between separators of some width at some places."""
    starts, ends = [0, *(at + width for at in places)], [*places, len(text)]
    return [text[start:end].strip() for start, end in zip(starts, ends, strict=True)]


def _bracketed(text: str) -> Answer | None:
    """A set or tuple, or what stands in brackets that only group."""
    found = list(symbols(text))
    (_, opening, _), (end, closing, _) = found[0], found[-1]
    if opening not in _PAIRS or any(not depth for _, _, depth in found[1:-1]):
        return None
    if closing not in _PAIRS.values():
        return None
    inside = text[len(opening) : end]
    parts = _split(inside, ",", ";")
    if opening in ("{", r"\{") and closing == _PAIRS[opening]:
        if opening == "{" and not parts:
            return _read(inside) if inside.strip() else None
        parts = parts or ((_read(inside),) if inside.strip() else ())
        return Answer("set", text, parts) if parts else None
    if parts:
        return Answer("tuple", text, parts, opening + closing)
    if not inside.strip():
        return None
    one = _read(inside)
    return (
        one
        if (opening, closing) == ("(", ")")
        else Answer("tuple", text, (one,), opening + closing)
    )


def _related(text: str) -> Answer | None:
    """An equation, what a name is an element of, an inequality, or a union."""
    found = [(at, symbol) for at, symbol, depth in symbols(text) if not depth]
    for sign in (r"\in", "="):
        places = [at for at, symbol in found if symbol == sign]
        if sign == "=" and any(symbol in _RELATIONS for _, symbol in found):
            return Answer("relation", text)
        pieces = _between(text, places, len(sign))
        if len(pieces) > 1 and all(pieces):
            name = _BLANKS.sub("", pieces[0]) if _NAME.fullmatch(pieces[0]) else ""
            return Answer("equation", text, tuple(map(_read, pieces)), name=name)
    return None


def _measured(text: str) -> Answer | None:
    """An expression with a unit, which does not count."""
    found = _UNIT.fullmatch(text)
    if found is None or unit_scale(found["unit"]) != 1:
        return None
    # Beside a variable, one letter is another one: x^2\text{y}.
    if len(_LETTERS.findall(_IN_TEXT_MARK.sub("", found["unit"]))) == 1 and has_variable(
        found["value"]
    ):
        return None
    value = _read(found["value"])
    return value if value.kind == "expression" else None


def has_variable(text: str) -> bool:
    """Whether a letter stands in a text, Latin but for e and i, or Greek but for pi."""
    return _GREEK_LETTER.search(text) is not None or bool(
        set(_LETTERS.findall(_COMMAND.sub(" ", text))) - {"e", "i"}
    )


def _plain(text: str) -> Answer:
    """An expression, two where a sign is either, or text where words stand in it.

    Computer algebra takes a word for a product of letters, equal to its anagrams.
    """
    if all(map(is_product, _WORD.findall(_COMMAND.sub(" ", text)))):
        if r"\pm" not in text:
            return Answer("expression", text)
        signs = (("+", "-"), ("-", "+"))
        both = (text.replace(r"\pm", up).replace(r"\mp", down) for up, down in signs)
        return Answer("list", text, tuple(map(_read, both)))
    words = _BLANKS.sub(" ", _MARKUP.sub("", text)).strip(_ENDS).casefold()
    return Answer("text", words)


def same(gold: Answer, answer: Answer, equal: Equal) -> bool:
    """Whether an answer is the gold answer, by the rules of their kinds.

    Answers of one kind are compared part by part. Of two kinds are: a list and a set; a set of one
    and its member; an equation and its value; a number and an expression; an interval and an
    inequality or union.

    Args:
        gold: the right one.
        answer: the one to judge.
        equal: decides where algebra must; what it raises is passed on.
    """
    kinds = (gold.kind, answer.kind)
    if "equation" in kinds:
        return _same_equations(gold, answer, equal)
    if gold.kind in _COLLECTIONS and answer.kind in _COLLECTIONS:
        return _same_members(gold.parts, answer.parts, equal)
    if gold.kind == "set" and len(gold.parts) == 1:
        return same(gold.parts[0], answer, equal)
    if answer.kind == "set" and len(answer.parts) == 1:
        return same(gold, answer.parts[0], equal)
    if gold.kind == "number" and answer.number:
        return gold.number is not None and gold.number.equals(answer.number)
    if gold.kind in _ALGEBRAIC and answer.kind in _ALGEBRAIC:
        return gold.text == answer.text or equal(gold, answer)
    if "relation" in kinds and gold.kind in _REGIONS and answer.kind in _REGIONS:
        return gold.text == answer.text or equal(gold, answer)
    if gold.kind != answer.kind:
        return False
    if gold.kind == "text":
        return gold.text == answer.text
    return (
        gold.shape == answer.shape
        and len(gold.parts) == len(answer.parts)
        and all(same(g, a, equal) for g, a in zip(gold.parts, answer.parts, strict=True))
    )


def _same_members(gold: Sequence[Answer], answer: Sequence[Answer], equal: Equal) -> bool:
    """Equality in any order. The values of one name may stand alone: "x = 1, x = 2"."""
    names = [{part.name.partition("_")[0] for part in parts} for parts in (gold, answer)]
    if len(gold) != len(answer) or (names[0] != names[1] and max(map(len, names)) > 1):
        return False
    rest = list(answer)
    for one in gold:
        # The same text first: it costs nothing.
        match = next((a for a in rest if a.text == one.text), None)
        match = match or next((a for a in rest if same(one, a, equal)), None)
        if match is None:
            return False
        rest.remove(match)
    return True


def _same_equations(gold: Answer, answer: Answer, equal: Equal) -> bool:
    """Where at least one side is an equation.

    An equation gives the value of its name. In a chain without a name ("100 + 25 = 125") every part
    must be the value.
    """
    if answer.kind != "equation":
        if gold.name:
            return same(gold.values[-1], answer, equal)
        # A gold chain of numbers says one thing in several ways: "0.56 = 56%".
        numbers = all(part.kind == "number" for part in gold.parts)
        return numbers and any(same(part, answer, equal) for part in gold.parts)
    if gold.kind != "equation":
        # "m + n = 70" gives the value of its left side, which need not be a name.
        labelled = not answer.name and has_variable(answer.parts[0].text)
        values = answer.parts[1:] if labelled else answer.values
        return all(same(gold, value, equal) for value in values)
    if gold.text == answer.text:
        return True
    if gold.name and gold.name == answer.name:
        return all(same(gold.values[-1], value, equal) for value in answer.values)
    return len(gold.parts) == len(answer.parts) == 2 and equal(gold, answer)
