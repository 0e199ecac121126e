"""The search for one question's answer: what was tried, in order, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from latentgym.agents.search.attempts import Attempt
from latentgym.agents.search.rewards import Verdict
from latentgym.evaluation.accounting import Positions


@dataclass(frozen=True)
class Try:
    """One attempt with its verdict.

    Attributes:
        iteration: steps that were taken before it.
        changed: searched tokens in which it differs from the try before; 0 for the first.
        attempt, verdict: what was tried and how it was judged.
    """

    iteration: int
    changed: int
    attempt: Attempt
    verdict: Verdict

    def as_dict(self) -> dict[str, Any]:
        """For the record: everything but the text."""
        info = self.attempt.info
        return {
            "iteration": self.iteration,
            "changed": self.changed,
            "reward": self.verdict.reward,
            "checks": dict(self.verdict.checks),
            "parsed": info["parsed"],
            "status": info["status"],
            "score": info["score"],
        }


@dataclass
class Search:
    """What a search method tried for one question.

    Attributes:
        index: number of the question.
        tries: in order; never empty when the search is over.
        steps: taken so far, also those that changed nothing.
        read: positions that were read beside those of the tries.
        gradients: positions at which a gradient was taken.
    """

    index: int
    tries: list[Try] = field(default_factory=list)
    steps: int = 0
    read: int = 0
    gradients: int = 0

    @property
    def reward(self) -> float:
        """Of the last try."""
        return self.tries[-1].verdict.reward

    def best(self) -> int:
        """The first of the tries with the greatest reward."""
        return int(np.argmax([t.verdict.reward for t in self.tries]))

    def positions(self) -> Positions:
        """All that was spent on the question."""
        spent = (cost for t in self.tries for cost in (t.attempt.positions, t.verdict.positions))
        return sum(spent, Positions(prompt=self.read, gradient=self.gradients))

    def metrics(self, chosen: int, threshold: float) -> dict[str, float]:
        """Numbers about the search by name (docs/metrics.md).

        Args:
            chosen: number of the try that is the answer.
            threshold: a reward above it accepts an answer.
        """
        first, last = self.tries[0].attempt, self.tries[chosen].attempt
        agreed = [(t.verdict.reward > threshold) == t.attempt.right for t in self.tries]
        gained, formatted = last.right and not first.right, _formatted(first)
        found = {
            "iterations": float(self.steps),
            "tries": float(len(self.tries)),
            "first": float(first.right),
            "any": float(any(t.attempt.right for t in self.tries)),
            "gained": float(gained),
            "repaired": float(gained and not formatted),
            "lost": float(first.right and not last.right),
            "accepted": float(self.tries[chosen].verdict.reward > threshold),
            "agreement": float(np.mean(agreed)),
            "first_agreement": float(agreed[0]),
        }
        if self.steps:
            found["changed"] = sum(t.changed for t in self.tries) / self.steps
        return {f"search/{name}": value for name, value in found.items()}


def _formatted(attempt: Attempt) -> bool:
    """Whether an answer stands where it was asked for."""
    return bool(attempt.info["status"] != "no_answer" and attempt.info["reward/format"] >= 1.0)
