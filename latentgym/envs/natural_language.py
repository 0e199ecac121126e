"""The search puzzles asked in words, for language models that know no symbols of ours."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from latentgym.data import Question
from latentgym.envs.arguments import (
    Answer,
    ExactThoughts,
    ForceAnswer,
    Format,
    System,
    Think,
)
from latentgym.envs.graphs import GraphTask
from latentgym.envs.mnns import MNNS
from latentgym.envs.problems import graph_text, mnns
from latentgym.envs.text import TextTask
from latentgym.episodes.spaces import Family
from latentgym.rewards import ChoiceGrader, NumberGrader
from latentgym.text.tokenizers import Tokenizer


class _AsText(Sequence[Question]):
    """Questions of a symbolic task, put into words one by one."""

    def __init__(self, task: MNNS | GraphTask) -> None:
        self._task = task

    def __len__(self) -> int:
        return len(self._task)

    def __getitem__(self, index: int) -> Question:  # type: ignore[override]
        if isinstance(self._task, MNNS):
            return _mnns_question(self._task, index)
        problem = self._task.problems[index]
        rng = np.random.default_rng([11, self._task.problems.seed, index])
        text = graph_text.question_text(problem, rng)
        return Question(text, graph_text.answer_text(problem), graph_text.steps_text(problem))


def _mnns_question(task: MNNS, index: int) -> Question:
    digits = ", ".join(map(str, task.digits[index]))
    text = (
        f"Put a plus or a minus sign before each of the numbers {digits} so that their sum is as "
        "small as possible but not negative. What is that sum?"
    )
    best = mnns.paths(task.digits[index : index + 1], 1)[0, 0]
    sums = mnns.partial_sums(task.digits[index : index + 1])[0, best]
    steps = (f"The running sums are {', '.join(map(str, sums))}.",)
    return Question(text, str(task.answers[index]), steps)


class NaturalLanguageTask(TextTask):
    """A search puzzle in words.

    Args:
        task: the puzzle in symbols.
        family: action family.
        tokenizer: of the model.
        format, system, think, answer, exact_thoughts, force_answer: see `TextTask`.
    """

    def __init__(
        self,
        task: MNNS | GraphTask,
        family: Family,
        tokenizer: Tokenizer,
        *,
        format: Format = "hashes",
        system: System | None = None,
        think: Think | None = None,
        answer: Answer = 16,
        exact_thoughts: ExactThoughts = False,
        force_answer: ForceAnswer | None = None,
    ) -> None:
        grader = NumberGrader() if isinstance(task, MNNS) else ChoiceGrader()
        super().__init__(
            family,
            tokenizer,
            _AsText(task),
            grader,
            format=format,
            system=system,
            think=128 if think is None else think,
            answer=answer,
            exact_thoughts=exact_thoughts,
            force_answer=force_answer,
        )
        self.name, self.split, self.source = task.name, task.split, task.source
        self.dataset_hash, self.licence = task.dataset_hash, task.licence
        self.prompt_budget = 2048
