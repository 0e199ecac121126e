"""Generated word problems in the shape of GSM8K-Aug: a question, a chain of equations, a number.

They are for models trained from scratch in minutes. Question, chain and answer are written in
symbols with blanks between them, and every whole number from 0 to 99 is one symbol:

    Mia has 7 pens . She finds 15 . She triples them . She sells 4 . How many pens ?
    7 + 15 = 22 ; 22 * 3 = 66 ; 66 - 4 = 62 ; #### 62

The numbers were chosen so that two layers of width 64 learn it in 1,500 to 3,000 steps.

Question i of a split is a function of (seed, split, i) and of the settings. The arithmetic of a
question (its first number and its operations) is in exactly one split, whatever the seed; names,
things and wording are drawn beside it.
"""

from __future__ import annotations

import hashlib
import operator
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from latentgym.data.question import Question
from latentgym.episodes.rng import derive
from latentgym.errors import UsageError, did_you_mean

LARGEST = 99
MOST_OPERATIONS = 4
MOST_ADDED = 19  # or taken away at once
FACTORS = (2, 3, 4)
SPLITS = {"train": 0, "valid": 1, "test": 2}
SIZES = {"train": 20_000, "valid": 1_000, "test": 1_000}

_PEOPLE = {
    **dict.fromkeys(("Mia", "Ida", "Zoe", "Lena", "Nora", "Ruth"), "She"),
    **dict.fromkeys(("Ben", "Tom", "Otto", "Ravi", "Paul", "Finn"), "He"),
}
_THINGS = ("pens", "cups", "shells", "stamps", "coins", "books", "stones", "cards")
_BY_NUMBER = {
    "+": ("gets {} more .", "finds {} .", "buys {} ."),
    "-": ("gives {} away .", "loses {} .", "sells {} ."),
}
# In words a factor or a divisor is not written as a number.
_AS_TEXT = {
    ("*", 2): ("doubles them .",),
    ("*", 3): ("triples them .",),
    ("*", 4): ("quadruples them .",),
    ("/", 2): ("keeps half .", "sells half ."),
    ("/", 3): ("keeps a third .",),
    ("/", 4): ("keeps a quarter .",),
}
_APPLY = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.floordiv}
_OPENING, _CLOSING = "{} has {} {} .", "How many {} ?"

# What agents may add to a prompt: a thinking speed, and an instruction.
RESERVED = ("(", "Thinking", "speed", ":", ")", "Let's", "think", "step", "by")
_SPECIALS = ("<pad>", "<bos>", "<eos>", "####", ";", "=", "+", "-", "*", "/")


def vocabulary() -> tuple[str, ...]:
    """Every symbol of questions and chains, specials first, without repetition."""
    numbers = [str(n) for n in range(LARGEST + 1)]
    phrases = [*(p for ps in (*_BY_NUMBER.values(), *_AS_TEXT.values()) for p in ps)]
    sentences = " ".join([*phrases, _OPENING, _CLOSING]).split()
    words = [*_PEOPLE, *_PEOPLE.values(), *_THINGS, *sentences, *RESERVED]
    return tuple(dict.fromkeys([*_SPECIALS, *numbers, *(w for w in words if w != "{}")]))


@dataclass(frozen=True)
class Chain:
    """The arithmetic of one question.

    Attributes:
        first: the number to begin with.
        operations: one of `+ - * /` with its whole operand, in order.
    """

    first: int
    operations: tuple[tuple[str, int], ...]

    @property
    def split(self) -> str:
        """The split that this chain belongs to: of ten chains eight are for training."""
        digest = hashlib.sha256(f"{self.first} {self.operations}".encode()).digest()
        return {0: "valid", 1: "test"}.get(int.from_bytes(digest[:4], "big") % 10, "train")

    def equations(self) -> Iterator[tuple[str, int]]:
        """Each equation as text, with its result."""
        value = self.first
        for sign, operand in self.operations:
            result = _APPLY[sign](value, operand)
            yield f"{value} {sign} {operand} = {result} ;", result
            value = result


