"""Graders for numbers and for mathematics in LaTeX."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import ClassVar

from latentgym.rewards.answer import Answer, read, same
from latentgym.rewards.extract import (
    MARKER,
    MAX_TEXT,
    after_cue,
    clause,
    last_box,
    last_dollars,
    last_figure,
    marked,
)
from latentgym.rewards.grade import GoldError, Grade, Status, graded
from latentgym.rewards.latex import MAX_ANSWER, MAX_GOLD, monstrous
from latentgym.rewards.number import Number, NumberOutOfBoundsError
from latentgym.rewards.sandbox import Sandbox, Verdict

_STATUS: dict[Verdict, Status] = {
    "equal": "ok",
    "different": "ok",
    # Such a gold answer can be compared as text only, and that was done.
    "bad_gold": "ok",
    "bad_answer": "invalid",
    "timeout": "timeout",
    "refused": "refused",
    "crash": "invalid",
}
_SANDBOX = Sandbox()
_DIGIT = re.compile("[0-9]")
_LETTER = re.compile("[a-z]")
_COMMAND = re.compile(r"\\(?:(?:begin|end) ?\{[^{}]*\}|[A-Za-z]+)")
# They have letters of their own.
_BINDS = re.compile(r"\\(?:sum|prod|int|lim)(?![a-z])")
# A line behind the mark that announces an answer, or numbers a step, and is none itself.
_HEADING = re.compile(r"[\s*_`:]*(?:[A-Za-z]{2,}(?![A-Za-z ]{0,20}=)|[0-9]{1,2}[.)][\s*]+[A-Za-z])")


@dataclass(frozen=True)
class NumberGrader:
    r"""Equality of numbers, for GSM8K and its kin and for AIME.

    The answer is the line behind the first mark that no heading follows. Without one, unless
    `strict`, it is looked for behind the last heading: in the last `\boxed{}`, else behind the last
    "answer is", else the last figure. It is read whole: "18", "18.0", "$18.00", "36/2", "1.8e1",
    "18 dollars" and "6 + 12 = 18" are equal; "18 or 19", "18!" and "18 million" are other answers.
    The component "format" is 1 if the mark stands exactly once, with an answer behind it.

    Args:
        strict: accept an answer behind the marker only.
        marker: what announces the answer.
        integer_range: the lowest and highest number that may be right; none but whole numbers.
        rel_tol: largest accepted difference, as a share of the gold number.
    """

    numeric: ClassVar[bool] = True

    strict: bool = False
    marker: str = MARKER
    integer_range: tuple[int, int] | None = None
    rel_tol: float = 0.0

    def __call__(self, answer: str, gold: str, /) -> Grade:
        """Grade one completion; see `Grader`."""
        if len(answer) > MAX_TEXT:
            return self._graded(answer, gold, None, False)
        lines = (line.strip() for line in marked(answer, self.marker))
        found = next((line for line in lines if line and not _HEADING.match(line)), None)
        formatted = found is not None and answer.count(self.marker) == 1
        if found is not None:
            return self._graded(answer, gold, last_box(found)[0] or found, formatted)
        # A heading is no answer, and what stands before it neither.
        _, marker, behind = answer.rpartition(self.marker)
        rest = behind.partition("\n")[2] if marker else answer
        return self._graded(answer, gold, self.fallback(rest), False)

    def alone(self, answer: str, gold: str, /) -> Grade:
        """Grade an answer that stands alone; see `Grader`."""
        return self._graded(answer, gold, last_box(answer[:MAX_TEXT])[0] or answer, True)

    def fallback(self, completion: str, /) -> str | None:
        """What a completion without its mark gives as its answer; see `Grader`."""
        if self.strict or len(completion) > MAX_TEXT:
            return None
        box, _ = last_box(completion)
        if box is not None:
            return box
        cued = after_cue(completion)
        said = clause(cued) if cued else ""
        return said if _DIGIT.search(said) else last_figure(completion)

    def _graded(self, text: str, gold: str, parsed: str | None, formatted: bool) -> Grade:
        target = _gold_number(gold)
        if not self._in_range(target.value):
            raise GoldError(f"the gold answer {gold!r} is not within {self.integer_range}")
        if len(text) > MAX_TEXT:
            return graded(False, None, "too_long", formatted=False)
        if parsed is None or not _DIGIT.search(parsed):
            return graded(False, None, "no_answer", formatted=False)
        if len(parsed) > MAX_ANSWER:
            return graded(False, parsed[:MAX_ANSWER], "too_long", formatted=formatted)
        try:
            number = _number(parsed)
        except NumberOutOfBoundsError as error:
            return graded(False, str(error), "invalid", formatted=formatted)
        if number is None:
            plain = f"{target.value}{'%' * target.percent}"
            correct, status = _compare(parsed, plain, Answer("number", plain, number=target))
            return graded(correct, parsed, status, formatted=formatted)
        if not self._in_range(number.value):
            return graded(False, parsed, "invalid", formatted=formatted)
        correct = target.equals(number) or self._near(number.value, target.value)
        return graded(correct, parsed, "ok", formatted=formatted)

    def _in_range(self, value: Fraction) -> bool:
        if self.integer_range is None:
            return True
        low, high = self.integer_range
        return value.denominator == 1 and low <= value <= high

    def _near(self, value: Fraction, target: Fraction) -> bool:
        return self.rel_tol > 0 and abs(value - target) <= Fraction(self.rel_tol) * abs(target)


@dataclass(frozen=True)
class MathGrader:
    r"""Mathematical equality of LaTeX answers, for MATH and its kin.

    The answer is in the last balanced `\boxed{}`; without one, unless `strict`, in the last
    `$...$`, else it is the last figure. It is read whole and has a kind (see
    `latentgym.rewards.answer`); words are compared as text, numbers exactly, and what needs algebra
    is settled by math-verify and sympy in a process of its own, within a bounded time. The
    component "format" is 1 if there is exactly one box.

    Args:
        strict: accept an answer in a box only.
    """

    numeric: ClassVar[bool] = False

    strict: bool = False

    def __call__(self, answer: str, gold: str, /) -> Grade:
        """Grade one completion; see `Grader`."""
        if len(answer) > MAX_TEXT:
            return _judged(answer, gold, None, False)
        found, boxes = last_box(answer)
        if found is None:
            found = self.fallback(answer)
        return _judged(answer, gold, found, boxes == 1)

    def alone(self, answer: str, gold: str, /) -> Grade:
        """Grade an answer that stands alone, in a box or not; see `Grader`."""
        box, _ = last_box(answer[:MAX_TEXT])
        return _judged(answer, gold, answer if box is None else box, True)

    def fallback(self, completion: str, /) -> str | None:
        """What a completion without its mark gives as its answer; see `Grader`."""
        if self.strict or len(completion) > MAX_TEXT:
            return None
        return last_dollars(completion) or last_figure(completion)

    @staticmethod
    def warm_up() -> None:
        """Start the comparing process now (about a second), not with the first hard answer."""
        _SANDBOX.start()


def _judged(text: str, gold: str, parsed: str | None, formatted: bool) -> Grade:
    target = _gold_answer(gold)
    if len(text) > MAX_TEXT:
        return graded(False, None, "too_long", formatted=False)
    if parsed is None or not (parsed := parsed.strip()):
        return graded(False, None, "no_answer", formatted=formatted)
    if len(parsed) > MAX_ANSWER:
        return graded(False, parsed[:MAX_ANSWER], "too_long", formatted=formatted)
    correct, status = _compare(parsed, gold, target)
    return graded(correct, parsed, status, formatted=formatted)


def _number(text: str) -> Number | None:
    """The number that a text is; in doubt ("12,650"), one number."""
    found = read(text)
    return found.number if found else None


@lru_cache(maxsize=4096)
def _gold_number(gold: str) -> Number:
    try:
        number = _number(gold) if len(gold) <= MAX_GOLD else None
    except NumberOutOfBoundsError:
        number = None
    if number is None:
        raise GoldError(f"the gold answer {gold[:80]!r} is not a number")
    return number


@lru_cache(maxsize=4096)
def _gold_answer(gold: str) -> Answer:
    try:
        answer = read(gold) if len(gold) <= MAX_GOLD else None
    except NumberOutOfBoundsError:
        answer = None
    if answer is None:
        raise GoldError(f"the gold answer {gold[:80]!r} is empty, too long or out of bounds")
    return answer


class _NeedsAlgebraError(Exception):
    pass


def _no_algebra(gold: Answer, answer: Answer) -> bool:
    """What can be told without algebra: an expression in other letters has another value."""
    if answer.kind == "expression" and not _BINDS.search(answer.text):
        foreign = _variables(answer.text) - _variables(gold.text)
        if foreign and gold.kind in ("number", "expression"):
            return False
    raise _NeedsAlgebraError


def _variables(text: str) -> frozenset[str]:
    return frozenset(_LETTER.findall(_COMMAND.sub(" ", text).lower())) - {"e", "i"}


def _compare(answer: str, gold: str, target: Answer) -> tuple[bool, Status]:
    """Whether an answer is right: settled here, or else in the process that may be killed."""
    if answer.strip() == gold.strip():
        return True, "ok"
    try:
        given = read(answer)
    except (NumberOutOfBoundsError, RecursionError):
        given = None
    if given is None:
        return False, "invalid"
    if (given.kind, given.text) == (target.kind, target.text):
        return True, "ok"
    try:
        return same(target, given, _no_algebra), "ok"
    except _NeedsAlgebraError:
        if monstrous(given.text):
            return False, "invalid"
    verdict = _SANDBOX.compare(gold, answer)
    return verdict == "equal", _STATUS[verdict]
