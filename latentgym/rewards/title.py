"""A grader for answers that name one entry of a catalogue."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import ClassVar

from latentgym.rewards.extract import MAX_TEXT
from latentgym.rewards.grade import GoldError, Grade, graded


@dataclass(frozen=True)
class TitleGrader:
    """Equality with a title, but for blanks and the quotes around it.

    Published results compare titles exactly, case included. The component "format" is 1 where the
    answer names some entry of the catalogue.

    Args:
        titles: of the catalogue.
    """

    numeric: ClassVar[bool] = False

    titles: Collection[str]

    def __call__(self, answer: str, gold: str, /) -> Grade:
        """Grade one completion; see `Grader`."""
        return self.alone(answer, gold)

    def alone(self, answer: str, gold: str, /) -> Grade:
        """Grade an answer that stands alone; see `Grader`."""
        if gold not in self.titles:
            raise GoldError(f"the catalogue has no title {gold[:80]!r}")
        if len(answer) > MAX_TEXT:
            return graded(False, None, "too_long", formatted=False)
        whole = " ".join(answer.split())
        quoted = len(whole) > 1 and whole[0] == whole[-1] == '"'
        said = whole[1:-1].strip() if quoted else whole
        if not said:
            return graded(False, None, "no_answer", formatted=False)
        if gold == whole:  # a title may have quotes of its own
            said = whole
        known = said in self.titles or whole in self.titles
        return graded(said == gold, said, "ok", formatted=known)

    def fallback(self, completion: str, /) -> str | None:
        """A completion is its answer; see `Grader`."""
        return completion
