"""An agent's answer to a question, as evaluation and agents share it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from latentgym.accounting import Positions


@dataclass
class Answer:
    """An agent's answer to one question under one seed.

    Attributes:
        index: number of the question.
        info: final info of the chosen episode: answer, completion, score, status, ...
        thoughts: the thoughts as the tokens nearest to them.
        positions: all forward positions that were spent on the question.
        context: positions of the prompt and of the chosen episode.
        samples: scores of all episodes that were drawn, the chosen one among them.
        metrics: numbers by name; a result has their means over the answers that have them.
        trace: what was tried on the way to the answer, one entry per attempt, in what JSON can say.
    """

    index: int
    info: dict[str, Any]
    thoughts: str
    positions: Positions
    context: int
    samples: tuple[float, ...]
    metrics: Mapping[str, float] = field(default_factory=dict)
    trace: Sequence[Mapping[str, Any]] = ()


# Told finished answers as soon as a batch of them is made.
Answered = Callable[[Sequence[Answer]], None]
