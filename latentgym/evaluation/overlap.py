"""Whether questions that are asked in an evaluation were trained on, and which are held out."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain, repeat
from typing import Any

import numpy as np

from latentgym.data.own import place_of, same_question
from latentgym.evaluation.answers import IntArray

HELD_OUT = 0.1
"""Share of the training questions that is held out where a task has no split to validate on."""


@dataclass(frozen=True)
class Trained:
    """What weights were trained on, from the first run to the last.

    Attributes:
        tasks: of the training environments; none for weights that were not trained here.
        whole: whether these are all: a run that another began from may be gone.
        shares: of each task, the share of its questions that was held out; 0 where it is not told.
    """

    tasks: tuple[Any, ...] = ()
    whole: bool = True
    shares: tuple[float, ...] = ()


def held_out(task: Any, share: float) -> IntArray:
    """Numbers of the questions that are held out of training, by a hash of their text, int64.

    What asks the same is held out together, and a question whatever its number. The hash is not
    that by which a file of the user's own is parted into training and test.

    Args:
        task: whose questions.
        share: of them, about.
    """
    texts = (same_question(task.question(index).text) for index in range(len(task)))
    places = np.array([place_of(f"validation: {text}") for text in texts])
    return np.flatnonzero(places < share)


def trained_on(trained: Trained, asked: Any, questions: IntArray) -> int | None:
    """How many of the questions are among those that were trained on, with the same answer.

    Questions are compared by their text, unless their tasks know that none can be in both.

    Args:
        trained: what was trained on.
        asked: the task of the evaluation.
        questions: their numbers in it.

    Returns:
        At least so many where not all is known; None where none are known of, and that is not all.
    """
    known: set[tuple[str, str]] = set()
    for task, share in zip(trained.tasks, chain(trained.shares, repeat(0.0)), strict=False):
        if task.dataset_hash == asked.dataset_hash and not share:
            return len(questions)
        if not task.apart(asked):
            kept = set(range(len(task))).difference(held_out(task, share).tolist() if share else ())
            known |= {_key(task, index) for index in kept}
    count = sum(_key(asked, index) in known for index in questions.tolist()) if known else 0
    return count if count or trained.whole else None


def _key(task: Any, index: int) -> tuple[str, str]:
    question = task.question(index)
    return " ".join(question.text.split()), question.gold
