"""LatentR3: one latent before the answer, made by attention over the prompt, then reinforced.

"Reinforced Latent Reasoning for LLM-based Recommendation" (arXiv 2505.19092). `sft` trains language
model and attention layer (`latentgym.heads.RATTHead`) together: the latent stands before the title,
and the loss is that of the title. `rl` freezes the language model and trains the layer alone:
noise on the latent explores, minus the perplexity of the right title is the reward, and the
baseline is the reward without noise, averaged over the batch.

Two gradients: `likelihood`, as published, runs through the latent (`latentgym.training.pathwise`);
`score` is the score function of the Gaussian noise, the policy gradient in the usual sense.

The paper's ablations: without reasoning, `cot --stage sft` on the -token id (BIGRec); without RATT,
`--thought hidden`; without RL, stop after `sft`; without batch advantage, `--rl.advantage
group_norm`. Where the authors' code differs from the paper: docs/agents/latentr3.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar, Literal

from latentgym import heads, rollout
from latentgym.agents.base import Agent
from latentgym.episodes.protocol import Protocol
from latentgym.errors import UsageError
from latentgym.system.options.ranges import NotNegative, ShareBelowOne, Size, SizeOrZero
from latentgym.training import GRPOConfig, Optimisation, PathwiseConfig, Recipe, SupervisedConfig
from latentgym.training.latents import latents_of

if TYPE_CHECKING:
    from latentgym.lm import LatentLM


@dataclass(frozen=True)
class LatentR3Config:
    """Settings of LatentR3; the defaults are the authors'."""

    stage: Literal["sft", "rl"] = "sft"
    """Supervised training of everything, or policy gradient on the attention layer alone."""
    thought: Literal["ratt", "hidden", "pause"] = "ratt"
    """What makes the latent: attention over the prompt, or its last hidden state alone; or, as a
    control of equal cost, a learned vector that is always the same."""
    std: NotNegative = 1.5
    """Of the noise in policy gradient, in units of the input embeddings."""
    estimator: Literal["likelihood", "score"] = "likelihood"
    """Gradient through the latent, as published; or the score function of the noise."""
    batch_size: Size = 128
    """Demonstrations per supervised step."""
    micro_batch: SizeOrZero = 0
    """Most demonstrations in memory at once; 0 for all."""
    dropout: ShareBelowOne = 0.0
    """Of the input embeddings, in supervised steps."""
    optimisation: Optimisation = field(
        default_factory=lambda: Optimisation(lr=3e-4, schedule="linear", warmup=0.02)
    )
    rl: PathwiseConfig = field(default_factory=PathwiseConfig)


_PAPER_RL = LatentR3Config(
    stage="rl", optimisation=Optimisation(lr=1e-4, weight_decay=0.0, schedule="cosine", warmup=0.1)
)


class LatentR3(Agent[LatentR3Config]):
    """Thinks in latents that attend to the prompt."""

    name = "latentr3"
    families = ("hybrid",)
    config_class = LatentR3Config
    presets: ClassVar[dict[str, LatentR3Config]] = {
        "sft": LatentR3Config(micro_batch=4),
        "rl": replace(_PAPER_RL, rl=PathwiseConfig(micro_batch=8)),
        "sft-tiny": LatentR3Config(
            batch_size=64,
            dropout=0.05,
            optimisation=Optimisation(lr=3e-3, weight_decay=0.1, schedule="cosine"),
        ),
        "rl-tiny": replace(_PAPER_RL, std=0.25, rl=PathwiseConfig(micro_batch=512)),
    }

    def policy(self, lm: LatentLM, *, acting: bool) -> rollout.Policy:
        c = self.config
        learns = not acting and c.stage == "rl"
        if learns:
            lm.freeze()
        head = self._head(lm, c.std if learns else 0.0)
        return rollout.Policy(lm, head, heads.TokenHead(float(not acting)))

    def _head(self, lm: LatentLM, std: float) -> heads.PolicyHead:
        if self.config.thought == "ratt":
            return heads.RATTHead(lm.hidden_size, std)
        hidden = self.config.thought == "hidden"
        return heads.HiddenStateHead() if hidden else heads.PauseHead(lm.hidden_size)

    def check(self, rules: Protocol) -> None:
        latents_of(rules)
        if self.config.stage == "rl" and self.config.thought != "ratt":
            raise UsageError(
                f"the rl stage trains the attention layer, and --thought {self.config.thought} has "
                "none; use --thought ratt."
            )

    def recipe(self) -> Recipe:
        c = self.config
        if c.stage == "sft":
            sft = SupervisedConfig(
                c.batch_size, c.micro_batch, c.dropout, own_thoughts=1.0, latents=True
            )
            return Recipe(sft, c.optimisation)
        if c.estimator == "likelihood":
            return Recipe(c.rl, c.optimisation)
        grpo = GRPOConfig(
            prompts=c.rl.prompts,
            group_size=c.rl.group_size,
            updates=c.rl.updates,
            micro_batch=c.rl.micro_batch,
            advantage=c.rl.advantage,
            clip_low=c.rl.clip_low,
            clip_high=c.rl.clip_high,
            reward="perplexity",
        )
        return Recipe(grpo, c.optimisation)
