"""A task over bytes that a random model sometimes solves, for agents that search."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any
from zlib import crc32

import pytest

from latentgym import registry
from latentgym.data import Question
from latentgym.envs import Demonstration, Task, ToolCall
from latentgym.episodes.protocol import Budget, Protocol, StopMatcher
from latentgym.rewards import Grade
from latentgym.text.tokenizers import ByteTokenizer


def marker(every: int, rest: int) -> StopMatcher:
    return StopMatcher("#", ["#" if i % every == rest else "a" for i in range(259)])


class Guessing(Task):
    """One completion in four is right. Thinking ends in many ways, in the hybrid family by force.

    Options: `asks` has the environment speak after one id in nine.
    """

    name, source, dataset_hash, licence = "Guessing", "generated", "0" * 16, "none"
    split, prompt_budget = "test", 32

    def __init__(self, name: str, family: Any, tokenizer: Any, options: Any) -> None:
        super().__init__(family, ByteTokenizer())
        self.asks, self.exact = options.get("asks", False), options.get("exact_thoughts", False)

    def __len__(self) -> int:
        return 24

    def question(self, index: int) -> Question:
        return Question("why? " * (1 + index % 3) + chr(97 + index), str(index))

    def prompt(self, index: int) -> list[int]:
        return self.tokenizer.encode(self.question(index).text)

    def protocol(self) -> Protocol:
        return Protocol(
            think=Budget(14, exact=self.exact),
            answer=Budget(5),
            marker=marker(20, 0),
            tool_call=marker(9, 1) if self.asks else None,
            max_tool_response=2,
            eos=(*range(4, 240, 20), 258),
            forced_prompt=(65, 66),
            force_answer=self.family.name != "token",
        )

    def tool_responses(self, calls: Sequence[ToolCall]) -> list[list[int]]:
        return [[97 + call.index] * (1 + len(call.text) % 2) for call in calls]

    def grade(self, index: int, completion: str, answer: str) -> Grade:
        score = float(crc32(f"{index} {completion}".encode()) % 4 == 0)
        kept = float(len(completion) % 3 > 0)
        return Grade(score, answer, "ok", {"correct": score, "format": kept})

    def demonstration(self, index: int) -> Demonstration:
        return Demonstration.of_tokens([20, 48, 4], thoughts=1)

    def gold_completion(self, index: int) -> tuple[str, str]:
        return str(index), str(index)


@pytest.fixture(scope="module")
def guessing(registered: Callable[..., Any]) -> Iterator[Callable[..., Any]]:
    """`guessing(rows, family="token", **options)`: the task as a vector environment."""

    def make(rows: int = 4, family: str = "token", **options: Any) -> Any:
        return registry.make_vector_env(f"latent/Guessing-{family}", rows, **options)

    with registered("Guessing", Guessing):
        yield make
