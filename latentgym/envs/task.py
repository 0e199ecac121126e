"""What a reasoning task is: questions, prompts, the rules of an episode, and a grader.

A task holds no state of an episode and knows no model; it speaks token ids through a tokenizer.
The environments (`latentgym.envs.vector`, `latentgym.envs.single`) turn it into episodes.

Legend: T steps, S ids in the support of a soft target.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from latentgym.data import Question
from latentgym.episodes.protocol import Protocol
from latentgym.episodes.spaces import Family
from latentgym.errors import LatentGymError
from latentgym.rewards import Grade, GraderError
from latentgym.system.options.keywords import Keyword, keywords
from latentgym.text.tokenizers import Tokenizer
from latentgym.text.trie import Trie

_TEXTS = ("name", "split", "source", "dataset_hash", "licence")  # that every task has


class GradingError(LatentGymError, GraderError):
    """A question whose answers cannot be graded; the message says which, and where it was read."""


@dataclass(frozen=True)
class Demonstration:
    """A right answer with its reasoning, step by step, for supervised training.

    Attributes:
        ids_TS: vocabulary ids of each step's target, int64.
        weights_TS: their probabilities; every row adds up to one. S = 1 is an ordinary token.
        thoughts: how many of the T steps are thoughts; the rest is the answer.
        steps: how many of the thoughts each step of the reasoning takes, in order; the thoughts
            behind them, such as the answer marker, belong to none. Empty where a task knows none.
        inserted_T: which of the thoughts the environment inserts in response to a call: they are
            read as their token, and no step is trained towards them; bool, or None for none.
        prompt_ids_PS: ids of targets on the P tokens of the prompt, where a task has such; a
            stage may train on them beside the chain.
        prompt_weights_PS: their probabilities; a row of zeros is a token without a target.
    """

    ids_TS: npt.NDArray[np.int64]
    weights_TS: npt.NDArray[np.float32]
    thoughts: int
    steps: tuple[int, ...] = ()
    inserted_T: npt.NDArray[np.bool_] | None = None
    prompt_ids_PS: npt.NDArray[np.int64] | None = None
    prompt_weights_PS: npt.NDArray[np.float32] | None = None

    @classmethod
    def of_tokens(
        cls, ids: Sequence[int], thoughts: int, steps: tuple[int, ...] = ()
    ) -> Demonstration:
        """A demonstration in plain tokens."""
        column = np.asarray(ids, dtype=np.int64)[:, None]
        return cls(column, np.ones_like(column, dtype=np.float32), thoughts, steps)


@dataclass(frozen=True)
class ToolCall:
    """A call of an agent, to which the environment responds.

    Attributes:
        index: number of the question.
        text: of the agent's own tokens since the environment last responded, up to the end of the
            call marker. Latents count by the token that they are read by.
        number: 1 for the first call of the episode.
    """

    index: int
    text: str
    number: int


@dataclass(frozen=True)
class Choices:
    """The closed set that the answers of a task are from: an agent's answer is a ranking of it.

    Attributes:
        titles: what each of the E entries is called, no two alike.
        trie: their tokens, with end-of-sequence.
        beams: how many of them are searched for side by side.
    """

    titles: Sequence[str]
    trie: Trie
    beams: int

    @cached_property
    def entry_of(self) -> Mapping[str, int]:
        """The number of each title."""
        return {title: entry for entry, title in enumerate(self.titles)}

    def tokens(self, entry: int) -> list[int]:
        """The token ids of an entry."""
        ids: list[int] = self.trie.ids_EL[entry, : self.trie.length_E[entry]].tolist()
        return ids


class Task(ABC):
    """Base of all tasks.

    Args:
        family: the action family of the environment.
        tokenizer: of the model, or the task's own small one.

    Attributes:
        name: as in the environment id.
        split: of the data.
        source: where the questions come from: `data:...`, `path:...`, `hub:...`, `generated`,
            `sample`.
        dataset_hash: of the questions, 16 hexadecimal digits.
        licence: of the data.
        prompt_budget: the longest prompt, in tokens.
        about: what records should know beside, plain data by name.
        choices: where answers are entries of a catalogue, which; None where they are free.
    """

    splits: ClassVar[tuple[str, ...]] = ("train", "test")
    prompt_budget: int = 1024
    about: Mapping[str, Any] = MappingProxyType({})
    choices: Choices | None = None
    name: str
    split: str
    source: str
    dataset_hash: str
    licence: str

    def __init__(self, family: Family, tokenizer: Tokenizer) -> None:
        self.family = family
        self.tokenizer = tokenizer

    def lacking(self) -> list[str]:
        """The attributes that every task has and this one has not, or not as text."""
        made = [name for name in ("family", "tokenizer") if not hasattr(self, name)]
        return made + [name for name in _TEXTS if not isinstance(getattr(self, name, None), str)]

    @abstractmethod
    def __len__(self) -> int:
        """How many questions there are."""

    @abstractmethod
    def question(self, index: int) -> Question:
        """The question of that number, 0 <= index < len."""

    def difficulty(self, index: int) -> dict[str, float]:
        """How hard a question is, by measure.

        Those that a question has: `level` and `hops` as the data say, `steps` of its reasoning.
        """
        question = self.question(index)
        told = {name: question.extra.get(name) for name in ("level", "hops")}
        told["steps"] = len(question.steps) or None
        return {name: float(value) for name, value in told.items() if value is not None}

    @abstractmethod
    def prompt(self, index: int) -> list[int]:
        """Token ids of the question's prompt."""

    @abstractmethod
    def protocol(self) -> Protocol:
        """The rules of an episode."""

    @abstractmethod
    def grade(self, index: int, completion: str, answer: str) -> Grade:
        """Grade an episode.

        Args:
            index: number of the question.
            completion: the text of the episode: the answer, and with the token family the chain of
                thought before it. Tool responses are not part of it.
            answer: the text of the answer phase alone.

        Raises:
            GradingError: its gold answer cannot be read, or the grader failed.
        """

    def apart(self, other: Any) -> bool:
        """Whether no question can be in both tasks, by how they are made; else they are compared.

        Args:
            other: a task with the same questions or with others.
        """
        return False

    @abstractmethod
    def demonstration(self, index: int) -> Demonstration:
        """A right chain for the question, in the task's action family."""

    @property
    def grading(self) -> str:
        """How answers are graded, in a sentence."""
        about = type(self).grade.__doc__ or type(getattr(self, "grader", self)).__doc__ or ""
        return inspect.cleandoc(about).partition("\n\n")[0].replace("\n", " ")

    def columns(self, index: int) -> Mapping[str, Any]:
        """What infos tell of a question's row beside its question and answer, by name."""
        return {}

    def entry(self, index: int) -> int:
        """Number of the right entry of `choices`; tasks that have choices override it."""
        raise NotImplementedError(f"the answers of {self.name} are free, so none has a number")

    def completion(self, index: int, answer: str) -> tuple[str, str]:
        """The text of an answer in the form that is asked for: (completion, answer)."""
        demonstration = self.demonstration(index)
        thoughts = demonstration.ids_TS[: demonstration.thoughts, 0].tolist()
        chain = self.tokenizer.decode(thoughts) if self.family.tokens else ""
        return f"{chain} {answer}".strip(), answer

    def gold_completion(self, index: int) -> tuple[str, str]:
        """A text that must be graded 1: (completion, answer). For validation."""
        demonstration = self.demonstration(index)
        ids = demonstration.ids_TS[:, 0].tolist()
        shown = ids if self.family.tokens else ids[demonstration.thoughts :]
        decode = self.tokenizer.decode
        return decode(shown), decode(ids[demonstration.thoughts :])

    def tool_responses(self, calls: Sequence[ToolCall]) -> list[list[int]]:
        """Token ids that the environment inserts after each of some calls.

        At least one and at most `Protocol.max_tool_response`; multi-turn tasks override it.
        """
        raise NotImplementedError(f"{self.name} has no tool responses, but its rules a tool call")

    def tool_call_start(self, text: str) -> int:
        """Where in the text since the last response, which ends in a tool call, the call begins.

        For whoever shows it. By default all of the text is the call.
        """
        return 0


@dataclass(frozen=True)
class TaskMaker:
    """Makes the tasks of a kind, and knows what keyword arguments they take.

    Attributes:
        make: from a name, an action family, a model's tokenizer or None, and options.
        takes: given the name and whether there is a model's tokenizer, what the options are passed
            on to, each with when it is: `("source=generated", ChainSettings)`, or an empty text.
        data: where the questions come from, for lists of tasks that no `DatasetSpec` describes.
    """

    make: Callable[[str, Family, Tokenizer | None, Mapping[str, Any]], Task]
    takes: Callable[[str, bool], Iterable[tuple[str, Callable[..., Any]]]]
    data: str = "generated"

    def __call__(
        self, name: str, family: Family, tokenizer: Tokenizer | None, options: Mapping[str, Any]
    ) -> Task:
        return self.make(name, family, tokenizer, options)

    def keywords(self, name: str, as_text: bool) -> dict[str, Keyword]:
        """The keyword arguments of a task; of two of the same name, the first."""
        found: dict[str, Keyword] = {}
        for when, maker in self.takes(name, as_text):
            found = {**keywords(maker, when), **found}
        return found
