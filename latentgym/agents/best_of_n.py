"""Best of n: sample several chains, answer with the one that the reward likes best.

With the model's own verifiers it is the paper's "BoN" beside LatentSeek (arXiv 2505.13308, table
1); with the gold answer (`--reward psrm`) it is pass@n, an upper bound.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from latentgym import heads, rollout
from latentgym.agents.search import Attempt, Search, SearchAgent, SearchConfig, Seeker
from latentgym.errors import UsageError
from latentgym.system.options.ranges import Positive, PositiveShare, Size

if TYPE_CHECKING:
    from latentgym.lm import LatentLM


@dataclass(frozen=True)
class BestOfNConfig(SearchConfig):
    """Settings of best-of-n."""

    samples: Size = 3
    """Most chains of a question."""
    temperature: Positive = 0.7
    """Of sampling."""
    top_p: PositiveShare = 0.95
    """Sample among the most likely tokens that hold this probability."""
    early: bool = False
    """Stop at the first chain whose reward is above the threshold; else all are drawn."""
    keep: Literal["last", "best"] = "best"
    """Answer with the last attempt, or with the first of the greatest reward."""

    @property
    def enough(self) -> float:
        return self.threshold if self.early else float("inf")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.samples < 1 or self.temperature <= 0:
            raise UsageError("best-of-n needs at least one sample, and a temperature above 0.")


class BestOfN(SearchAgent[BestOfNConfig]):
    """Samples, judges and keeps the best."""

    name = "best-of-n"
    config_class = BestOfNConfig
    presets: ClassVar[dict[str, BestOfNConfig]] = {
        "paper": BestOfNConfig(),
        "pass": BestOfNConfig(reward="psrm", samples=8),
    }

    def policy(self, lm: LatentLM, *, acting: bool) -> rollout.Policy:
        return rollout.Policy(lm, heads.TokenHead(self.config.temperature, top_p=self.config.top_p))

    def seeker(self, policy: rollout.Policy, env: Any, seed: int) -> Seeker:
        return SamplingSeeker(self.config.samples, policy, env, seed)


class SamplingSeeker(Seeker):
    """Tries one more sample of each question.

    Args:
        samples: most of a question.
        policy, env, seed: see `Seeker`.
    """

    def __init__(self, samples: int, policy: rollout.Policy, env: Any, seed: int) -> None:
        super().__init__(policy, env, seed)
        self.samples = samples

    def attempt(self, searches: Sequence[Search]) -> list[Attempt]:
        return self.decode(searches)

    def propose(self, searches: Sequence[Search]) -> set[int]:
        going_on = [s for s in searches if len(s.tries) < self.samples]
        for search in going_on:
            search.steps += 1
        return {s.index for s in going_on}
