"""What agents that search at test time have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

from latentgym.agents.base import Agent
from latentgym.answers import Answer
from latentgym.search import Search, Try

Config = TypeVar("Config")


class SearchAgent(Agent[Config]):
    """Base of agents that make several attempts at a question and judge them.

    Attributes:
        threshold: a reward above it accepts an answer.
        watch: told each try as soon as it is judged.
    """

    threshold: ClassVar[float] = -0.2
    watch: Callable[[Try], None] | None = None

    def record(self, search: Search, new: Try) -> None:
        """Add a try to a search, and show it to whoever watches."""
        search.tries.append(new)
        if self.watch is not None:
            self.watch(new)

    def found(self, search: Search, chosen: int, env: Any, threshold: float) -> Answer:
        """The answer of a search that is over.

        Args:
            search: the search.
            chosen: number of the try that is the answer.
            env: the environment.
            threshold: a reward above it accepts an answer.
        """
        attempt = search.tries[chosen].attempt
        thoughts = attempt.token_T[attempt.thought_T]
        return Answer(
            index=search.index,
            info=attempt.info,
            thoughts=env.unwrapped.task.tokenizer.decode(thoughts.tolist()),
            positions=search.positions(),
            context=attempt.context,
            samples=(float(attempt.info["score"]),),
            metrics=search.metrics(chosen, threshold),
            trace=[each.as_dict() for each in search.tries],
        )
