"""Questions that are too long for a model to read, and texts too long for people."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from latentgym.progress import progress_bar

IntArray = npt.NDArray[np.int64]
MOST_CHARS = 4_000
"""Of a text that is stored to be looked at."""


def shortened(text: str) -> str:
    """A text as far as people look at it; what is left out is marked."""
    return text if len(text) <= MOST_CHARS else f"{text[:MOST_CHARS]} [...]"


SHORTER = (
    "lower the environment's budgets (think=, answer=, and where it searches turns=, passages= and "
    "passage_tokens=) or choose another model"
)
"""What can be done where episodes are too long, as the end of a sentence."""


def too_long(
    questions: IntArray, positions: Callable[[int], int], limit: int | None
) -> dict[int, int]:
    """Positions by question, of those that need more than the limit."""
    if limit is None:
        return {}
    found = {}
    with progress_bar("checking lengths", len(questions)) as advance:
        for question in questions.tolist():
            needed = positions(question)
            if needed > limit:
                found[question] = needed
            advance(1)
    return found


def how_long(long: dict[int, int], of: int, limit: int | None, more: str = "") -> str:
    """A sentence on questions that are too long, and what can be done."""
    longest = max(long, key=long.__getitem__)
    return (
        f"{len(long)} of {of} questions need more than the model's {limit} positions (question "
        f"{longest} needs {long[longest]}); choose another model, lower the budgets of "
        f"the environment (-o think=..., -o answer=...){', ' if more else ''}{more}."
    )
