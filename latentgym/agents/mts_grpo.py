"""CoT2: continuous chains that hold many paths at once, and GRPO over their samples.

"Continuous Chain of Thought Enables Parallel Exploration and Reasoning" (arXiv 2505.23648).
A thought is a mixture of token embeddings. `csft` trains it towards the distribution over all
reachable states (continuous supervision, section 3); `grpo` samples it, as the mean of K drawn
embeddings (MTS) or as a Dirichlet point, and improves it by outcome reward (section 4).

Where the authors' code differs from the paper we follow the paper; see docs/agents/mts-grpo.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar, Literal

from latentgym import heads, rollout
from latentgym.agents.base import Agent
from latentgym.system.options.ranges import NotNegative, Positive, Share, ShareBelowOne, Size, Steps
from latentgym.training import GRPOConfig, Optimisation, Recipe, SupervisedConfig

if TYPE_CHECKING:
    from latentgym.lm import LatentLM

# The paper's clip bounds and population std; no divergence term (its script has beta = 0).
_PAPER_GRPO = GRPOConfig(
    prompts=16,
    group_size=8,
    advantage="group_norm_population",
    clip_low=0.1,
    clip_high=0.1,
)


# Few large steps: with the paper's 16 questions a step, a rate that fits a short run ends at the
# commonest answer (docs/results.md).
_SHORT_GRPO = replace(_PAPER_GRPO, prompts=128, micro_batch=256)
_SHORT = Optimisation(lr=3e-4, schedule="constant", warmup=0.0)


@dataclass(frozen=True)
class MTSGRPOConfig:
    """Settings of CoT2."""

    stage: Literal["csft", "grpo"] = "csft"
    """Continuous supervised training, or policy gradient."""
    thoughts: Literal["base", "mts", "dirichlet"] = "base"
    """How thoughts are made when answering: the whole mixture, K samples, or a Dirichlet point."""
    sampler: Literal["mts", "dirichlet"] = "mts"
    """What GRPO samples thoughts with."""
    k: Size = 3
    """Tokens per thought of MTS; the paper has 1, 3 and 6."""
    gamma: Positive = 1.0
    """Concentration of the Dirichlet."""
    sampling_temperature: Positive = 1.0
    """Of MTS; the authors' script has K (logits divided by K)."""
    top_k: Steps | None = None
    """Mix this many ids in base thoughts; none mixes the whole vocabulary."""
    batch_size: Size = 64
    """Demonstrations per supervised step."""
    dropout: ShareBelowOne = 0.05
    """Of the input embeddings in supervised steps: at test the model reads its own, slightly
    different mixtures, and noise is what makes it bear them."""
    own_mixtures: Share = 0.0
    """Share of the demonstrations that are read with the model's own mixtures, not the targets."""
    prompt_weight: NotNegative = 0.0
    """Weight of the targets that a task has on its prompts, beside those of the chain."""
    optimisation: Optimisation = field(
        default_factory=lambda: Optimisation(lr=3e-3, weight_decay=0.1)
    )
    grpo: GRPOConfig = _PAPER_GRPO


class MTSGRPO(Agent[MTSGRPOConfig]):
    """CoT2, supervised and by policy gradient."""

    name = "mts-grpo"
    families = ("continuous",)
    config_class = MTSGRPOConfig
    presets: ClassVar[dict[str, MTSGRPOConfig]] = {
        "csft": MTSGRPOConfig(),
        "grpo": MTSGRPOConfig(stage="grpo", thoughts="mts", optimisation=_SHORT, grpo=_SHORT_GRPO),
        "paper-grpo": MTSGRPOConfig(
            stage="grpo",
            thoughts="mts",
            optimisation=Optimisation(lr=5e-6, schedule="constant", warmup=0.0),
        ),
        "dirichlet": MTSGRPOConfig(
            stage="grpo",
            thoughts="dirichlet",
            sampler="dirichlet",
            optimisation=_SHORT,
            grpo=_SHORT_GRPO,
        ),
    }

    def policy(self, lm: LatentLM, *, acting: bool) -> rollout.Policy:
        c = self.config
        if acting:
            return rollout.Policy(lm, self._head(c.thoughts), heads.TokenHead(temperature=0.0))
        head = self._head(c.sampler if c.stage == "grpo" else "base")
        return rollout.Policy(lm, head, heads.TokenHead())

    def _head(self, kind: str) -> heads.PolicyHead:
        c = self.config
        if kind == "mts":
            return heads.MultiTokenHead(c.k, c.sampling_temperature)
        if kind == "dirichlet":
            return heads.DirichletHead(c.gamma)
        return heads.MixtureHead(top_k=c.top_k)

    def recipe(self) -> Recipe:
        c = self.config
        csft = SupervisedConfig(
            c.batch_size,
            dropout=c.dropout,
            own_thoughts=c.own_mixtures,
            prompt_weight=c.prompt_weight,
        )
        return Recipe(csft if c.stage == "csft" else c.grpo, c.optimisation)
