"""A recommender as an answerer, so that evaluation treats it as it treats an agent.

Legend: E entries of the catalogue, Q questions.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from hashlib import sha256
from typing import Any

import numpy as np

from latentgym.errors import UsageError
from latentgym.evaluation.accounting import ModelSizes, Positions
from latentgym.evaluation.answers import Answer, Answered, Answerer, Identity, IntArray
from latentgym.evaluation.ranking import ranking_metrics
from latentgym.evaluation.recommenders.base import (
    Floats,
    Histories,
    Recommender,
    Targets,
    best,
    ranks,
)

_SHOWN = 20  # entries of a ranking that are kept with an answer
_NUMBERS = 2**23  # scores that are in memory at once
_NOBODY = ModelSizes(0, 0, 0, 0)


def check_catalogue(task: Any) -> None:
    """Refuse tasks that no recommender can answer.

    Raises:
        UsageError: the answers of the task are not from a catalogue.
    """
    if getattr(task, "catalogue", None) is None:
        raise UsageError(
            f"{task.name} has no catalogue to rank; give an environment of recommendation, such "
            "as latent/MovieLens-token."
        )


def _history(task: Any, index: int) -> list[int]:
    """The whole history of a question, as entries."""
    entry_of = task.catalogue.entry_of
    return [entry_of[item] for item in task.question(index).extra["history"]]


def _shown(task: Any, index: int) -> list[int]:
    """As much of it as an agent is shown."""
    return _history(task, index)[-task.history :]


def fit(recommender: Recommender, task: Any, valid: Any = None) -> None:
    """Fit a recommender to the questions of a task.

    Args:
        recommender: is fitted.
        task: of the training split; it learns from whole histories.
        valid: of the validation split, for recommenders that validate.

    Raises:
        UsageError: tasks without a catalogue, or questions that cannot be learned from.
    """
    check_catalogue(task)
    rows = _rows(task, _history)
    recommender.fit(*rows, len(task.catalogue), None if valid is None else _rows(valid, _shown))


def _rows(task: Any, history: Callable[[Any, int], list[int]]) -> tuple[Histories, Targets]:
    questions = range(len(task))
    return [history(task, i) for i in questions], [task.entry(i) for i in questions]


def answerer(recommender: Recommender, task: Any, *, exclude_history: bool = False) -> Answerer:
    """Who ranks the whole catalogue for each question of a task.

    An answer is the first title of the ranking. Its metrics are exact, since nothing is left out;
    its trace has the first titles with their scores.

    Args:
        recommender: fitted to the same catalogue.
        task: whose questions.
        exclude_history: rank no item that the question shows. A right item among them counts as
            behind all others.
    """

    def answer(questions: IntArray, seed: int, answered: Answered) -> list[Answer]:
        answers: list[Answer] = []
        at_once = max(1, _NUMBERS // len(task.catalogue))
        for start in range(0, len(questions), at_once):
            batch = questions[start : start + at_once]
            histories = [_shown(task, int(index)) for index in batch]
            score_QE = recommender.scores(histories)
            if exclude_history:
                for row, history in enumerate(histories):
                    score_QE[row, history] = -np.inf
            made = list(_answers(task, batch, score_QE))
            answered(made)
            answers += made
        return answers

    who = {"name": recommender.name, "seed": recommender.seed, "config": dict(recommender.config)}
    mark = sha256(json.dumps(who, sort_keys=True).encode()).hexdigest()[:16]
    return Answerer(Identity(recommender.name, "-", recommender.device, _NOBODY, mark), answer)


def _answers(task: Any, questions: IntArray, score_QE: Floats) -> Iterator[Answer]:
    titles = task.choices.titles
    right_Q = np.array([task.entry(int(index)) for index in questions])
    metrics = ranking_metrics(ranks(score_QE, right_Q))
    for row, index in enumerate(questions.tolist()):
        shown = best(score_QE[row], _SHOWN).tolist()
        said = f'"{titles[shown[0]]}"' if shown else ""
        grade = task.grade(index, said, said)
        info = {
            "target": task.question(index).gold,
            "completion": said,
            "answer": said,
            "parsed": grade.parsed or "",
            "status": grade.status,
            "score": float(grade.score),
            "thoughts": 0,
            "tokens": 0,
            **{f"reward/{name}": float(value) for name, value in grade.components.items()},
        }
        yield Answer(
            index=index,
            info=info,
            thoughts="",
            positions=Positions(),
            context=0,
            samples=(info["score"],),
            metrics={name: float(value_Q[row]) for name, value_Q in metrics.items()},
            truncated=False,
            segments=[{"kind": "answer", "text": said}] if said else [],
            trace=[{"title": titles[e], "score": float(score_QE[row, e])} for e in shown],
        )
