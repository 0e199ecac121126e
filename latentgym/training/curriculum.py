"""The curriculum of Coconut: step by step, latents take the place of reasoning in text.

"Training Large Language Models to Reason in a Continuous Latent Space" (arXiv 2412.06769),
section 3. At stage s the first s steps of a demonstration's reasoning are left out, and c latents
for each of them are read in their place; what remains, the answer included, is learnt as ever.
Behind the last of these stages comes one more, in which all that remains of the reasoning is left
out.

The latents are the policy's own, made one by one behind a cache through which the gradient runs;
what remains is read in one pass. With c = 0 nothing takes the steps' place, which is the control
without thoughts.

Legend: T steps, S support of a target.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from latentgym.episodes.rng import derive
from latentgym.errors import UsageError
from latentgym.heads.rng import CounterRNG
from latentgym.rollout import Policy
from latentgym.training.curriculum_config import CurriculumConfig
from latentgym.training.latents import with_latents
from latentgym.training.stage import Metrics, Update
from latentgym.training.supervised import Supervised

_LOOKED_AT = 16


class Curriculum(Supervised):
    """Latents in the place of ever more steps of the reasoning.

    Args:
        policy: its head makes the latents.
        env: gives demonstrations that say where the steps of their reasoning are.
        config: settings; `stages` must be known.
        seed: of the order, the dropout, the head's random numbers and the mixture of stages.

    Raises:
        UsageError: settings that cannot work, or demonstrations without steps.
    """

    config: CurriculumConfig

    def __init__(self, policy: Policy, env: Any, config: CurriculumConfig, seed: int = 0) -> None:
        super().__init__(policy, env, config, seed)
        if config.stages is None:
            raise UsageError("a curriculum has a number of stages; set it.")
        self.stages = config.stages
        some = range(min(_LOOKED_AT, len(self.demonstrations)))
        if not any(self.demonstrations.item(i)[1].steps for i in some):
            raise UsageError(
                "the demonstrations of this task have no steps that latents could take the place "
                "of; choose one whose chains do, such as GSM8KAug, MNNS or ProsQA."
            )

    def positions(self, question: int) -> int:
        first, last = self.config.first_stage, self.stages
        shown = self.demonstrations.item(question)[1]
        steps = np.cumsum([0, *shown.steps[:last]])
        # Latents may take more places than the tokens that they stand for.
        longer = [
            min(s, last) * self.config.c - steps[min(s, len(steps) - 1)]
            for s in range(0 if self.config.mix else first, last + 2)
        ]
        return self.demonstrations.positions(question) + int(max(longer))

    def step(self, number: int, update: Update) -> Metrics:
        return {**super().step(number, update), "train/stage": float(self.stage(number))}

    def stage(self, number: int) -> int:
        """The stage of a training step, at most `stages` + 1."""
        reached = self.config.first_stage + number // self.config.steps_per_stage
        return min(reached, self.stages + 1)

    def shown(self, number: int, index: int, demonstration: Any) -> Any:
        stage = self.stage(number)
        if self.config.mix:
            one = np.zeros(1, dtype=np.int64)
            rng = CounterRNG.at(derive(self.seed, number, 5), one + index, one, one)
            mixed, which = rng.uniform(2)[0].tolist()
            stage = int(which * (stage + 1)) if mixed < self.config.mix else stage
        steps = stage if stage <= self.stages else len(demonstration.steps)
        return with_latents(demonstration, min(stage, self.stages) * self.config.c, steps)
