"""Graders for answers in words."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

from latentgym.rewards.extract import MARKER, MAX_LINE, MAX_TEXT, statement, unmarked
from latentgym.rewards.grade import GoldError, Grade, graded

_BLANKS = re.compile(r"\s+")
_WORD = re.compile(r"\w+")
# "not B" names B, and does not choose it.
_NEGATIONS = frozenset(("not", "never", "neither", "nor", "isn", "t"))
_ENDS = " \t.,;:!?\"'`*_()[]{}$"


def _negations(text: str) -> frozenset[str]:
    return _NEGATIONS & set(_WORD.findall(text.casefold()))


def normalise(text: str) -> str:
    """Case folded, blanks made single, and no punctuation at the ends."""
    return _BLANKS.sub(" ", text).strip(_ENDS).casefold()


@dataclass(frozen=True)
class ExactGrader:
    """Equality of text, but for case, blanks and punctuation at the ends.

    The answer is what follows the first mark on its line, else the last "answer is", else the
    last line. The component "format" is 1 if the mark stands exactly once.
    """

    numeric: ClassVar[bool] = False

    def __call__(self, answer: str, gold: str, /) -> Grade:
        """Grade one completion; see `Grader`."""
        return self._graded(answer, gold, statement(answer), answer.count(MARKER) == 1)

    def alone(self, answer: str, gold: str, /) -> Grade:
        """Grade an answer that stands alone; see `Grader`."""
        return self._graded(answer, gold, answer, True)

    def fallback(self, completion: str, /) -> str | None:
        """What a completion without its mark gives as its answer; see `Grader`."""
        return unmarked(completion) or None

    def _graded(self, text: str, gold: str, parsed: str, formatted: bool) -> Grade:
        target = normalise(gold)
        if not target:
            raise GoldError(f"the gold answer {gold[:80]!r} is empty")
        if len(text) > MAX_TEXT:
            return graded(False, None, "too_long", formatted=False)
        if not normalise(parsed):
            return graded(False, None, "no_answer", formatted=formatted)
        return graded(normalise(parsed) == target, parsed, "ok", formatted=formatted)


@dataclass(frozen=True)
class ChoiceGrader:
    """The one right choice among several, named in a sentence or alone.

    The answer is read from the same place as by `ExactGrader`, and must name exactly one of the
    choices as a whole word or phrase, in any case. Without choices, its last word must be the
    last word of the gold answer: "She is a dralpin." is right for "Mia is a dralpin.".

    Args:
        choices: all answers that can be given; the gold answer names one of them.
    """

    numeric: ClassVar[bool] = False

    choices: tuple[str, ...] = ()

    def __call__(self, answer: str, gold: str, /) -> Grade:
        """Grade one completion; see `Grader`."""
        return self._graded(answer, gold, statement(answer), answer.count(MARKER) == 1)

    def alone(self, answer: str, gold: str, /) -> Grade:
        """Grade an answer that stands alone; see `Grader`."""
        return self._graded(answer, gold, answer, True)

    def fallback(self, completion: str, /) -> str | None:
        """What a completion without its mark gives as its answer; see `Grader`."""
        return unmarked(completion) or None

    def _graded(self, text: str, gold: str, stated: str, formatted: bool) -> Grade:
        targets = self._named(gold)
        if len(targets) != 1:
            raise GoldError(
                f"the gold answer {gold[:80]!r} must name exactly one of {self.choices}"
                if self.choices
                else f"the gold answer {gold[:80]!r} has no word"
            )
        if len(text) > MAX_TEXT:
            return graded(False, None, "too_long", formatted=False)
        stated = stated[-10 * MAX_LINE :]
        named = self._named(stated)
        if not named:
            return graded(False, None, "no_answer", formatted=formatted)
        if len(named) > 1:
            return graded(False, " | ".join(named), "invalid", formatted=formatted)
        if _negations(stated) - _negations(f"{gold} {named[0]}"):
            return graded(False, stated.strip(), "ok", formatted=formatted)
        return graded(named == targets, named[0], "ok", formatted=formatted)

    def _named(self, text: str) -> tuple[str, ...]:
        """The choices that a text names, or its last word where there are no choices."""
        words = _WORD.findall(text.casefold())
        if not self.choices:
            return tuple(words[-1:])
        spaced = f" {' '.join(words)} "
        return tuple(
            choice
            for choice in self.choices
            if f" {' '.join(_WORD.findall(choice.casefold()))} " in spaced
        )
