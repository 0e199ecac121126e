"""Graders for numbers and for mathematics in LaTeX."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import ClassVar

from latentgym.rewards.extract import (
    MARK,
    MAX_LINE,
    MAX_TEXT,
    TAIL,
    after_cue,
    last_box,
    last_dollars,
    marked,
)
from latentgym.rewards.grade import Grade, GraderError, Status, graded
from latentgym.rewards.latex import (
    MAX_ANSWER,
    MAX_GOLD,
    assigned,
    clean,
    monstrous,
    quantity,
    squash,
    variables,
    wordy,
)
from latentgym.rewards.number import NumberOutOfBoundsError, last_number, leading_number, number_of
from latentgym.rewards.sandbox import Sandbox, Verdict

_STATUS: dict[Verdict, Status] = {
    "equal": "ok",
    "different": "ok",
    # Such a gold answer can be compared as text only, and that was done.
    "bad_gold": "ok",
    "bad_answer": "invalid",
    "timeout": "timeout",
    "crash": "invalid",
}
_SANDBOX = Sandbox()


@lru_cache(maxsize=4096)
def _gold_number(gold: str) -> Fraction:
    try:
        value = number_of(gold)
    except NumberOutOfBoundsError:
        value = None
    if value is None:
        raise GraderError(f"the gold answer {gold[:80]!r} is not a number")
    return value


# A number, as written and as a value, and whether it stands where it was asked for.
_Found = tuple[tuple[str, Fraction] | None, bool]


@dataclass(frozen=True)
class NumberGrader:
    r"""Exact equality of numbers, for GSM8K and its kin and for AIME.

    The answer is the number after the first mark that a number follows. Without one, unless
    `strict`, it is the number in the last `\boxed{}`, else after the last "answer is", else the
    last number of the text. "18", "18.0", "$18.00", "36/2" and "1.8e1" are equal. The component
    "format" is 1 if the mark stands exactly once, with a number after it.

    Args:
        strict: accept an answer after the mark only.
        mark: what announces the answer.
        integer_range: the lowest and highest number that may be right; none but whole numbers.
        rel_tol: largest accepted difference, as a share of the gold number.
    """

    numeric: ClassVar[bool] = True

    strict: bool = False
    mark: str = MARK
    integer_range: tuple[int, int] | None = None
    rel_tol: float = 0.0

    def __call__(self, answer: str, gold: str, /) -> Grade:
        """Grade one completion; see `Grader`."""
        return self._graded(answer, gold, self._found)

    def alone(self, answer: str, gold: str, /) -> Grade:
        """Grade an answer that stands alone; see `Grader`."""
        return self._graded(answer, gold, _found_alone)

    def _graded(self, answer: str, gold: str, find: Callable[[str], _Found]) -> Grade:
        target = _gold_number(gold)
        if not self._in_range(target):
            raise GraderError(f"the gold answer {gold!r} is not within {self.integer_range}")
        if len(answer) > MAX_TEXT:
            return graded(False, None, "too_long", formatted=False)
        try:
            found, formatted = find(answer)
        except NumberOutOfBoundsError as error:
            return graded(False, str(error), "invalid", formatted=False)
        if found is None:
            return graded(False, None, "no_answer", formatted=False)
        parsed, value = found
        if not self._in_range(value):
            return graded(False, parsed, "invalid", formatted=formatted)
        return graded(self._equal(value, target), parsed, "ok", formatted=formatted)

    def _found(self, answer: str) -> _Found:
        found = self._marked(answer)
        formatted = found is not None and answer.count(self.mark) == 1
        if found is None and not self.strict:
            found = _unmarked(answer)
        return found, formatted

    def _marked(self, answer: str) -> tuple[str, Fraction] | None:
        # Language models also write the mark as a heading, so it counts with a number only.
        for line in marked(answer, self.mark):
            if found := leading_number(line):
                return found
        return None

    def _in_range(self, value: Fraction) -> bool:
        if self.integer_range is None:
            return True
        low, high = self.integer_range
        return value.denominator == 1 and low <= value <= high

    def _equal(self, value: Fraction, target: Fraction) -> bool:
        if value == target or not self.rel_tol:
            return value == target
        return abs(value - target) <= Fraction(self.rel_tol) * abs(target)


def _found_alone(answer: str) -> _Found:
    return leading_number(answer[:MAX_LINE]) or _unmarked(answer), True


def _unmarked(answer: str) -> tuple[str, Fraction] | None:
    """The number that a completion without the mark most likely gives as its answer."""
    box, _ = last_box(answer)
    if box is not None:
        found = leading_number(box[:MAX_LINE]) or last_number(box[-TAIL:])
        if found:
            return found
    cued = after_cue(answer)
    return (leading_number(cued[:MAX_LINE]) if cued else None) or last_number(answer[-TAIL:])


@dataclass(frozen=True)
class _Form:
    """One LaTeX answer in the forms that are compared."""

    cleaned: str
    squashed: str
    value: str
    number: Fraction | None
    words: bool

    @classmethod
    def of(cls, text: str) -> _Form:
        cleaned = clean(text)
        squashed = squash(cleaned)
        value = assigned(squashed)
        return cls(cleaned, squashed, value, number_of(value), wordy(cleaned))

    def foreign(self, other: _Form) -> bool:
        """Whether a letter stands in the value here that stands nowhere in the other."""
        return not variables(self.value) <= variables(other.squashed)

    def same(self, other: _Form) -> bool:
        """Whether text or number are equal, and so the letter if both assign to one."""
        letters = {form.squashed[0] for form in (self, other) if form.value != form.squashed}
        equal = self.value == other.value or (
            self.number is not None and self.number == other.number
        )
        return equal and len(letters) < 2


@lru_cache(maxsize=4096)
def _gold_form(gold: str) -> _Form:
    try:
        form = _Form.of(gold) if len(gold) <= MAX_GOLD else None
    except NumberOutOfBoundsError:
        form = None
    if form is None or not form.squashed:
        raise GraderError(f"the gold answer {gold[:80]!r} is empty, too long or out of bounds")
    return form


@dataclass(frozen=True)
class MathGrader:
    r"""Mathematical equality of LaTeX answers, for MATH and its kin.

    The answer is in the last balanced `\boxed{}`; without one, unless `strict`, in the last
    `$...$`, else it is the last number. It is right if its normal form is that of the gold
    answer or, for two numbers, if they are equal. Words are compared as text only. All else is
    settled by math-verify in a process of its own, within a bounded time. The component
    "format" is 1 if there is exactly one box.

    Args:
        strict: accept an answer in a box only.
    """

    numeric: ClassVar[bool] = False

    strict: bool = False

    def __call__(self, answer: str, gold: str, /) -> Grade:
        """Grade one completion; see `Grader`."""
        target = _gold_form(gold)
        if len(answer) > MAX_TEXT:
            return graded(False, None, "too_long", formatted=False)
        parsed, boxes = last_box(answer)
        formatted = boxes == 1
        if parsed is None and not self.strict:
            parsed = _unboxed(answer)
        return _judged(parsed, gold, target, formatted)

    def alone(self, answer: str, gold: str, /) -> Grade:
        """Grade an answer that stands alone, in a box or not; see `Grader`."""
        target = _gold_form(gold)
        if len(answer) > MAX_TEXT:
            return graded(False, None, "too_long", formatted=False)
        box, _ = last_box(answer)
        return _judged(answer if box is None else box, gold, target, True)

    @staticmethod
    def warm_up() -> None:
        """Start the comparing process now (about a second), not with the first hard answer."""
        _SANDBOX.start()


def _judged(parsed: str | None, gold: str, target: _Form, formatted: bool) -> Grade:
    if parsed is None or not (parsed := parsed.strip()):
        return graded(False, None, "no_answer", formatted=formatted)
    if len(parsed) > MAX_ANSWER:
        return graded(False, parsed[:MAX_ANSWER], "too_long", formatted=formatted)
    correct, status = _compare(parsed, gold, target)
    return graded(correct, parsed, status, formatted=formatted)


def _unboxed(answer: str) -> str | None:
    if (found := last_dollars(answer)) is not None:
        return found
    try:
        number = last_number(answer[-TAIL:])
    except NumberOutOfBoundsError:
        return None
    return number[0] if number else None


def _compare(answer: str, gold: str, target: _Form) -> tuple[bool, Status]:
    if answer == gold:
        return True, "ok"
    try:
        # The usual case, before any rewriting.
        number = number_of(answer)
        if number is not None and target.number is not None:
            return number == target.number, "ok"
        form = _Form.of(answer)
        if form.foreign(target):
            # Of "area = 5 cm" for 5, what counts stands last, and the unit does not count.
            bare = form.cleaned if "=" in target.cleaned else form.cleaned.rpartition("=")[2]
            form = _Form.of(quantity(bare) or bare)
    except NumberOutOfBoundsError:
        return False, "invalid"
    if form.same(target):
        return True, "ok"
    if form.number is not None and target.number is not None:
        return False, "ok"
    if monstrous(form.cleaned):
        return False, "invalid"
    if form.foreign(target) or form.words or target.words:
        return False, "ok"
    answer = form.value if target.value == target.squashed else form.squashed
    verdict = _SANDBOX.compare(target.squashed, answer)
    return verdict == "equal", _STATUS[verdict]
