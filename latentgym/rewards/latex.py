r"""Normal forms of LaTeX answers, and the screen that keeps monsters from the comparison.

`clean` rewrites what is only typography and leaves LaTeX that a parser can read; `squash` goes
on to a form without blanks in which most equal answers are equal strings.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

Rule = tuple[re.Pattern[str], str]

# No answer of a known data set is half as long.
MAX_ANSWER = 400
MAX_GOLD = 2000
MAX_DEPTH = 12

_TEXT = r"\\(?:text(?:bf|it|rm|normal)?|mbox|mathrm|mathbf|operatorname)"


def _rules(*pairs: tuple[str, str]) -> tuple[Rule, ...]:
    return tuple((re.compile(pattern), replacement) for pattern, replacement in pairs)


_CLEAN = _rules(
    (r"[\s~]+", " "),
    (r"(?<!\\)\\(?:[!;:]|,(?= ?(?:[^0-9 ]|$))) ?", ""),
    (r"(?<=[0-9]) ?\\, ?(?=[0-9])|\{,\}", ","),
    (r"(?<!\\)\\[ ]", " "),
    (r"\\\$|\$|£|€", ""),
    (r"\\(?:left|right|[bB]ig+[lr]?|displaystyle|limits)(?![A-Za-z])\.? ?", ""),
    (r"\\[dtc]frac(?![A-Za-z])", r"\\frac"),
    (r"\\phantom ?(?:\{[^{}]*\}|-)", ""),
    (r" ?(?:\^ ?(?:\\circ|\{ ?\\circ ?\})|\\degree(?![A-Za-z])|°)", ""),
    (r" ?\\?%", ""),
    # "6, 8\text{, and }10" is a list.
    (r" ?,? ?" + _TEXT + r" ?\{ ?,? ?(?:and|or) ?\} ?", ","),
    # Units after a quantity: "5\text{ cm}^2".
    (r"(?<=[0-9})i]) ?" + _TEXT + r" ?\{[^{}]*\}(?: ?\^ ?(?:[23]|\{[23]\}))? ?\.?$", ""),
    (_TEXT + r" ?\{([^{}]*)\}", r" \1 "),
    (r"(?<![0-9])([0-9]{1,3})((?:, ?[0-9]{3})+)(?![0-9])", r"\1\2"),
    (r"\\(?:le|leqslant)(?![A-Za-z])", r"\\leq "),
    (r"\\(?:ge|geqslant)(?![A-Za-z])", r"\\geq "),
    (r"\\neq(?![A-Za-z])", r"\\ne "),
    (r"[.,;: ]+$", ""),
    (r"^\s*(?:\\approx(?![A-Za-z]) ?)?", ""),
)
_SQUASH = _rules(
    # A blank that ends a command's name matters only before a letter.
    (r"(\\[A-Za-z]+ )(?=[A-Za-z])| +", r"\1"),
    (r"\\frac([0-9A-Za-z]|\\pi(?![A-Za-z]))", r"\\frac{\1}"),
    (r"\\frac(\{[^{}]*\})([0-9A-Za-z]|\\pi(?![A-Za-z]))", r"\\frac\1{\2}"),
    (r"\\sqrt([0-9A-Za-z])", r"\\sqrt{\1}"),
    (r"(?<![0-9A-Za-z.}\])])(-?)([0-9]+)/([0-9]+)(?![0-9A-Za-z.^{\[(])", r"\1\\frac{\2}{\3}"),
    (r"\^\{([0-9A-Za-z])\}", r"^\1"),
    (r"_\{([0-9A-Za-z])\}", r"_\1"),
    (r"(?<![0-9.])\.(?=[0-9])", "0."),
    (r"(\.[0-9]*?)0+(?![0-9])", r"\1"),
    (r"\.(?![0-9])", ""),
    (r"^\(([A-Z])\)$", r"\1"),
)
_ASSIGNED = re.compile(r"[A-Za-z](?:=|\\in(?![A-Za-z]) ?)([^=]+)")
_THOUSANDS = re.compile(r"(?<![0-9,(\[{.])([0-9]{1,3})((?:,[0-9]{3})+)(?![0-9,])")
_UNICODE = str.maketrans(
    {
        "\N{MINUS SIGN}": "-",
        "\N{EN DASH}": "-",
        "\N{MULTIPLICATION SIGN}": r"\times ",
        "\N{MIDDLE DOT}": r"\cdot ",
        "\N{GREEK SMALL LETTER PI}": r"\pi ",
        "\N{INFINITY}": r"\infty ",
        "\N{LESS-THAN OR EQUAL TO}": r"\leq ",
        "\N{GREATER-THAN OR EQUAL TO}": r"\geq ",
        "\N{NOT EQUAL TO}": r"\ne ",
        "\N{UNION}": r"\cup ",
        "\N{INTERSECTION}": r"\cap ",
        "\N{SQUARE ROOT}": r"\sqrt ",
    }
)
_COMMAND = re.compile(r"\\(?:(?:begin|end) ?\{[^{}]*\}|[A-Za-z]+)")
_LETTER = re.compile(r"[A-Za-z]")
_WORD = re.compile(r"[A-Za-z]{3,}|[0-9] ?_")

# A quantity with its unit in plain letters: "5 square cm".
_QUANTITY = re.compile(
    r"(.*?[0-9}]) ?(?:(?:cm|mm|km|ft|in|yd|mi|kg|mg|lb|oz|ml|hr|sq|cu|[A-Za-z]{3,})\b[ .]*){1,4}"
    r"(?:\^ ?\{?[23]\}?)?"
)

# Each names a form whose evaluation may take for ever or fill the memory.
_MONSTERS = tuple(
    re.compile(pattern)
    for pattern in (
        r"[0-9]{65}",
        r"\^[\s{(]*-?[0-9]{6}",
        r"(?:(?:\^|\*\*)\s*(?:[{(]\s*[0-9A-Za-z.]*|[0-9]+)\s*){3}",
        r"(?:\\(?:a|arc)?(?:sin|cos|tan|cot|sec|csc|log|ln|exp)[^\\+]{0,3}){4}",
        r"\\binom\s*\{[0-9]{5}",
        r"[0-9]{5,}[\s)}]*!",
        r"![\s)}{(]*!",
        r"__|\b(?:import|lambda|eval|exec)\b",
        r"(?:\\(?:sum|prod|int|lim|iint|binom).*){4}",
    )
)
_OPEN, _CLOSE = frozenset("{(["), frozenset("})]")


def _apply(rules: Sequence[Rule], text: str) -> str:
    for pattern, replacement in rules:
        text = pattern.sub(replacement, text)
    return text


def clean(text: str) -> str:
    """The answer as tidy LaTeX: no spacing, sizing, currency, degrees, units or full stop."""
    if not text.isascii():
        text = text.translate(_UNICODE)
    text = _apply(_CLEAN, text)
    return _THOUSANDS.sub(lambda m: m[1] + m[2].replace(",", ""), text)


def squash(cleaned: str) -> str:
    """A `clean` answer in the form for comparing strings; words in it lose their case."""
    text = _apply(_SQUASH, cleaned)
    return text.casefold() if wordy(cleaned) else text


def assigned(squashed: str) -> str:
    r"""What a `squash`ed answer such as "x=5" or "x\in[0,1)" says of its letter, or all of it."""
    found = _ASSIGNED.fullmatch(squashed)
    return found[1] if found else squashed


def wordy(cleaned: str) -> bool:
    """Whether a `clean` answer has words in it, so that only its text can be compared.

    A computer algebra system reads a word as a product of letters, equal to its anagrams, and
    drops the base of a number such as 31_4.
    """
    return _WORD.search(_COMMAND.sub(" ", cleaned)) is not None


def variables(squashed: str) -> frozenset[str]:
    """The letters of a `squash`ed answer that can be variables; the case is ignored."""
    letters = _LETTER.findall(_COMMAND.sub(" ", squashed).casefold())
    return frozenset(letters) - {"e", "i"}


def quantity(cleaned: str) -> str | None:
    """A `clean` answer without its unit in plain letters, or None if it has none."""
    found = _QUANTITY.fullmatch(cleaned)
    return found[1] if found else None


def monstrous(cleaned: str) -> bool:
    """Whether a `clean` answer is no sane mathematics: too deep, too large, or not printable."""
    if not cleaned.isprintable():
        return True
    depth = deepest = 0
    for symbol in cleaned:
        if symbol in _OPEN:
            depth += 1
            deepest = max(deepest, depth)
        elif symbol in _CLOSE:
            depth -= 1
    return deepest > MAX_DEPTH or any(pattern.search(cleaned) for pattern in _MONSTERS)
