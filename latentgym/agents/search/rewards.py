"""What judges an attempt at test time: the model itself, its confidence, or the gold answer.

A source gives rewards in [-1, 0] by convention, 0 for nothing to improve, so that a search pushes
away from an attempt by how bad it is and stops at a good one.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from latentgym.agents.search.attempts import Attempt
from latentgym.errors import UsageError
from latentgym.evaluation.accounting import Positions


@dataclass(frozen=True)
class Verdict:
    """What a source says of an attempt.

    Attributes:
        reward: the reward.
        positions: what judging cost.
        checks: parts of the verdict by name, where a source has them.
    """

    reward: float
    positions: Positions = field(default_factory=Positions)
    checks: Mapping[str, bool] = field(default_factory=dict)


class RewardSource(ABC):
    """Base of what judges attempts."""

    oracle: ClassVar[bool] = False
    """Whether it looks at the gold answer: what is found with it is an upper bound, no result."""

    @abstractmethod
    def __call__(self, attempts: Sequence[Attempt], seed: int) -> list[Verdict]:
        """Judge attempts at different questions.

        Args:
            attempts: what to judge.
            seed: of the random numbers, where a source samples.
        """


class PerfectSparseReward(RewardSource):
    """PSRM: 0 if the grader likes the answer, -1 if not (LatentSeek). An oracle."""

    oracle = True

    def __call__(self, attempts: Sequence[Attempt], seed: int) -> list[Verdict]:
        return [Verdict(0.0 if attempt.right else -1.0) for attempt in attempts]


class ConstantReward(RewardSource):
    """-1 for everything: a control that moves as far, but never knows where from."""

    def __call__(self, attempts: Sequence[Attempt], seed: int) -> list[Verdict]:
        return [Verdict(-1.0) for _ in attempts]


class ConfidenceReward(RewardSource):
    """How sure the model was: geometric mean of the decoded tokens' probabilities, minus 1.

    The idea of LTPO (arXiv 2510.04182): confidence in place of verification. It costs nothing. An
    attempt in which nothing was decoded, as where the given tokens end it, has -1.
    """

    def __call__(self, attempts: Sequence[Attempt], seed: int) -> list[Verdict]:
        return [Verdict(math.expm1(attempt.log_prob)) for attempt in attempts]


class FunctionReward(RewardSource):
    """A function of a user's own.

    Args:
        function: takes the final info of an episode (question, completion, answer, parsed, ...)
            without what comes from the gold answer, and gives the reward.

    Raises:
        UsageError: when called, if the function fails or gives no finite number.
    """

    _GOLD = ("target", "score", "status")

    def __init__(self, function: Callable[[Mapping[str, Any]], float]) -> None:
        self.function = function

    def __call__(self, attempts: Sequence[Attempt], seed: int) -> list[Verdict]:
        return [Verdict(self._reward(attempt)) for attempt in attempts]

    def _reward(self, attempt: Attempt) -> float:
        try:
            reward = float(self.function(self._blind(attempt.info)))
        except Exception as error:
            raise UsageError(
                f"the reward of your own failed on question {attempt.index} with "
                f"{type(error).__name__}: {error}; mend it and go on with --resume."
            ) from error
        # NaN is not below any threshold: it would pass for a good answer.
        if not math.isfinite(reward):
            raise UsageError(
                f"the reward of your own gave {reward} for question {attempt.index}; let it give "
                "finite numbers, in [-1, 0] by convention."
            )
        return reward

    def _blind(self, info: Mapping[str, Any]) -> dict[str, Any]:
        hidden = {name for name in info if name.startswith("reward/")} | {*self._GOLD}
        return {name: value for name, value in info.items() if name not in hidden}
