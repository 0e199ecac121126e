"""Evaluations during training: when there is one, which is the best, and when to stop.

What is known of them is a list, which every checkpoint holds. The best and the patience that is
left are functions of it, so a run that is resumed goes on with the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from latentgym.errors import UsageError
from latentgym.training.manifest import best_step
from latentgym.training.stage import Metrics


@dataclass(frozen=True)
class Look:
    """One evaluation of the policy that is trained.

    Attributes:
        step: how many steps had been taken.
        accuracy: mean score over the questions.
        low, high: its 95 % interval.
    """

    step: int
    accuracy: float
    low: float
    high: float


class Looks:
    """Evaluations every so many steps, and after the last.

    Args:
        ask: evaluates the policy as it is after so many steps.
        every: steps between looks.
        patience: after so many looks in a row without a better one training stops; 0 for never.

    Attributes:
        taken: the looks so far, the first one first.

    Raises:
        UsageError: numbers that cannot work.
    """

    def __init__(self, ask: Callable[[int], Look], every: int, patience: int = 0) -> None:
        if every < 1:
            raise UsageError(f"looks are taken every n steps, at least 1, but n is {every}.")
        if patience < 0:
            raise UsageError(f"a patience is at least 0 looks, but it is {patience}.")
        self._ask, self.every, self.patience = ask, every, patience
        self.taken: list[Look] = []

    def due(self, done: int, steps: int) -> bool:
        """Whether there is a look after `done` of `steps` steps."""
        return done % self.every == 0 or done == steps

    def look(self, done: int) -> Metrics:
        """Take the look after `done` steps; what to log."""
        look = self._ask(done)
        self.taken.append(look)
        return {
            "eval/accuracy": look.accuracy,
            "eval/accuracy_low": look.low,
            "eval/accuracy_high": look.high,
        }

    @property
    def best(self) -> int | None:
        """The step of the best look so far; None before the first."""
        return best_step({"looks": self.stored()})

    @property
    def exhausted(self) -> bool:
        """Whether the patience is at its end."""
        best = self.best
        since = [look for look in self.taken if best is not None and look.step > best]
        return 0 < self.patience <= len(since)

    def stored(self) -> list[dict[str, Any]]:
        """The looks so far as a checkpoint holds them."""
        return [asdict(look) for look in self.taken]

    def restore(self, stored: Sequence[Mapping[str, Any]]) -> None:
        """Go on from looks that a checkpoint holds."""
        self.taken = [Look(**each) for each in stored]
