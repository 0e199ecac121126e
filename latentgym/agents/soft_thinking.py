"""Soft Thinking: concept tokens without training (arXiv 2505.15778).

Every thought is the probability-weighted mixture of the likeliest tokens' embeddings, truncated
and renormalised. Thinking ends at the answer marker, at end-of-sequence or at the budget; the
answer is decoded greedily. The authors' cold stop ends thinking after many steps of low entropy; it
is off by default, as it needs chains longer than our default budgets.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from latentgym import heads, rollout
from latentgym.agents.base import Agent
from latentgym.system.options.ranges import (
    NotNegative,
    Positive,
    PositiveShare,
    SizeOrZero,
    Steps,
)

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
    cold_steps: SizeOrZero = 0
    """End thinking after so many steps of low entropy in a row; the authors' 128 to 256. 0 never
    does."""
    cold_entropy: NotNegative = 0.01
    """Entropy in nats below which a step is one of them; the authors' .01 to .1."""


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
        mixture = min(c.top_k, lm.vocab_size), c.top_p, c.temperature
        head: heads.PolicyHead = heads.MixtureHead(*mixture)
        if c.cold_steps:
            end = lm.tokenizer.eos_id
            head = heads.ColdStopHead(*mixture, c.cold_entropy, c.cold_steps, end)
        return rollout.Policy(lm, head, heads.TokenHead(temperature=0.0))
