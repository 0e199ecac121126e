"""Tasks whose questions and answers are text."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import ClassVar

from latentgym.data import Question
from latentgym.envs.formats import FORMATS
from latentgym.envs.task import Demonstration, GradingError, Task
from latentgym.episodes.protocol import Budget, Protocol, StopMatcher
from latentgym.episodes.spaces import Family
from latentgym.errors import UsageError, did_you_mean
from latentgym.rewards import GoldError, Grade, Grader, GraderError
from latentgym.text.tokenizers import Tokenizer


class TextTask(Task):
    """Questions in words, answers after a marker.

    Args:
        family: action family.
        tokenizer: of the model.
        questions: the data.
        grader: compares a completion with the gold answer.
        format: how to answer; a name in `FORMATS`.
        system: another instruction than the format's own; empty for none.
        think: thought budget, in steps.
        answer: answer budget, in tokens.
        exact_thoughts: think exactly `think` times, whatever is thought. All that a chain says
            after that, the marker included, is answer then, and only end-of-sequence ends it.
        force_answer: open the answer phase when thinking ends without the marker. Default: for
            latent chains, which cannot write it in words, unless their thoughts are exact; a chain
            of tokens is truncated.
    """

    max_text: ClassVar[int] = 20_000

    def __init__(
        self,
        family: Family,
        tokenizer: Tokenizer,
        questions: Sequence[Question],
        grader: Grader,
        *,
        format: str,
        system: str | None,
        think: int,
        answer: int,
        exact_thoughts: bool,
        force_answer: bool | None,
    ) -> None:
        super().__init__(family, tokenizer)
        if format not in FORMATS:
            raise UsageError(f"no answer format {format!r}; {did_you_mean(format, FORMATS)}")
        self.questions = questions
        self.grader = grader
        self.format = FORMATS[format]
        self.system = self.format.instruction(grader) if system is None else system
        self.think, self.answer = think, answer
        self.exact_thoughts = exact_thoughts
        forced = not (family.tokens or exact_thoughts)
        self.force_answer = forced if force_answer is None else force_answer

    def __len__(self) -> int:
        return len(self.questions)

    def question(self, index: int) -> Question:
        return self.questions[index]

    def prompt(self, index: int) -> list[int]:
        return self.tokenizer.chat(self.system, self.question(index).text)

    def protocol(self) -> Protocol:
        pieces, fmt = self.tokenizer.pieces(), self.format
        forced_prompt = fmt.opening(self.grader)
        lines = self.exact_thoughts and not self.force_answer  # may stand before the answer
        return Protocol(
            think=Budget(self.think, exact=self.exact_thoughts),
            answer=Budget(self.answer),
            marker=StopMatcher(fmt.marker, pieces),
            stop=StopMatcher(fmt.stop, pieces) if fmt.stop and not lines else None,
            eos=self.tokenizer.eos_ids,
            force_answer=self.force_answer,
            forced_prompt=tuple(self.tokenizer.encode(forced_prompt)) if self.force_answer else (),
        )

    def grade(self, index: int, completion: str, answer: str) -> Grade:
        question, in_tokens = self.question(index), self.family.tokens
        grader = self.grader_of(question)
        try:
            return self.format.grade(grader, completion, question.gold, in_tokens=in_tokens)
        except GraderError as error:
            where = question.place or f"{self.name} question {index}"
            remedy = "; mend or delete the row" if isinstance(error, GoldError) else ""
            raise GradingError(f"{where}: {error}{remedy}.") from error

    def grader_of(self, question: Question) -> Grader:
        """The grader for one question; for tasks whose questions say how they are graded."""
        return self.grader

    def demonstration(self, index: int) -> Demonstration:
        question, fmt = self.question(index), self.format
        thoughts = self.tokenizer.encode(fmt.thoughts(question.steps))
        answer = self.tokenizer.encode(fmt.answer(question.gold))
        ids = [*thoughts, *answer, self.tokenizer.eos_id]
        return Demonstration.of_tokens(ids, len(thoughts), self._steps(question, len(thoughts)))

    def _steps(self, question: Question, thoughts: int) -> tuple[int, ...]:
        """How many of the chain's tokens each of its lines takes, its line break with it.

        A tokenizer that joins a line break with what follows sets a border one token off, but the
        chain stays the same.
        """
        said = accumulate(self.format.lines(question.steps))
        ends = [0, *(min(len(self.tokenizer.encode(text)), thoughts) for text in said)]
        return tuple(end - start for start, end in pairwise(accumulate(ends, max)))

    def completion(self, index: int, answer: str) -> tuple[str, str]:
        return self.format.thoughts(()) + self.format.answer(answer), answer

    def gold_completion(self, index: int) -> tuple[str, str]:
        return self.completion(index, self.question(index).gold)
