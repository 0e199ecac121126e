"""One item of a data set, whatever the data set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Question:
    """A question and its right answer.

    Args:
        text: the question as it is asked.
        gold: the right answer, as its grader reads it.
        steps: the reasoning that the data set gives, one step an item.
        extra: whatever else an environment needs, by name.
        place: where it was read, such as a file and a line; empty for what is generated.
    """

    text: str
    gold: str
    steps: tuple[str, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)
    place: str = field(default="", compare=False)
