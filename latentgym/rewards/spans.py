"""The grader of short answers that can be written in several ways, as retrieval tasks have them."""

from __future__ import annotations

import re
import string
from collections import Counter
from dataclasses import dataclass
from typing import ClassVar, Literal

from latentgym.rewards.extract import MARKER, MAX_TEXT, statement, unmarked
from latentgym.rewards.grade import GoldError, Grade, Status

_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")
# HotpotQA gives no credit for words beside these.
_VERDICTS = (["yes"], ["no"], ["noanswer"])


def normalised(text: str) -> list[str]:
    """The words of a text as SQuAD compares them.

    Lower case, without ASCII punctuation (words on both sides of a hyphen become one), without
    articles, divided at blanks. An article that is the whole text stays.
    """
    text = text.lower().translate(_NO_PUNCTUATION)
    return _ARTICLES.sub(" ", text).split() or text.split()


@dataclass(frozen=True)
class SpanGrader:
    """Exact match and F1 of words with the best of several gold forms, as SQuAD has them.

    The answer is read from the same place as by `ExactGrader`. Components: "correct" is 1 if it
    equals a form after normalisation; "f1" is that of the two bags of words, 0 for a form or an
    answer "yes", "no" or "noanswer" that is not matched exactly, as in HotpotQA; "format" is 1 if
    the mark stands exactly once.

    A form that normalisation leaves empty ("!!!") must be matched as it is, but for case and
    blanks around it.

    Args:
        forms: right answers beside the gold one.
        reward: the score: "em" is the component "correct", "f1" the component "f1".

    Raises:
        ValueError: no such reward.
    """

    numeric: ClassVar[bool] = False

    forms: tuple[str, ...] = ()
    reward: Literal["em", "f1"] = "em"

    def __post_init__(self) -> None:
        if self.reward not in ("em", "f1"):
            raise ValueError(f"reward is em or f1, not {self.reward!r}.")

    def __call__(self, answer: str, gold: str, /) -> Grade:
        """Grade one completion; see `Grader`."""
        return self._graded(answer, gold, statement(answer), answer.count(MARKER) == 1)

    def alone(self, answer: str, gold: str, /) -> Grade:
        """Grade an answer that stands alone; see `Grader`."""
        return self._graded(answer, gold, answer, True)

    def fallback(self, completion: str, /) -> str | None:
        """What a completion without its mark gives as its answer; see `Grader`."""
        return unmarked(completion) or None

    def _graded(self, text: str, gold: str, parsed: str, formatted: bool) -> Grade:
        forms = (gold, *self.forms)
        if not all(form.strip() for form in forms):
            raise GoldError(f"a form of the gold answer {gold[:80]!r} is empty")
        if len(text) > MAX_TEXT:
            return self._grade(False, 0.0, None, "too_long", False)
        if not parsed.strip():
            return self._grade(False, 0.0, None, "no_answer", formatted)
        said = normalised(parsed)
        wanted = [(form, normalised(form)) for form in forms]
        correct = any(
            said == words if words else parsed.strip().casefold() == form.strip().casefold()
            for form, words in wanted
        )
        f1 = 1.0 if correct else max(_f1(said, words) for _, words in wanted)
        return self._grade(correct, f1, parsed, "ok", formatted)

    def _grade(
        self, correct: bool, f1: float, parsed: str | None, status: Status, formatted: bool
    ) -> Grade:
        components = {"correct": float(correct), "f1": f1, "format": float(formatted)}
        score = components["correct" if self.reward == "em" else "f1"]
        return Grade(score, parsed, status, components)


def _f1(said: list[str], wanted: list[str]) -> float:
    """Of two bags of words that are not equal as texts."""
    same = (Counter(said) & Counter(wanted)).total()
    if not same or said in _VERDICTS or wanted in _VERDICTS:
        return 0.0
    precision, recall = same / len(said), same / len(wanted)
    return 2 * precision * recall / (precision + recall)