@dataclass(frozen=True)
class ChainSettings:
    """How hard the questions are.

    Attributes:
        min_operations, max_operations: how many equations a chain has, at most `MOST_OPERATIONS`.
        largest: the largest number in a chain, at most `LARGEST`.
        seed: of the questions.

    Raises:
        UsageError: settings that cannot work.
    """

    min_operations: int = 2
    max_operations: int = 4
    largest: int = LARGEST
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not isinstance(value, int):
                raise UsageError(f"{name} must be a whole number, but is {value!r}.")
        if not 1 <= self.min_operations <= self.max_operations <= MOST_OPERATIONS:
            raise UsageError(
                f"a generated chain has 1 to {MOST_OPERATIONS} operations, but min_operations="
                f"{self.min_operations} and max_operations={self.max_operations}; mend them."
            )
        if not 9 <= self.largest <= LARGEST:
            raise UsageError(
                f"numbers of generated chains are one symbol each; choose largest from 9 to "
                f"{LARGEST}, not {self.largest}."
            )

    def draw(self, rng: random.Random) -> Chain:
        """A chain of any split: all its numbers are whole and from 0 to `largest`."""
        value = first = rng.randint(1, self.largest)
        operations: list[tuple[str, int]] = []
        for _ in range(rng.randint(self.min_operations, self.max_operations)):
            choices = {
                "+": list(range(1, min(MOST_ADDED, self.largest - value) + 1)),
                "-": list(range(1, min(MOST_ADDED, value) + 1)),
                "*": [n for n in FACTORS if 0 < value * n <= self.largest],
                "/": [n for n in FACTORS if value and value % n == 0],
            }
            sign = rng.choice([sign for sign, operands in choices.items() if operands])
            operations.append((sign, rng.choice(choices[sign])))
            value = _APPLY[sign](value, operations[-1][1])
        return Chain(first, tuple(operations))


class GeneratedChains(Sequence[Question]):
    """The questions of a split, each made when it is asked for.

    Args:
        split: `train`, `valid` or `test`.
        size: how many; default 20,000 for training and 1,000 of the others.
        settings: how hard they are, and their seed.

    Raises:
        UsageError: no such split, or not even one question.
    """

    source = "generated"
    licence = "generated"

    def __init__(
        self, split: str, size: int | None = None, settings: ChainSettings | None = None
    ) -> None:
        if split not in SPLITS:
            raise UsageError(f"no split {split!r}; {did_you_mean(split, SPLITS)}")
        if size is not None and not (isinstance(size, int) and size >= 1):
            raise UsageError(f"size is how many questions there are, at least 1, not {size!r}.")
        self.split = split
        self.settings = settings or ChainSettings()
        self._size = SIZES[split] if size is None else size

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: int) -> Question:  # type: ignore[override]
        if not 0 <= index < self._size:
            raise IndexError(f"question {index} of {self._size}")
        rng = random.Random(derive(self.settings.seed, SPLITS[self.split], index))
        while (chain := self.settings.draw(rng)).split != self.split:
            pass
        equations = list(chain.equations())
        return Question(
            _wording(chain, rng),
            str(equations[-1][1]),
            tuple(text for text, _ in equations),
            {"operations": len(equations)},
        )

    @cached_property
    def hash(self) -> str:
        """16 hex digits of the SHA-256 of the settings, the size and the first questions.

        The first few tell generators of different versions apart; making all would take seconds.
        """
        digest = hashlib.sha256(f"{self.split} {self._size} {self.settings}".encode())
        for index in range(min(self._size, 32)):
            question = self[index]
            digest.update(f"\n{question.text}\n{question.steps}".encode())
        return digest.hexdigest()[:16]


def _wording(chain: Chain, rng: random.Random) -> str:
    """A chain as a story."""
    person, things = rng.choice(list(_PEOPLE)), rng.choice(_THINGS)
    sentences = [_OPENING.format(person, chain.first, things)]
    for sign, operand in chain.operations:
        phrases = _AS_TEXT.get((sign, operand)) or _BY_NUMBER[sign]
        sentences.append(f"{_PEOPLE[person]} {rng.choice(phrases).format(operand)}")
    return " ".join([*sentences, _CLOSING.format(things)])
