"""TARPO: a router that chooses between a token and a mixture, itself trained by outcome reward.

"TARPO" (arXiv 2606.05859). At every step of thinking a linear map of the hidden state chooses what
the model reads next: the drawn token, or the mixture of the ten likeliest. The choice is an action
with a ratio of its own, of a tenth of the token's weight. Deviations: docs/agents/tarpo.md.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from latentgym import heads, rollout
from latentgym.agents.base import Agent
from latentgym.system.options.ranges import NotNegative, Positive, ShareBelowOne, Size
from latentgym.training import GRPOConfig, Optimisation, Recipe

if TYPE_CHECKING:
    from latentgym.lm import LatentLM

_PAPER_GRPO = GRPOConfig(
    prompts=8,
    group_size=4,
    micro_batch=8,
    advantage="group_norm_trl",
    kl=0.005,
    mean="sequence",
    clip_low=0.1,
    clip_high=0.1,
)
_PAPER = Optimisation(
    lr=5e-6, weight_decay=0.1, beta2=0.99, max_grad_norm=0.1, schedule="cosine", warmup=0.1
)


@dataclass(frozen=True)
class TARPOConfig:
    """Settings of TARPO; the defaults are the authors' for GSM8K."""

    temperature: Positive = 0.5
    """Of sampled tokens."""
    k: Size = 10
    """Tokens of a mixture."""
    soft_share: ShareBelowOne = 0.01
    """Probability of a mixture at the start: .01 (1.5B and 7B) or .1 (3B); 0 shuts the router."""
    mode_weight: NotNegative = 0.1
    """Weight of the router's ratio in the loss, beside the token's."""
    router_lr: NotNegative = 1e-4
    """Learning rate of the router."""
    official_token_scores: bool = False
    """Score drawn tokens also where a mixture was fed, as the authors' code does."""
    official_weights: bool = False
    """Feed the probabilities of the ten as they are, without scaling them to add up to one, as the
    authors' rollout does."""
    optimisation: Optimisation = _PAPER
    grpo: GRPOConfig = _PAPER_GRPO


class TARPO(Agent[TARPOConfig]):
    """Chooses between tokens and mixtures by a trained router."""

    name = "tarpo"
    families = ("hybrid",)
    config_class = TARPOConfig
    presets: ClassVar[dict[str, TARPOConfig]] = {
        "paper": TARPOConfig(),
        "paper-math": TARPOConfig(grpo=replace(_PAPER_GRPO, group_size=8)),
        "tiny": TARPOConfig(
            temperature=1.0,
            soft_share=0.1,
            router_lr=1e-3,
            optimisation=Optimisation(lr=3e-4, schedule="constant", warmup=0.0),
            grpo=replace(_PAPER_GRPO, prompts=64, group_size=8, micro_batch=256),
        ),
    }

    def policy(self, lm: LatentLM, *, acting: bool) -> rollout.Policy:
        c = self.config
        tokens = heads.TokenHead(0.0 if acting else c.temperature)
        head = heads.RoutedHead(
            lm.hidden_size,
            tokens,
            k=c.k,
            soft_share=c.soft_share,
            mode_weight=c.mode_weight,
            scores_all_tokens=c.official_token_scores,
            normalised=not c.official_weights,
            router_lr=c.router_lr,
        )
        return rollout.Policy(lm, head, tokens)

    def recipe(self) -> Recipe:
        return Recipe(self.config.grpo, self.config.optimisation)
