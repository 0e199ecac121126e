"""Search puzzles in symbols of their own, as in CoT2 (arXiv 2505.23648).

A chain has a fixed length. Thought t holds all the states that the search can be in after step t
where thoughts may mix tokens (continuous family), else one state of one right path (token and
hybrid); the last step is the answer, one symbol.

With a model, the same puzzles are asked in text: see `latentgym.envs.natural_language`.
"""

from __future__ import annotations

from abc import abstractmethod

from latentgym.envs.arguments import arrow_of
from latentgym.envs.task import Demonstration, Task
from latentgym.episodes.protocol import Budget, Protocol
from latentgym.episodes.spaces import Family
from latentgym.errors import UsageError
from latentgym.rewards import ExactGrader, Grade
from latentgym.text.tokenizers import SymbolTokenizer

_EXACT = ExactGrader()
ARROW = "->"


class SymbolTask(Task):
    """A puzzle in the task's own symbols, with a chain of exactly `steps` thoughts.

    Args:
        family: action family.
        symbols: the vocabulary.
        steps: thoughts before the answer.
        think: 0 answers at once (no chain of thought); None or `steps` for the whole chain.
        arrow: close the prompt with an arrow. Default: where chains are demonstrated one token at
            a time, as the published discrete runs do; a policy of mixtures that starts from such a
            model needs it too.
    """

    def __init__(
        self,
        family: Family,
        symbols: tuple[str, ...],
        steps: int,
        think: int | None,
        arrow: bool | None,
    ) -> None:
        super().__init__(family, SymbolTokenizer(symbols))
        if think not in (None, 0, steps):
            raise UsageError(
                f"a chain of this task has exactly {steps} thoughts; choose think={steps} or, for "
                "no chain of thought, think=0."
            )
        self.thoughts = steps if think is None else think
        self.closing = f" {ARROW}" if (arrow_of(family.name) if arrow is None else arrow) else ""

    def protocol(self) -> Protocol:
        return Protocol(think=Budget(self.thoughts, exact=True), answer=Budget(1, exact=True))

    def prompt(self, index: int) -> list[int]:
        return self.tokenizer.chat("", self.question(index).text + self.closing)

    def grade(self, index: int, completion: str, answer: str) -> Grade:
        """Equality with the right symbol."""
        return _EXACT.alone(answer, self.question(index).gold)  # a symbol has no format to miss

    def demonstration(self, index: int) -> Demonstration:
        whole = self.chain(index)
        steps = len(whole.ids_TS) - 1
        first = steps - self.thoughts
        return Demonstration(
            whole.ids_TS[first:], whole.weights_TS[first:], self.thoughts, (1,) * self.thoughts
        )

    @abstractmethod
    def chain(self, index: int) -> Demonstration:
        """The targets of the whole chain, answer included."""


def check_limit(limit: int | None, size: int, what: str) -> None:
    if limit is not None and not 1 <= limit <= size:
        raise UsageError(f"{what} has {size} questions; choose a limit from 1 to {size}.")
