"""Chain of thought in words: the token baseline of everything else.

Decoding: greedy, sampling and self-consistency (Wang et al., 2023). Training: supervised on
demonstrations, or token GRPO (DeepSeekMath, arXiv 2402.03300).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from latentgym import heads, rollout
from latentgym.agents.answering import make_answer
from latentgym.agents.base import Agent
from latentgym.episodes.protocol import Protocol
from latentgym.errors import UsageError
from latentgym.evaluation.answers import Answer
from latentgym.system.options.ranges import (
    NotNegative,
    Positive,
    PositiveShare,
    ShareBelowOne,
    Size,
    SizeOrZero,
)
from latentgym.training import GRPOConfig, Optimisation, Recipe, SupervisedConfig

if TYPE_CHECKING:
    from latentgym.lm import LatentLM


@dataclass(frozen=True)
class CoTConfig:
    """Settings of the token agent."""

    stage: Literal["sft", "grpo"] = "sft"
    """Training: supervised on demonstrations, or group-relative policy optimisation."""
    samples: Size = 1
    """Episodes per question when answering; 1 decodes greedily unless temperature is set."""
    vote: Literal["first", "majority"] = "first"
    """Of several samples take the first, or the most frequent answer (self-consistency)."""
    temperature: NotNegative = 0.0
    """When answering; 0 is greedy."""
    top_p: PositiveShare = 1.0
    """When answering: sample among the most likely tokens that hold this probability."""
    train_temperature: Positive = 1.0
    """Of the rollouts of GRPO."""
    batch_size: Size = 64
    """Demonstrations per supervised step."""
    micro_batch: SizeOrZero = 0
    """Most demonstrations in memory at once; 0 for all."""
    dropout: ShareBelowOne = 0.0
    """Of the input embeddings, in supervised steps."""
    prompt_weight: NotNegative = 0.0
    """Weight of the targets that a task has on its prompts, beside those of the chain."""
    optimisation: Optimisation = field(default_factory=Optimisation)
    grpo: GRPOConfig = field(default_factory=GRPOConfig)


class CoT(Agent[CoTConfig]):
    """Thinks in tokens: the ordinary chain of thought."""

    name = "cot"
    families = ("token",)
    config_class = CoTConfig
    presets: ClassVar[dict[str, CoTConfig]] = {
        "greedy": CoTConfig(),
        "self-consistency": CoTConfig(samples=8, vote="majority", temperature=0.7, top_p=0.95),
        "sft-tiny": CoTConfig(dropout=0.05, optimisation=Optimisation(lr=3e-3, weight_decay=0.1)),
        "sft-lm": CoTConfig(batch_size=32, micro_batch=8, optimisation=Optimisation(lr=2e-5)),
        "grpo-tiny": CoTConfig(
            stage="grpo",
            optimisation=Optimisation(lr=3e-4, schedule="constant", warmup=0.0),
            grpo=GRPOConfig(
                prompts=128,
                micro_batch=256,
                advantage="group_norm_population",
                clip_low=0.1,
                clip_high=0.1,
            ),
        ),
        "grpo-lm": CoTConfig(
            stage="grpo",
            optimisation=Optimisation(lr=1e-6, weight_decay=0.0),
            grpo=GRPOConfig(prompts=8, group_size=8, micro_batch=8),
        ),
    }

    def check(self, rules: Protocol) -> None:
        self._check_samples()  # before a run trains what it could not evaluate

    def _check_samples(self) -> None:
        if self.config.samples > 1 and self.config.temperature == 0:
            raise UsageError("several greedy samples are all the same; set a temperature.")

    def policy(self, lm: LatentLM, *, acting: bool) -> rollout.Policy:
        c = self.config
        if acting:
            self._check_samples()
            return rollout.Policy(lm, heads.TokenHead(c.temperature, top_p=c.top_p))
        temperature = c.train_temperature if c.stage == "grpo" else 1.0
        return rollout.Policy(lm, heads.TokenHead(temperature))

    def recipe(self) -> Recipe:
        c = self.config
        sft = SupervisedConfig(
            c.batch_size, c.micro_batch, c.dropout, prompt_weight=c.prompt_weight
        )
        return Recipe(sft if c.stage == "sft" else c.grpo, c.optimisation)

    def samples_per_question(self) -> int:
        return self.config.samples

    def answering(self) -> Any:
        c = self.config
        return c.samples, c.vote if c.samples > 1 else None

    def choose(
        self, env: Any, index: int, episodes: rollout.Episodes, rows: npt.NDArray[np.int64]
    ) -> Answer:
        chosen = int(rows[0])
        if self.config.vote == "majority":
            # Rows without an answer do not vote; on a tie the answer that came first wins.
            parsed = [(episodes.infos[row]["parsed"], int(row)) for row in rows]
            votes = Counter(answer for answer, _ in parsed if answer)
            if votes:
                winner = votes.most_common(1)[0][0]
                chosen = next(row for answer, row in parsed if answer == winner)
        return make_answer(env.unwrapped.task, index, episodes, rows, chosen)
