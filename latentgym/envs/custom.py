"""Questions of the user's own, with a grader of their choice."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from latentgym.data import Question
from latentgym.data.own import load_own
from latentgym.envs.arguments import (
    Answer,
    ExactThoughts,
    ForceAnswer,
    Format,
    Limit,
    Split,
    System,
    Think,
)
from latentgym.envs.task import TaskMaker
from latentgym.envs.text import TextTask
from latentgym.episodes.spaces import Family
from latentgym.errors import UsageError, did_you_mean
from latentgym.rewards import (
    ChoiceGrader,
    Grader,
    MathGrader,
    NumberGrader,
    OwnGrader,
    SpanGrader,
)
from latentgym.system.functions import function_of, named, taken
from latentgym.system.options.keywords import Option
from latentgym.text.tokenizers import ByteTokenizer, Tokenizer

_MOST_CHOICES = 100
_WORD = re.compile(r"\w+")
_checked: set[tuple[str, str]] = set()  # commands make an environment several times


@dataclass(frozen=True)
class _Kind:
    """A way to grade.

    Attributes:
        grader: of a question, from it and from all right answers that there are in the data.
        format: in which answers are written.
        answer: budget of the answer, in tokens.
    """

    grader: Callable[[Question, tuple[str, ...]], Grader]
    format: str = "hashes"
    answer: int = 32


def _choice(question: Question, answers: tuple[str, ...]) -> Grader:
    """Among the choices of the question, or else among all answers of the data."""
    choices = question.extra.get("choices")
    if choices is None and len(answers) > _MOST_CHOICES:
        raise UsageError(
            f"there are more than {_MOST_CHOICES} different answers to choose from; give every "
            "row a list of its choices, or grade with short."
        )
    return ChoiceGrader(answers if choices is None else tuple(choices))


def _forms(question: Question) -> tuple[str, ...]:
    return tuple(question.extra.get("forms") or ())


GRADERS: Mapping[str, _Kind] = {
    "number": _Kind(lambda question, answers: NumberGrader()),
    "maths": _Kind(lambda question, answers: MathGrader(), "boxed", 96),
    "choice": _Kind(_choice),
    "short": _Kind(lambda question, answers: SpanGrader(_forms(question))),
    "f1": _Kind(lambda question, answers: SpanGrader(_forms(question), "f1")),
}
"""Graders by name."""


class CustomTask(TextTask):
    """Questions of the user's own.

    Args:
        family: action family.
        tokenizer: of the model; bytes without one.
        data: where they are, see `latentgym.data.own.load_own`.
        grader: a name in `GRADERS`, or a function `(answer, gold, **columns)` of the user's own,
            or its name `module:function`; see `OwnGrader`.
        test_data: where those of the test are, if they are apart.
        holdout: without `test_data`, the share of the questions that is held out for the test.
        split: `train` or `test`.
        limit: use the first so many questions only.
        format, system, think, answer, exact_thoughts, force_answer: see `TextTask`; defaults by
            grader.

    Raises:
        DataError: the data cannot be had, or a row is damaged.
        GradingError: an answer that the grader cannot read.
        UsageError: no data, no grader, or none of that name.
    """

    name = "Custom"

    def __init__(
        self,
        family: Family,
        tokenizer: Tokenizer | None = None,
        *,
        data: Annotated[
            str | Path,
            Option("the questions: a file, a folder or a hub id; has to be given"),
        ]
        | None = None,
        grader: Annotated[
            str | Callable[..., Any],
            Option(
                "`number`, `maths`, `choice`, `short`, `f1` or `module:function`; has to be given"
            ),
        ]
        | None = None,
        test_data: Annotated[str | Path, Option("the questions of the test, where they are apart")]
        | None = None,
        holdout: Annotated[
            float,
            Option(
                "without `test_data`, the share of the questions that is held out for the test, by "
                "a hash of their text; 0.1 by default",
                0,
                0.9,
            ),
        ]
        | None = None,
        split: Split = "train",
        limit: Limit | None = None,
        format: Format | None = None,
        system: System | None = None,
        think: Think = 256,
        answer: Answer | None = None,
        exact_thoughts: ExactThoughts = False,
        force_answer: ForceAnswer | None = None,
    ) -> None:
        if data is None:
            raise UsageError(
                f"{self.name} asks questions of your own; give data=, a file with question and "
                "answer in every row."
            )
        own = load_own(data, split, test_data=test_data, holdout=holdout, limit=limit)
        self._kind = _kind(grader)
        self._answers = _distinct(own.answers)
        super().__init__(
            family,
            tokenizer or ByteTokenizer(),
            own.questions,
            self._kind.grader(own.questions[0], self._answers),
            format=format or self._kind.format,
            system=system,
            think=think,
            answer=self._kind.answer if answer is None else answer,
            exact_thoughts=exact_thoughts,
            force_answer=force_answer,
        )
        self.split, self.source = split, own.questions.source
        self.dataset_hash, self.licence = own.questions.hash, own.questions.licence
        self.prompt_budget = 4096
        shown = grader if isinstance(grader, str) else getattr(grader, "__name__", "")
        self.about = {"held_out": own.held_out, "graded_by": shown}
        self._check(shown)

    def columns(self, index: int) -> Mapping[str, Any]:
        return self.question(index).extra

    def grader_of(self, question: Question) -> Grader:
        return self._kind.grader(question, self._answers)

    def _check(self, grader: str) -> None:
        """Make sure, now and not in the middle of a run, that the grader reads all right answers.

        Raises:
            GradingError: it does not.
        """
        key = grader, self.dataset_hash
        if key in _checked:
            return
        for index in range(len(self)):
            self.grade(index, "", "")
        _checked.add(key)


def _kind(grader: Any) -> _Kind:
    """The grader that is meant.

    Raises:
        UsageError: there is none.
    """
    if grader is None:
        raise UsageError(
            f"say how answers are graded, with grader= or --grader: {', '.join(GRADERS)}, or "
            "module:function for one of your own."
        )
    if isinstance(grader, str) and grader in GRADERS:
        return GRADERS[grader]
    if isinstance(grader, str) and not named(grader):
        raise UsageError(
            f"no grader {grader!r}; {did_you_mean(grader, GRADERS)} One of your own is named "
            "module:function."
        )
    function = function_of(grader, "the grader") if isinstance(grader, str) else grader
    name = grader if isinstance(grader, str) else getattr(grader, "__name__", repr(grader))

    def own(question: Question, answers: tuple[str, ...]) -> Grader:
        known = question.extra
        names = taken(function, known, f"the grader {name}", places=2)
        return OwnGrader(name, function, {each: known[each] for each in names})

    return _Kind(own, answer=96)


def _distinct(answers: tuple[str, ...]) -> tuple[str, ...]:
    """The answers that differ by more than case and punctuation."""
    return tuple({" ".join(_WORD.findall(each.casefold())): each for each in answers}.values())


def _make(
    name: str, family: Family, tokenizer: Tokenizer | None, options: Mapping[str, Any]
) -> CustomTask:
    return CustomTask(family, tokenizer, **options)


make_custom = TaskMaker(_make, lambda name, as_text: [("", CustomTask)], data="your own")
"""Questions of the user's own."""
