"""What a grader is, and what it returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Protocol

Status = Literal["ok", "no_answer", "timeout", "too_long", "invalid", "refused"]


class GraderError(ValueError):
    """The *gold* answer (or the grader itself) is at fault, so no score may be given."""


class GoldError(GraderError):
    """The gold answer cannot be read."""


@dataclass(frozen=True)
class Grade:
    """The verdict on one answer.

    Args:
        score: the reward, 1.0 for a right answer and 0.0 for any other.
        parsed: the answer as the grader read it, or None if it found none.
        status: "ok" if an answer was found and compared; otherwise why the score is 0:
            "no_answer" (none found), "timeout" (comparing took too long), "too_long", "invalid"
            (outside what the grader accepts, or it broke the comparison), or "refused" (comparing
            it would have done what a judged text may not do).
        components: every part of the reward by name; at least "correct" and "format".
    """

    score: float
    parsed: str | None
    status: Status
    components: Mapping[str, float] = field(default_factory=dict)


class Grader(Protocol):
    """Compares an answer with the gold answer.

    Where the answer stands is known by the format in which it was asked for, which gives it to
    `alone`. Called with a whole completion, a grader looks where answers of its kind usually stand.

    Attributes:
        numeric: whether answers are numbers.
    """

    numeric: ClassVar[bool]

    def __call__(self, answer: str, gold: str, /) -> Grade:
        """Grade one completion.

        Args:
            answer: the completion, whatever the model wrote; it never makes a grader raise.
            gold: the right answer, as the data set gives it.

        Returns:
            The grade.

        Raises:
            GoldError: the gold answer cannot be read.
        """
        ...

    def alone(self, answer: str, gold: str, /) -> Grade:
        """Grade an answer that stands alone, found by whoever knows the completion's format.

        Args:
            answer: the answer without words and marks around it; it never makes a grader raise.
            gold: the right answer, as the data set gives it.

        Returns:
            The grade; there is nothing around the answer that the component "format" could miss.

        Raises:
            GoldError: the gold answer cannot be read.
        """
        ...

    def fallback(self, completion: str, /) -> str | None:
        """What a completion without its format's mark most likely gives as its answer, if any."""
        ...


def graded(correct: bool, parsed: str | None, status: Status, *, formatted: bool) -> Grade:
    """A grade whose score is its correctness, with the two components every grader has."""
    score = float(correct)
    return Grade(score, parsed, status, {"correct": score, "format": float(formatted)})
