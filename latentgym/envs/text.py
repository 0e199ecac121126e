"""Tasks whose questions and answers are text, and the formats in which models answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import ClassVar

from latentgym.data import Question
from latentgym.envs.task import Demonstration, Task
from latentgym.errors import UsageError
from latentgym.protocol import Budget, MarkTable, Protocol
from latentgym.rewards import Grade, Grader
from latentgym.spaces import Family
from latentgym.tokenizers import Tokenizer


@dataclass(frozen=True)
class Format:
    """How a model is asked to answer, and how the answer is recognised.

    Attributes:
        system: the instruction.
        mark: text that opens the answer and ends thinking.
        stop: text that ends the answer, or empty for end-of-sequence alone.
        bridge: what the environment inserts to open the answer of a latent chain that has not
            written the mark itself.
        close: what stands behind the answer in a demonstration.
        once: whether an answer behind a second mark makes the whole wrong.
    """

    system: str
    mark: str
    stop: str
    bridge: str
    close: str = ""
    once: bool = False


HASHES = Format(
    system="Solve the problem step by step. Then write the final answer, and nothing else, "
    "after the mark ####.",
    mark="####",
    stop="\n",
    bridge="\n#### ",
    once=True,
)
BOXED = Format(
    system="Solve the problem step by step. Then write the final answer as \\boxed{answer}.",
    mark="\\boxed{",
    stop="",
    bridge="\nThe answer is \\boxed{",
    close="}",
)
FORMATS = {"hashes": HASHES, "boxed": BOXED}


class TextTask(Task):
    """Questions in words, answers behind a mark.

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
            after that, the mark included, is spoken then, and only end-of-sequence ends it.
        force_answer: open the answer phase when thinking ends without the mark. Default: for
            latent chains, which cannot write it in words, unless their thoughts are exact; a chain
            of words is truncated.
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
            raise UsageError(f"no answer format {format!r}; choose {' or '.join(FORMATS)}.")
        self.questions = questions
        self.grader = grader
        self.format = FORMATS[format]
        self.system = self.format.system if system is None else system
        self.think, self.answer = think, answer
        self.exact_thoughts = exact_thoughts
        forced = not (family.words or exact_thoughts)
        self.force_answer = forced if force_answer is None else force_answer

    def __len__(self) -> int:
        return len(self.questions)

    def question(self, index: int) -> Question:
        return self.questions[index]

    def prompt(self, index: int) -> list[int]:
        return self.tokenizer.chat(self.system, self.question(index).text)

    def protocol(self) -> Protocol:
        pieces, fmt = self.tokenizer.pieces(), self.format
        lines = self.exact_thoughts and not self.force_answer  # may be spoken before the answer
        return Protocol(
            think=Budget(self.think, exact=self.exact_thoughts),
            answer=Budget(self.answer),
            mark=MarkTable(fmt.mark, pieces),
            stop=MarkTable(fmt.stop, pieces) if fmt.stop and not lines else None,
            eos=(self.tokenizer.eos_id,),
            force_answer=self.force_answer,
            bridge=tuple(self.tokenizer.encode(fmt.bridge)) if self.force_answer else (),
        )

    def grade(self, index: int, completion: str, answer: str) -> Grade:
        grade = self.grader(completion, self.question(index).gold)
        if self.format.once and completion.count(self.format.mark) > 1:
            # Which of several answers is meant is not ours to guess.
            components = {**grade.components, "correct": 0.0, "format": 0.0}
            return replace(grade, score=0.0, status="invalid", components=components)
        return grade

    def demonstration(self, index: int) -> Demonstration:
        question, fmt = self.question(index), self.format
        reasoning = "\n".join(question.steps)
        thoughts = self.tokenizer.encode(f"{reasoning}\n{fmt.mark}" if reasoning else fmt.mark)
        gap = "" if fmt.close else " "
        answer = self.tokenizer.encode(f"{gap}{question.gold}{fmt.close}")
        ids = [*thoughts, *answer, self.tokenizer.eos_id]
        return Demonstration.of_tokens(ids, len(thoughts), self._steps(question, len(thoughts)))

    def _steps(self, question: Question, thoughts: int) -> tuple[int, ...]:
        """How many of the chain's tokens each of its lines takes, its line break with it.

        A tokenizer that joins a line break with what follows sets a border one token off, but the
        chain stays the same.
        """
        said = accumulate(f"{line}\n" for line in question.steps)
        ends = [0, *(min(len(self.tokenizer.encode(text)), thoughts) for text in said)]
        return tuple(end - start for start, end in pairwise(accumulate(ends, max)))

    def gold_completion(self, index: int) -> tuple[str, str]:
        fmt, gold = self.format, self.question(index).gold
        return f"{fmt.mark}{'' if fmt.close else ' '}{gold}{fmt.close}", gold
