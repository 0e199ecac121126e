"""HRPO: tokens that carry a learned share of a latent, trained by outcome reward.

"Hybrid Latent Reasoning via Reinforcement Learning" (arXiv 2505.18454). While it thinks, the model
samples ordinary tokens, and reads each of them blended by a gate with the soft embedding of its
step (`latentgym.heads.GatedHead`). The gate starts almost closed and opens as it learns. Training
is GRPO on final answers alone: on-policy, one update per rollout, a small divergence from the model
without latents. After the answer marker tokens are plain.

Where the authors' code differs from the paper we follow the paper, or what is right; see
docs/agents/hrpo.md.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from latentgym import heads, rollout
from latentgym.agents.base import Agent
from latentgym.system.options.ranges import NotNegative, Positive, PositiveShare, Steps
from latentgym.training import GRPOConfig, Optimisation, Recipe

if TYPE_CHECKING:
    from latentgym.lm import LatentLM

_PAPER_GRPO = GRPOConfig(
    prompts=8,
    group_size=4,
    micro_batch=8,
    advantage="group_norm_trl",
    kl=0.005,
    kl_estimator="k3",
    mean="sequence",
)
_PAPER = Optimisation(
    lr=5e-6, weight_decay=0.1, beta2=0.99, max_grad_norm=0.1, schedule="cosine", warmup=0.1
)


@dataclass(frozen=True)
class HRPOConfig:
    """Settings of HRPO; the defaults are the authors' for GSM8K."""

    temperature: Positive = 0.5
    """Of sampling, and of the mixture in the soft embedding; the paper sweeps .3 to .9."""
    top_k: Steps | None = 50
    """Sample and mix among the k likeliest tokens, as the authors' code does by a default of its
    libraries; none takes the whole vocabulary."""
    r_min: PositiveShare = 0.98
    """The gate starts with a(r = 1) between r_min and r_max; the paper sweeps .95, .98, .99."""
    r_max: PositiveShare = 0.999
    """See r_min."""
    gate_lr: NotNegative = 1e-4
    """Learning rate of the gate's linear layers."""
    lambda_lr: NotNegative = 1e-3
    """Learning rate of Lambda."""
    official_temperature: bool = False
    """Score at temperature 1 what was sampled at another, as the authors' code does."""
    official_padding: bool = False
    """Replay left-padded prompts without an attention mask, as the authors' code does (local
    backend; OpenRLHF pads on the right)."""
    optimisation: Optimisation = _PAPER
    grpo: GRPOConfig = _PAPER_GRPO


class HRPO(Agent[HRPOConfig]):
    """Thinks in tokens and latents at once."""

    name = "hrpo"
    families = ("hybrid",)
    config_class = HRPOConfig
    presets: ClassVar[dict[str, HRPOConfig]] = {
        "paper": HRPOConfig(),
        "paper-math": HRPOConfig(grpo=replace(_PAPER_GRPO, group_size=8)),
        "tiny": HRPOConfig(
            temperature=1.0,
            top_k=None,
            r_min=0.95,
            gate_lr=1e-3,
            lambda_lr=1e-2,
            optimisation=Optimisation(lr=3e-4, schedule="constant", warmup=0.0),
            grpo=replace(_PAPER_GRPO, prompts=64, group_size=8, micro_batch=256),
        ),
    }

    def policy(self, lm: LatentLM, *, acting: bool) -> rollout.Policy:
        c = self.config
        token_head = heads.TokenHead(
            c.temperature, c.top_k, scored_at=1.0 if c.official_temperature else None
        )
        # To answer, tokens are greedy, but the mixture keeps its temperature.
        answer_head = heads.TokenHead(0.0) if acting else token_head
        head = heads.GatedHead(
            lm.hidden_size,
            answer_head,
            token_head,
            r_min=c.r_min,
            r_max=c.r_max,
            gate_lr=c.gate_lr,
            lambda_lr=c.lambda_lr,
        )
        return rollout.Policy(lm, head, answer_head, attend_padding=c.official_padding)

    def recipe(self) -> Recipe:
        return Recipe(self.config.grpo, self.config.optimisation)
