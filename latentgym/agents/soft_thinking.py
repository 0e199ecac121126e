"""Soft Thinking: concept tokens without training (arXiv 2505.15778).

Every thought is the probability-weighted mixture of the likeliest tokens' embeddings, truncated
and renormalised. Thinking ends at the answer marker, at end-of-sequence or at the budget; the
answer is decoded greedily. The authors' "cold stop" (256 steps of low entropy) needs chains longer
than our default budgets and is left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from latentgym import heads, rollout
from latentgym.agents.base import Agent
from latentgym.system.options.ranges import Positive, PositiveShare, Steps

if TYPE_CHECKING:
    from latentgym.lm import LatentLM


@dataclass(frozen=True)
class SoftThinkingConfig:
    """Settings of Soft Thinking; the defaults are the authors'."""

    top_k: Steps = 10
    """Tokens in a mixture."""
    top_p: PositiveShare = 0.95
    """Leave out tokens beyond this probability."""
    temperature: Positive = 0.6
    """Of the mixture."""


class SoftThinking(Agent[SoftThinkingConfig]):
    """Mixtures instead of sampled tokens, with a model as it is."""

    name = "soft-thinking"
    families = ("continuous",)
    config_class = SoftThinkingConfig
    presets: ClassVar[dict[str, SoftThinkingConfig]] = {
        "paper": SoftThinkingConfig(),
        "whole": SoftThinkingConfig(top_k=512, top_p=1.0, temperature=1.0),
    }

    def policy(self, lm: LatentLM, *, acting: bool) -> rollout.Policy:
        c = self.config
        head = heads.MixtureHead(min(c.top_k, lm.vocab_size), c.top_p, c.temperature)
        return rollout.Policy(lm, head, heads.TokenHead(temperature=0.0))
