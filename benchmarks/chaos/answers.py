"""Hostile answers: a grader gives a grade, whatever it is given."""

from __future__ import annotations

import random
import time

from benchmarks.chaos.tally import Tally
from latentgym.rewards import (
    ChoiceGrader,
    ExactGrader,
    Grader,
    MathGrader,
    NumberGrader,
    SpanGrader,
)

_SECONDS = 20.0  # of a machine that is busy; the graders' own limit is below one
_GRADERS: dict[str, tuple[Grader, str]] = {
    "numbers": (NumberGrader(), "18"),
    "mathematics": (MathGrader(), r"\frac{1}{2}"),
    "choices": (ChoiceGrader(("red", "green")), "red"),
    "spans": (SpanGrader(), "Emmy Noether"),
    "exact": (ExactGrader(), "Emmy Noether"),
}
_PIECES = (
    *("18", "-", "1e999999999", "9" * 500, "0x", "nan", "inf", "1/0", ".", ",", "%", "^", "!", "_"),
    *(r"\frac{", "}{", "}", r"\boxed{", r"\sqrt[", "]", r"\binom{9999999}{4444444}", "9^9^9^9"),
    *(r"\sum_{k=1}^{10^9} k", r"\int_0^\infty", r"\begin{matrix}", "$", "$$", "\\", "((((", "))))"),
    *("####", "The answer is", "red", "green", "not", "\0", "\x1b[31m", "\u202e", "\ud800", "ﷺ"),
    *("__import__('os').system('x')", "lambda: 0", "x" * 3000, "\n" * 50, " " * 300, "١٨", "½"),
)


def hostile(grader: str, tries: int, rng: random.Random) -> Tally:
    """Give a grader answers put together of hostile pieces."""
    tally = Tally(f"hostile answers: {grader}")
    judge, gold = _GRADERS[grader]
    for _ in range(tries):
        answer = "".join(rng.choices(_PIECES, k=rng.randrange(1, 9)))
        began = time.monotonic()
        try:
            grade = judge(answer, gold) if rng.random() < 0.5 else judge.alone(answer, gold)
            fault = None if grade.score in (0.0, 1.0) else f"a score of {grade.score}"
        except Exception as error:
            fault = f"{type(error).__name__}: {error}"
        if time.monotonic() - began > _SECONDS:
            fault = fault or f"more than {_SECONDS:.0f} seconds"
        tally.add(fault and f"{answer[:80]!r}: {fault}"[:300])
    return tally


NAMES = tuple(_GRADERS)
