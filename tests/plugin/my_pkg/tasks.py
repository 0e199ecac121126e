"""The product of two digits, by way of the product with one less."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from latentgym.data import Question
from latentgym.envs import Demonstration, Task
from latentgym.episodes.protocol import Budget, Protocol
from latentgym.episodes.spaces import Family
from latentgym.errors import UsageError
from latentgym.rewards import ExactGrader, Grade
from latentgym.text.tokenizers import SymbolTokenizer

_SYMBOLS = ("<pad>", "<bos>", "<eos>", *(f"D{d}" for d in range(10)), *(f"N{n}" for n in range(82)))
_EXACT = ExactGrader()


class Mul2(Task):
    """What is 7 times 8? One thought, 7 times 7, then the answer.

    Args:
        family: action family.
        split: `train` or `test`; every fifth pair of digits is for testing.
    """

    name, source, licence, prompt_budget = "Mul2", "generated", "CC0-1.0", 4

    def __init__(self, family: Family, *, split: str = "train") -> None:
        super().__init__(family, SymbolTokenizer(_SYMBOLS))
        if split not in self.splits:
            raise UsageError(f"Mul2 has the splits train and test, not {split!r}.")
        self.split, self.dataset_hash = split, f"mul2-{split}".ljust(16, "0")
        self._pairs = [
            (a, b)
            for a in range(1, 10)
            for b in range(1, 10)
            if ((a + b) % 5 == 0) == (split == "test")
        ]

    def __len__(self) -> int:
        return len(self._pairs)

    def question(self, index: int) -> Question:
        a, b = self._pairs[index]
        return Question(f"D{a} D{b}", f"N{a * b}")

    def prompt(self, index: int) -> list[int]:
        return self.tokenizer.chat("", self.question(index).text)

    def protocol(self) -> Protocol:
        return Protocol(think=Budget(1, exact=True), answer=Budget(1, exact=True))

    def grade(self, index: int, completion: str, answer: str) -> Grade:
        """Equality with the product."""
        return _EXACT(answer, self.question(index).gold)

    def demonstration(self, index: int) -> Demonstration:
        a, b = self._pairs[index]
        return Demonstration.of_tokens(self.tokenizer.encode(f"N{a * (b - 1)} N{a * b}"), 1, (1,))


def make(name: str, family: Family, tokenizer: Any, options: Mapping[str, Any]) -> Mul2:
    """The task; it speaks its own symbols with any model."""
    return Mul2(family, **options)
