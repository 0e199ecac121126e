"""Coconut: the last hidden state is the next input, learnt by a curriculum.

"Training Large Language Models to Reason in a Continuous Latent Space" (arXiv 2412.06769). A
thought is the model's last hidden state, fed back in the place of a word. `sft` is the curriculum:
at each stage latents take the place of one more step of the reasoning in text (section 3). `grpo`
improves the answer tokens after the latents by outcome reward.

The paper's controls are settings: `--thought pause` has a learned token in the latents' places,
`--thought none` leaves the steps out and puts nothing there.

Where the authors' code differs from the paper, and we from both: docs/agents/coconut.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from latentgym import heads, rollout
from latentgym.agents.base import Agent
from latentgym.episodes.protocol import Protocol
from latentgym.system.options.ranges import (
    NotNegative,
    Share,
    ShareBelowOne,
    Size,
    SizeOrZero,
    Steps,
)
from latentgym.training import CurriculumConfig, GRPOConfig, Optimisation, Recipe

if TYPE_CHECKING:
    from latentgym.lm import LatentLM

# GPT-2 in batches of 4 x 32; AdamW at a constant rate, gradients not clipped.
_PAPER = Optimisation(lr=1e-4, schedule="constant", warmup=0.0, max_grad_norm=0.0)
# An epoch is 3013 steps on GSM8k-Aug (385,620 rows), 140 on ProsQA (17,886).
_GSM8K_STAGE, _PROSQA_STAGE = 3 * 3013, 5 * 140


@dataclass(frozen=True)
class CoconutConfig:
    """Settings of Coconut."""

    stage: Literal["sft", "grpo"] = "sft"
    """The curriculum, or policy gradient on the tokens after the latents."""
    thought: Literal["hidden", "pause", "none"] = "hidden"
    """What takes the steps' place: hidden states (Coconut), a learned pause, or nothing."""
    c: SizeOrZero = 1
    """Latents in the place of each step; the paper has 2 on GSM8K, 1 elsewhere."""
    stages: Size | None = None
    """Steps that latents take the place of, one more at each stage. Default: as many as the
    environment's thoughts allow. One more stage leaves out all that remains of the reasoning."""
    steps_per_stage: Steps = 1000
    """Training steps of each stage."""
    first_stage: SizeOrZero = 0
    """Where to begin: 1 where the checkpoint has learnt the token chain."""
    mix: Share = 0.0
    """Share of the demonstrations that are of any stage up to the present one."""
    batch_size: Size = 32
    """Demonstrations per supervised step."""
    micro_batch: SizeOrZero = 0
    """Most demonstrations in memory at once; 0 for all."""
    dropout: ShareBelowOne = 0.0
    """Of the input embeddings, latents among them, in supervised steps."""
    prompt_weight: NotNegative = 0.0
    """Weight of the targets that a task has on its prompts, beside those of the chain."""
    optimisation: Optimisation = field(default_factory=Optimisation)
    grpo: GRPOConfig = field(default_factory=GRPOConfig)


class Coconut(Agent[CoconutConfig]):
    """Thinks in its own hidden states."""

    name = "coconut"
    families = ("hybrid",)
    config_class = CoconutConfig
    presets: ClassVar[dict[str, CoconutConfig]] = {
        "tiny": CoconutConfig(
            steps_per_stage=400,
            batch_size=64,
            optimisation=Optimisation(lr=2e-3, weight_decay=0.1),
        ),
        "paper-gsm8k": CoconutConfig(
            c=2,
            stages=3,
            steps_per_stage=_GSM8K_STAGE,
            first_stage=1,
            batch_size=128,
            micro_batch=32,
            optimisation=_PAPER,
        ),
        "paper-prosqa": CoconutConfig(
            stages=6,
            steps_per_stage=_PROSQA_STAGE,
            batch_size=128,
            micro_batch=32,
            optimisation=_PAPER,
        ),
        "grpo-tiny": CoconutConfig(
            stage="grpo",
            optimisation=Optimisation(lr=3e-4, schedule="constant", warmup=0.0),
            grpo=GRPOConfig(prompts=128, micro_batch=256, clip_low=0.1, clip_high=0.1),
        ),
    }

    def answering(self) -> Any:
        c = self.config  # they say how many latents an episode must have, see `check`
        return c.c, c.stages, c.thought

    def policy(self, lm: LatentLM, *, acting: bool) -> rollout.Policy:
        pause = self.config.thought == "pause"
        head = heads.PauseHead(lm.hidden_size) if pause else heads.HiddenStateHead()
        return rollout.Policy(lm, head, heads.TokenHead(temperature=0.0 if acting else 1.0))

    def check(self, rules: Protocol) -> None:
        self._curriculum().check(rules)

    def recipe(self) -> Recipe:
        c = self.config
        return Recipe(self._curriculum() if c.stage == "sft" else c.grpo, c.optimisation)

    def _curriculum(self) -> CurriculumConfig:
        c = self.config
        return CurriculumConfig(
            c.batch_size,
            c.micro_batch,
            c.dropout,
            prompt_weight=c.prompt_weight,
            c=0 if c.thought == "none" else c.c,
            stages=c.stages,
            steps_per_stage=c.steps_per_stage,
            first_stage=c.first_stage,
            mix=c.mix,
        )
