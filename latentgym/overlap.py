"""Whether questions that are asked in an evaluation were trained on."""

from __future__ import annotations

from typing import Any

from latentgym.answers import IntArray

GENERATED = "generated"


def trained_on(trained: Any, asked: Any, questions: IntArray) -> int:
    """How many of the questions are among those of the training split, with the same answer.

    Generated splits are made apart from each other by their task.

    Args:
        trained: the task of the training environment.
        asked: that of the evaluation.
        questions: their numbers in it.
    """
    if trained.dataset_hash == asked.dataset_hash:
        return len(questions)
    if trained.source == asked.source == GENERATED and trained.split != asked.split:
        return 0
    known = {_key(trained, index) for index in range(len(trained))}
    return sum(_key(asked, index) in known for index in questions.tolist())


def _key(task: Any, index: int) -> tuple[str, str]:
    question = task.question(index)
    return " ".join(question.text.split()), question.gold
