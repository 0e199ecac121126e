"""Whether questions that are asked in an evaluation were trained on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from latentgym.evaluation.answers import IntArray


@dataclass(frozen=True)
class Trained:
    """What weights were trained on, from the first run to the last.

    Attributes:
        tasks: of the training environments; none for weights that were not trained here.
        whole: whether these are all: a run that another began from may be gone.
    """

    tasks: tuple[Any, ...] = ()
    whole: bool = True


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
    for task in trained.tasks:
        if task.dataset_hash == asked.dataset_hash:
            return len(questions)
        if not task.apart(asked):
            known |= {_key(task, index) for index in range(len(task))}
    count = sum(_key(asked, index) in known for index in questions.tolist()) if known else 0
    return count if count or trained.whole else None


def _key(task: Any, index: int) -> tuple[str, str]:
    question = task.question(index)
    return " ".join(question.text.split()), question.gold
