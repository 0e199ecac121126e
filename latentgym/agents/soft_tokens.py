"""Soft Tokens: mixtures with Gaussian noise, trained by outcome reward.

"Soft Tokens, Hard Truths" (arXiv 2509.19170). While it thinks, the model reads the mixture of all
embeddings plus normal noise, and learns by the density of that; the authors found it best to answer
with ordinary tokens afterwards ("hard inference"). Deviations: docs/agents/soft-tokens.md.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

from latentgym import heads, rollout
from latentgym.agents.base import Agent
from latentgym.system.options.ranges import NotNegative, Positive, Steps
from latentgym.training import GRPOConfig, Optimisation, Recipe

if TYPE_CHECKING:
    from latentgym.lm import LatentLM

_PAPER_GRPO = GRPOConfig(prompts=16, group_size=32, micro_batch=16, advantage="rloo")
_PAPER = Optimisation(lr=1e-6, weight_decay=0.0, schedule="constant", warmup=0.0)
# As the other policy gradients of short runs, see `mts-grpo --preset grpo`.
_SHORT_GRPO = replace(_PAPER_GRPO, prompts=128, group_size=8, micro_batch=256)
_SHORT = Optimisation(lr=3e-4, schedule="constant", warmup=0.0)


@dataclass(frozen=True)
class SoftTokensConfig:
    """Settings of Soft Tokens."""

    scale: Positive = 0.33
    """Standard deviation of the noise, as a share of the embedding table's root mean square."""
    mixture_temperature: Positive = 0.5
    """Of the mixture; the paper's fuzzy tokens have 0.0001."""
    top_k: Steps | None = None
    """Mix this many tokens; none mixes the whole vocabulary."""
    density: Literal["mean", "sum"] = "sum"
    """Over a vector's numbers; the sum is the true density, as published."""
    thoughts: Literal["soft", "hard"] = "soft"
    """To answer, think the mixture without noise, or its likeliest token."""
    temperature: NotNegative = 1.0
    """Of sampled answers in training."""
    optimisation: Optimisation = _PAPER
    grpo: GRPOConfig = _PAPER_GRPO


class SoftTokens(Agent[SoftTokensConfig]):
    """Thinks in mixtures with Gaussian noise."""

    name = "soft-tokens"
    families = ("continuous",)
    config_class = SoftTokensConfig
    presets: ClassVar[dict[str, SoftTokensConfig]] = {
        "paper": SoftTokensConfig(),
        "tiny": SoftTokensConfig(density="mean", optimisation=_SHORT, grpo=_SHORT_GRPO),
    }

    def policy(self, lm: LatentLM, *, acting: bool) -> rollout.Policy:
        c = self.config
        if acting:
            top_k = 1 if c.thoughts == "hard" else c.top_k
            head: heads.PolicyHead = heads.NoisyMixtureHead(0.0, c.mixture_temperature, top_k)
            return rollout.Policy(lm, head, heads.TokenHead(0.0))
        head = heads.NoisyMixtureHead(c.scale, c.mixture_temperature, c.top_k, c.density)
        return rollout.Policy(lm, head, heads.TokenHead(c.temperature))

    def recipe(self) -> Recipe:
        return Recipe(self.config.grpo, self.config.optimisation)
