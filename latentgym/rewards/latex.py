r"""What of LaTeX is only typography, and the screen that keeps monsters from the comparison.

math-verify reads mathematics; rewritten here is only what it cannot read, or reads as something
else. Each rule stands with a case that needs it, as (answer, gold): a test asks math-verify alone
for a wrong verdict on it, and the grader for the right one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

# No answer of a known data set is half as long.
MAX_ANSWER = 400
MAX_GOLD = 2000
MAX_DEPTH = 12

TEXT = r"\\(?:text(?:bf|it|rm|normal|sf)?|mbox|mathrm|mathbf|operatorname)"
_TRIGONOMETRY = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![a-z])")
_DEGREES = r" ?(?:\^ ?(?:\\circ(?![A-Za-z])|\{ ?\\circ ?\})|\\degree(?![A-Za-z])|°)"
# What may stand between groups of three digits and nothing else.
_GROUPED = re.compile(
    r"(?<![0-9.,])([0-9]{1,3})((?:(?:, ?\\!|\{,\}|\\[,!~ ]|~)[0-9]{3})+)(?![0-9]| ?/)"
)
_REPEATING = re.compile(
    r"(?<![0-9])([0-9]{1,9})\.([0-9]{0,9})(?:\\overline|\\bar|\\dot) ?\{ ?([0-9]{1,9}) ?\}"
)
_NOT_DIGITS = re.compile(r"[^0-9]+")


def _join_groups(text: str) -> str:
    return _GROUPED.sub(lambda m: m[1] + _NOT_DIGITS.sub("", m[2]), text)


def _degrees(text: str) -> str:
    """Degrees are radians inside a trigonometric function, and a unit elsewhere."""
    if _TRIGONOMETRY.search(text):
        text = re.sub(rf"([0-9.]+){_DEGREES}", r"{(\\frac{\\pi \\cdot \1}{180})}", text)
    return re.sub(_DEGREES, "", text)


def _pi_over(found: re.Match[str]) -> str:
    return r"\frac{\pi}" + (f"{{{found[2]}}}" if found[2] else "")


def _matrix(found: re.Match[str]) -> str:
    return rf"\begin{{pmatrix}}{found[1]}\end{{pmatrix}}"


def _rule(pattern: str, replacement: str | Callable[[re.Match[str]], str]) -> Callable[[str], str]:
    compiled = re.compile(pattern)
    return lambda text: compiled.sub(replacement, text)


def _repeating(text: str) -> str:
    """Repeating decimals as fractions."""

    def fraction(found: re.Match[str]) -> str:
        whole, once, again = found.groups()
        nines = 10 ** len(again) - 1
        above = int(f"{whole}{once}{again}") - int(f"{whole}{once}")
        return rf"\frac{{{above}}}{{{nines * 10 ** len(once)}}}"

    return _REPEATING.sub(fraction, text)


class Rule(NamedTuple):
    """One rewriting, and an answer with its gold answer that math-verify judges wrongly without."""

    rewrite: Callable[[str], str]
    answer: str
    gold: str


RULES: tuple[Rule, ...] = (
    Rule(
        _rule("√ ?([0-9]+(?:\\.[0-9]+)?|[A-Za-z]|\\([^()]*\\))", r"\\sqrt{\1}"),
        "√16",
        "4",
    ),
    Rule(_rule("[\u2212\u2012-\u2014]", "-"), "\u20135", "-5"),
    Rule(_rule("\u00d7", r"\\times "), "2 \u00d7 10^-3", "0.002"),
    Rule(_rule("\u00b7", r"\\cdot "), "2\u00b73", "6"),
    Rule(_rule("\u221e", r"\\infty "), "(0,\u221e)", r"(0,\infty)"),
    Rule(_rule("\u2264", r"\\le "), "x \u2264 3", r"x \le 3"),
    Rule(_rule("\u2265", r"\\ge "), "x \u2265 3", r"x \ge 3"),
    Rule(_rule("\u2248", r"\\approx "), "\u2248 8.24", "8.24"),
    Rule(_rule("\u2260", r"\\ne "), "x \u2260 3", r"x \ne 3"),
    Rule(_rule("\u222a", r"\\cup "), "[0,1]\u222a[2,3]", r"[0,1]\cup[2,3]"),
    Rule(_rule("\u2229", r"\\cap "), "[0,2]\u2229[1,3]", r"[0,2]\cap[1,3]"),
    Rule(_rule("\u00b2", "^2"), "x\u00b2", "x^2"),
    Rule(_rule("\u00b3", "^3"), "x\u00b3", "x^3"),
    Rule(_join_groups, r"12,\!650", "12650"),
    # Emphasis, and no power: "2**3".
    Rule(_rule(r"(?<![0-9A-Za-z)}\]])\*\*|\*\*(?![0-9A-Za-z({\\-])|[`_]{2,}|`", ""), "**5**", "5"),
    # Blanks of all kinds; in a matrix `\\` ends a row.
    Rule(_rule(r"(?<!\\)\\(?:[!;:,]|[ ]|q?quad(?![A-Za-z]))|[\s~]+", " "), "(1,~2)", "(1,2)"),
    Rule(
        _rule(r"\\\\ ?\[ ?[0-9.]+ ?[a-z]{2} ?\]", r"\\\\"),
        r"\begin{pmatrix}1\\[2pt]2\end{pmatrix}",
        r"\begin{pmatrix}1\\2\end{pmatrix}",
    ),
    Rule(_rule(r"\\\$|\$|£|€|(?<!\\)\\[()\[\]]", ""), r"\$3.5\text{ million}", "3500000"),
    Rule(
        _rule(
            r"\\(?:left|right)\.|\\(?:left|right|[bB]igg?[lr]?|displaystyle|limits)(?![A-Za-z]) ?",
            "",
        ),
        r"\bigl(1, 2\bigr]",
        "(1,2]",
    ),
    Rule(_rule(r"\\phantom ?(?:\{[^{}]*\}|-)", ""), r"\phantom{-}3", "3"),
    Rule(
        _rule(r"\\(?:boldsymbol|underline|pmb)(?= ?\{)|\\(?:bf|it|rm|large)(?![A-Za-z]) ?", ""),
        r"\boldsymbol{(1,2)}",
        "(1,2)",
    ),
    Rule(
        _rule(r"\(? ?\\begin ?\{array\} ?\{[^{}]*\}(.*?)\\end ?\{array\} ?\)?", _matrix),
        r"\left(\begin{array}{cc}1&2\\3&4\end{array}\right)",
        r"\begin{pmatrix}1&2\\3&4\end{pmatrix}",
    ),
    Rule(
        _rule(rf" ?{TEXT} ?\{{ ?(?:percent|per cent) ?\}}", r"\\%"),
        r"10\text{ percent}",
        r"10\%",
    ),
    Rule(_rule(r"\\varnothing", r"\\emptyset"), r"\varnothing", r"\emptyset"),
    Rule(_degrees, r"\sin 30^\circ", r"\frac{1}{2}"),
    # "6, 8\text{, and }10" is a list.
    Rule(
        _rule(rf" ?,? ?(?:{TEXT} ?\{{ ?,? ?(?:and|or) ?\}}|(?<![A-Za-z(])(?:and|or)\b) ?", ", "),
        r"(1, 2) and (3, 4)",
        "(1,2), (3,4)",
    ),
    Rule(_rule(r"(?<![A-Za-z\\])sqrt ?\(([^()]*)\)", r"\\sqrt{\1}"), "sqrt(16)", "4"),
    Rule(
        _rule(r"(?<![A-Za-z\\])(sin|cos|tan|log|ln|pi)(?![A-Za-z])", r"\\\1 "),
        "3pi/2",
        r"\frac{3\pi}{2}",
    ),
    Rule(
        _rule(r"\\([dtc]?)frac ?\\pi(?![A-Za-z]) ?([0-9])?", _pi_over),
        r"\frac\pi2",
        r"\frac{\pi}{2}",
    ),
    Rule(
        _rule(r"(?<=[0-9])[eE]([-+]?[0-9]+)(?!\.?[0-9A-Za-z])", r" \\cdot 10^{\1}"),
        r"2 \cdot 1.5e3",
        "3000",
    ),
    Rule(_repeating, r"0.1\overline{6}", r"\frac{1}{6}"),
)

# Each names a form whose evaluation may take for ever or fill the memory.
_MONSTERS = tuple(
    re.compile(pattern)
    for pattern in (
        r"[0-9]{65}",
        r"\^[\s{(]*-?[0-9]{6}",
        r"\^\s*\{[^{}]*[0-9]{2}\s*\^\s*\{?[0-9]{2}",
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


def tidy(text: str) -> str:
    """An answer without what is only typography: spacing, sizing, currency, degrees, full stop."""
    for rule in RULES:
        text = rule.rewrite(text)
    return text.strip().rstrip(".,;: ").lstrip("=: ")


_SYMBOL = re.compile(r"\\(?:[A-Za-z]+|.)|.", re.DOTALL)
_OPENS = frozenset(["{", "(", "[", r"\{", r"\langle"])
_CLOSES = frozenset(["}", ")", "]", r"\}", r"\rangle"])


def symbols(text: str) -> Iterator[tuple[int, str, int]]:
    """Each symbol of a LaTeX text: its place, itself, and how many brackets are open around it.

    A command is one symbol. Kinds of brackets are not told apart: a half-open interval closes what
    it opened.
    """
    depth = 0
    for found in _SYMBOL.finditer(text):
        symbol = found.group()
        depth -= symbol in _CLOSES
        yield found.start(), symbol, depth
        depth += symbol in _OPENS


def monstrous(text: str) -> bool:
    """Whether a text is no sane mathematics: too deep, too large, or not printable."""
    if not text.isprintable():
        return True
    depth = deepest = 0
    for symbol in text:
        if symbol in _OPEN:
            depth += 1
            deepest = max(deepest, depth)
        elif symbol in _CLOSE:
            depth -= 1
    return deepest > MAX_DEPTH or any(pattern.search(text) for pattern in _MONSTERS)
