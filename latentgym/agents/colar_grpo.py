"""CoLaR: chains compressed into latents, made shorter by policy gradient.

"Think Silently, Think Fast: Dynamic Latent Compression of LLM Reasoning Chains"
(arXiv 2505.16552). `sft` teaches the model to predict thoughts that each hold c tokens of its
reasoning (`latentgym.training.compression`), for every c up to 5; a suffix of the prompt says
which. `grpo` samples such thoughts (`latentgym.heads.GaussianHead`) and improves them and the
answer together. Losses are averaged over each row's thoughts, so that in a short right chain every
thought counts more, and chains become short.

Where the authors' code differs from the paper, see docs/agents/colar-grpo.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar, Literal

from latentgym import heads, rollout
from latentgym.agents.base import Agent
from latentgym.errors import UsageError, told
from latentgym.system.options.ranges import NotNegative, PositiveShare, Size, SizeOrZero
from latentgym.training import CompressionConfig, GRPOConfig, Optimisation, Recipe
from latentgym.training.compression_config import with_speed

if TYPE_CHECKING:
    from latentgym.lm import LatentLM

_PAPER_GRPO = GRPOConfig(prompts=8, group_size=8, mini_batches=8, micro_batch=8, mean="phase")


@dataclass(frozen=True)
class CoLaRConfig:
    """Settings of CoLaR."""

    stage: Literal["sft", "grpo"] = "sft"
    """Supervised training on compressed chains, or policy gradient."""
    speed: Size = 2
    """Tokens per thought, c, that the suffix asks for when answering and in policy gradient."""
    prompt_suffix: str = "( Thinking speed : {c} )"
    """Read after every prompt; {c} stands for the speed."""
    c_min: Size = 1
    """Fewest tokens per thought in supervised training."""
    c_max: Size = 5
    """Most tokens per thought in supervised training."""
    pooling: Literal["sqrt_mean", "mean"] = "sqrt_mean"
    """How the embeddings of a group become one; `mean` is the paper's ablation MP."""
    latent_loss: Literal["soft_mse", "nll"] = "soft_mse"
    """Of the latent head; `nll` is the paper's ablation of that name."""
    latent_weight: NotNegative = 1.0
    """Of the latent loss beside that on tokens."""
    entropy_weight: NotNegative = 0.0
    """Of the latents' entropy in soft_mse. At 0, the authors' default, the noise that policy
    gradient explores with dies out in long training."""
    deterministic: bool = False
    """Think the mean of the Gaussian: the paper's ablation DL."""
    density: Literal["mean", "sum"] = "mean"
    """Log-probability of a latent: mean over its elements as published, or their sum."""
    inner: Size | None = None
    """Width of the latent head's layers; none takes the model's. The authors have 2048 beside
    models of 1536 to 4096."""
    temperature: NotNegative = 1.0
    """Of latents when answering; 0 thinks the mean."""
    stop_temperature: NotNegative = 1.0
    """Of the token that ends thinking, when answering; 0 is greedy."""
    answer_temperature: NotNegative = 1.0
    """Of the answer's tokens, when answering; 0 is greedy."""
    answer_top_p: PositiveShare = 0.9
    """When answering: sample among the most likely tokens that hold this probability."""
    batch_size: Size = 64
    """Demonstrations per supervised step."""
    micro_batch: SizeOrZero = 0
    """Most demonstrations in memory at once; 0 for all."""
    optimisation: Optimisation = field(
        default_factory=lambda: Optimisation(lr=1e-4, schedule="constant", warmup=0.0)
    )
    grpo: GRPOConfig = _PAPER_GRPO


_TINY = CoLaRConfig(entropy_weight=0.02, optimisation=Optimisation(lr=3e-3, weight_decay=0.1))


class CoLaR(Agent[CoLaRConfig]):
    """Thinks in vectors that hold several tokens each."""

    name = "colar-grpo"
    families = ("hybrid",)
    config_class = CoLaRConfig
    presets: ClassVar[dict[str, CoLaRConfig]] = {
        "sft": CoLaRConfig(batch_size=256, micro_batch=16),
        "grpo": CoLaRConfig(
            stage="grpo", optimisation=Optimisation(lr=1e-6, schedule="constant", warmup=0.0)
        ),
        "sft-tiny": _TINY,
        "grpo-tiny": replace(
            _TINY,
            stage="grpo",
            optimisation=Optimisation(lr=1e-4, schedule="constant", warmup=0.0),
            grpo=replace(_PAPER_GRPO, prompts=64, mini_batches=1, micro_batch=256),
        ),
    }

    def policy(self, lm: LatentLM, *, acting: bool) -> rollout.Policy:
        c = self.config
        if c.speed < 1:
            raise UsageError(f"--speed is the tokens of a thought, at least 1, but is {c.speed}.")
        head = heads.GaussianHead(
            lm.hidden_size,
            c.inner or lm.hidden_size,
            temperature=c.temperature if acting else 1.0,
            deterministic=c.deterministic,
            density=c.density,
            stop=heads.TokenHead(c.stop_temperature if acting else 1.0),
        )
        answer_head = heads.TokenHead()
        if acting:
            answer_head = heads.TokenHead(c.answer_temperature, top_p=c.answer_top_p)
        return rollout.Policy(lm, head, answer_head, prompt_suffix=self._prompt_suffix(lm))

    def _prompt_suffix(self, lm: LatentLM) -> list[int]:
        try:
            return lm.tokenizer.encode(with_speed(self.config.prompt_suffix, self.config.speed))
        except UsageError as error:
            raise UsageError(
                f"this task has no tokens for the prompt suffix {told(self.config.prompt_suffix)}; "
                "give --prompt-suffix a text that it has, with {c} for the speed, or an empty one."
            ) from error

    def recipe(self) -> Recipe:
        c = self.config
        sft = CompressionConfig(
            prompt_suffix=c.prompt_suffix,
            batch_size=c.batch_size,
            micro_batch=c.micro_batch,
            c_min=c.c_min,
            c_max=c.c_max,
            pooling=c.pooling,
            latent_loss=c.latent_loss,
            latent_weight=c.latent_weight,
            entropy_weight=c.entropy_weight,
        )
        return Recipe(sft if c.stage == "sft" else c.grpo, c.optimisation)
