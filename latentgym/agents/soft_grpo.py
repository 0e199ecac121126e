"""SofT-GRPO: soft thinking made random by Gumbel noise, and improved by outcome reward.

"SofT-GRPO: Surpassing Discrete-Token LLM Reinforcement Learning via Gumbel-Reparameterized
Soft-Thinking Policy Optimization" (arXiv 2511.06411). A thought is a mixture of the few likeliest
tokens, its weights moved by Gumbel noise; the ratio is that of the noise's density. Deviations:
docs/agents/soft-grpo.md.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

from latentgym import heads, rollout
from latentgym.agents.base import Agent
from latentgym.system.options.ranges import Positive, PositiveShare, Size
from latentgym.training import GRPOConfig, Optimisation, Recipe

if TYPE_CHECKING:
    from latentgym.lm import LatentLM

_PAPER_GRPO = GRPOConfig(prompts=64, group_size=8, micro_batch=16, kl=0.001)
_PAPER = Optimisation(lr=1e-6, weight_decay=0.01, schedule="constant", warmup=0.0)
# As the other policy gradients of short runs, see `mts-grpo --preset grpo`.
_SHORT_GRPO = replace(
    _PAPER_GRPO, prompts=128, micro_batch=256, advantage="group_norm_population", kl=0.0
)
_SHORT = Optimisation(lr=3e-4, schedule="constant", warmup=0.0)


@dataclass(frozen=True)
class SoftGRPOConfig:
    """Settings of SofT-GRPO; the defaults are the authors'."""

    k: Size = 5
    """Tokens of a mixture."""
    tau: Positive = 0.1
    """Temperature of the Gumbel-softmax; towards 0 a thought is one sampled token."""
    top_p: PositiveShare = 0.95
    """Leave out tokens of a mixture beyond this probability."""
    temperature: Positive = 1.0
    """Of the distribution that is mixed, and of sampled answers."""
    noise: Literal["clamped", "exact"] = "clamped"
    """Keep the noise between -1.5 and 3, as the authors do, or as it is."""
    density: Literal["mean", "sum"] = "mean"
    """Over the tokens of a mixture; the sum is the true density."""
    thoughts: Literal["gumbel", "mixture"] = "gumbel"
    """To answer, think with noise as in training, or the plain mixture of the same tokens."""
    optimisation: Optimisation = _PAPER
    grpo: GRPOConfig = _PAPER_GRPO


class SoftGRPO(Agent[SoftGRPOConfig]):
    """Thinks in mixtures with Gumbel noise."""

    name = "soft-grpo"
    families = ("continuous",)
    config_class = SoftGRPOConfig
    presets: ClassVar[dict[str, SoftGRPOConfig]] = {
        "paper": SoftGRPOConfig(),
        "tiny": SoftGRPOConfig(optimisation=_SHORT, grpo=_SHORT_GRPO),
    }

    def policy(self, lm: LatentLM, *, acting: bool) -> rollout.Policy:
        c = self.config
        if acting and c.thoughts == "mixture":
            # Noise is put on the nucleus of the k, so the same tokens are mixed without it.
            head: heads.PolicyHead = heads.MixtureHead(c.k, c.top_p, c.temperature, of_top=True)
        else:
            head = heads.GumbelHead(c.k, c.tau, c.top_p, c.temperature, c.noise, c.density)
        return rollout.Policy(lm, head, heads.TokenHead(0.0 if acting else c.temperature))

    def recipe(self) -> Recipe:
        return Recipe(self.config.grpo, self.config.optimisation)
