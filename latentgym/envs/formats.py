"""The formats in which models answer: how they are asked, shown and read."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace

from latentgym.rewards import Grade, Grader
from latentgym.rewards.extract import last_box
from latentgym.rewards.json_object import from_json_key, is_json_object, json_value


@dataclass(frozen=True)
class Format(ABC):
    """How a model is asked to answer, and how the answer is recognised.

    Attributes:
        system: the instruction.
        marker: text that opens the answer and ends thinking.
        stop: text that ends the answer, or empty for end-of-sequence alone.
        forced_prompt: what the environment inserts to open the answer of a latent chain that has
            not written the marker itself.
        numeric: what the instruction adds where answers are numbers.
    """

    system: str
    marker: str
    stop: str
    forced_prompt: str
    numeric: str = ""

    def instruction(self, grader: Grader) -> str:
        """The instruction for answers that this grader will read."""
        return self.system + self.numeric if grader.numeric else self.system

    def opening(self, grader: Grader) -> str:
        """The forced prompt of answers that this grader will read.

        Words bring their blank with them, in most vocabularies; digits do not.
        """
        return self.forced_prompt if grader.numeric else self.forced_prompt.rstrip(" ")

    def lines(self, steps: Sequence[str]) -> list[str]:
        """The steps of a reasoning as a demonstration says them, with what parts them."""
        return [f"{step}\n" for step in steps]

    def thoughts(self, steps: Sequence[str]) -> str:
        """All that a demonstration says up to the end of the marker; begins with its lines."""
        return "".join(self.lines(steps)) + self.marker

    @abstractmethod
    def answer(self, gold: str) -> str:
        """What a demonstration says after the marker."""

    @abstractmethod
    def find(self, completion: str) -> str | None:
        """The answer in a completion; empty if it is not well said, None without the marker."""

    def kept(self, completion: str, *, in_tokens: bool) -> bool:
        """Whether a completion keeps to the format.

        Args:
            completion: all words of an episode.
            in_tokens: whether thoughts are among them.
        """
        return self.marker in completion

    def judged(self, grader: Grader, completion: str, gold: str) -> Grade:
        """The grader's verdict on a completion in this format."""
        answer = self.find(completion)
        if answer is None:
            answer = grader.fallback(completion)
        elif self.stop:
            answer = answer.partition(self.stop)[0]
        return grader.alone(answer or "", gold)

    def grade(self, grader: Grader, completion: str, gold: str, *, in_tokens: bool) -> Grade:
        """That verdict, with whether the format was kept as its component; see `kept`."""
        grade = self.judged(grader, completion, gold)
        kept = float(self.kept(completion, in_tokens=in_tokens))
        return replace(grade, components={**grade.components, "format": kept})


class Hashes(Format):
    """The answer stands after a marker, to the end of its line."""

    def answer(self, gold: str) -> str:
        return f" {gold}"

    def find(self, completion: str) -> str | None:
        _, marker, said = completion.partition(self.marker)
        return said.strip() if marker else None

    def kept(self, completion: str, *, in_tokens: bool) -> bool:
        return completion.count(self.marker) == 1

    def grade(self, grader: Grader, completion: str, gold: str, *, in_tokens: bool) -> Grade:
        # Graders of numbers know a number from a heading, which models write with the same mark.
        grade = (
            grader(completion, gold)
            if grader.numeric
            else super().grade(grader, completion, gold, in_tokens=in_tokens)
        )
        if completion.count(self.marker) > 1:
            # Which of several answers is meant is not ours to guess.
            components = {**grade.components, "correct": 0.0, "format": 0.0}
            return replace(grade, score=0.0, status="invalid", components=components)
        return grade


class Boxed(Format):
    """The answer stands in a box of LaTeX."""

    def answer(self, gold: str) -> str:
        return f"{gold}}}"

    def find(self, completion: str) -> str | None:
        content, _ = last_box(completion)
        if content is None and self.marker not in completion:
            return None
        return (content or "").strip()

    def kept(self, completion: str, *, in_tokens: bool) -> bool:
        return last_box(completion)[1] == 1


class Sentence(Format):
    """The answer ends a sentence, as people say it, and stands on its line."""

    def answer(self, gold: str) -> str:
        return f" {gold}"

    def find(self, completion: str) -> str | None:
        _, marker, said = completion.partition(self.marker)
        return said.strip() if marker else None


_THOUGHTS, _ANSWER = "thought process", "final answer"


class Json(Format):
    """Reasoning and answer are the two values of a JSON object."""

    def lines(self, steps: Sequence[str]) -> list[str]:
        parted = [*(f"{step}\n" for step in steps[:-1]), *steps[-1:]]
        opening = f'{{"{_THOUGHTS}": "'
        return [opening * (not i) + _escaped(line) for i, line in enumerate(parted)]

    def thoughts(self, steps: Sequence[str]) -> str:
        return "".join(self.lines(steps or [""])) + f'", {self.marker}'

    def answer(self, gold: str) -> str:
        return f' "{_escaped(gold)}"}}'

    def find(self, completion: str) -> str | None:
        return json_value(completion, _ANSWER)

    def kept(self, completion: str, *, in_tokens: bool) -> bool:
        """Whether a completion is one JSON object; latent thoughts stand for its first value."""
        if not in_tokens and not is_json_object(completion, _THOUGHTS, _ANSWER):
            completion = f'{{"{_THOUGHTS}": "", {from_json_key(completion, _ANSWER)}'
        return is_json_object(completion, _THOUGHTS, _ANSWER)


def _escaped(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)[1:-1]


FORMATS: dict[str, Format] = {
    "hashes": Hashes(
        system="Solve the problem step by step. Then write the final answer, and nothing else, "
        "after the mark ####.",
        marker="####",
        stop="\n",
        forced_prompt="\n#### ",
    ),
    "sentence": Sentence(
        system="Think step by step. Then write, on a line of its own, The answer is: and the "
        "answer, and nothing else.",
        marker="The answer is:",
        stop="\n",
        forced_prompt="\nThe answer is:",
    ),
    "boxed": Boxed(
        system="Solve the problem step by step. Then write the final answer as \\boxed{answer}.",
        marker="\\boxed{",
        stop="",
        forced_prompt="\nThe answer is \\boxed{",
    ),
    "json": Json(
        system=f"Solve the problem. Reply with nothing but one JSON object that has two keys: "
        f'"{_THOUGHTS}", your reasoning step by step, and then "{_ANSWER}", the answer alone.',
        marker=f'"{_ANSWER}":',
        stop="",
        forced_prompt=f'", "{_ANSWER}":',
        numeric=" The final answer must be a plain number, without units or words.",
    ),
}
