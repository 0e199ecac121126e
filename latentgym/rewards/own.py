"""A function of the user's own as a grader."""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from latentgym.rewards.extract import MAX_TEXT, statement, unmarked
from latentgym.rewards.grade import Grade, GraderError, graded


@dataclass(frozen=True)
class OwnGrader:
    """A function `(answer, gold, **columns)` that gives True, False or a number from 0 to 1.

    The answer is read from the same place as by `ExactGrader`; one that is empty or too long is
    not shown to the function. Whatever else it gives, and whatever it raises, is an error and no
    grade.

    Args:
        name: of the function, for errors.
        function: the grader itself.
        columns: that it is given by name.
    """

    numeric: ClassVar[bool] = False

    name: str
    function: Callable[..., Any]
    columns: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, answer: str, gold: str, /) -> Grade:
        """Grade one completion; see `Grader`."""
        return self.alone(statement(answer), gold)

    def alone(self, answer: str, gold: str, /) -> Grade:
        """Grade an answer that stands alone; see `Grader`."""
        if len(answer) > MAX_TEXT:
            return graded(False, None, "too_long", formatted=False)
        if not answer.strip():
            return graded(False, None, "no_answer", formatted=True)
        try:
            with contextlib.redirect_stdout(sys.stderr):  # stdout holds results, and JSON alone
                given = self.function(answer, gold, **self.columns)
        except Exception as error:  # it may be anything, and no answer is at fault for it
            raise GraderError(f"the grader {self.name} failed ({_line(error)})") from error
        score = self._score(given)
        return Grade(score, answer, "ok", {"correct": float(score == 1.0), "format": 1.0})

    def fallback(self, completion: str, /) -> str | None:
        """What a completion without its mark gives as its answer; see `Grader`."""
        return unmarked(completion) or None

    def _score(self, given: Any) -> float:
        if isinstance(given, bool | int | float) and math.isfinite(given) and 0 <= given <= 1:
            return float(given)
        raise GraderError(
            f"the grader {self.name} gives {given!r:.60}, which is neither true, false nor a "
            "number from 0 to 1"
        )


def _line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
