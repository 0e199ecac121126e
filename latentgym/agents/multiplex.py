"""Multiplex Thinking: thoughts of K sampled tokens, of which each learns by its own ratio.

"Multiplex Thinking: Reasoning via Token-wise Branch-and-Merge" (arXiv 2601.08808). K tokens are
drawn independently at every step of thinking and merged into one embedding; the policy gradient
clips the ratio of every sub-token. Deviations: docs/agents/multiplex.md.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

from latentgym import heads, rollout
from latentgym.agents.base import Agent
from latentgym.system.options.ranges import Positive, Size
from latentgym.training import GRPOConfig, Optimisation, Recipe

if TYPE_CHECKING:
    from latentgym.lm import LatentLM

_PAPER_GRPO = GRPOConfig(prompts=128, group_size=8, micro_batch=16)
_PAPER = Optimisation(lr=1e-6, weight_decay=0.01, schedule="constant", warmup=0.0)
# As the other policy gradients of short runs, see `mts-grpo --preset grpo`.
_SHORT_GRPO = replace(
    _PAPER_GRPO, micro_batch=256, advantage="group_norm_population", clip_low=0.1, clip_high=0.1
)
_SHORT = Optimisation(lr=3e-4, schedule="constant", warmup=0.0)


@dataclass(frozen=True)
class MultiplexConfig:
    """Settings of Multiplex Thinking; the defaults are the authors'."""

    k: Size = 3
    """Tokens per thought."""
    merge: Literal["mean", "probability"] = "mean"
    """The model reads their mean, or their mean weighted by their probabilities."""
    temperature: Positive = 1.0
    """Of sampling."""
    optimisation: Optimisation = _PAPER
    grpo: GRPOConfig = _PAPER_GRPO


class Multiplex(Agent[MultiplexConfig]):
    """Thinks K sampled tokens at once, each with a ratio of its own."""

    name = "multiplex"
    families = ("continuous",)
    config_class = MultiplexConfig
    presets: ClassVar[dict[str, MultiplexConfig]] = {
        "paper": MultiplexConfig(),
        "tiny": MultiplexConfig(optimisation=_SHORT, grpo=_SHORT_GRPO),
    }

    def policy(self, lm: LatentLM, *, acting: bool) -> rollout.Policy:
        c = self.config
        answer_head = heads.TokenHead(0.0 if acting else c.temperature)
        return rollout.Policy(lm, heads.MultiplexHead(c.k, c.temperature, c.merge), answer_head)

    def recipe(self) -> Recipe:
        return Recipe(self.config.grpo, self.config.optimisation)
