"""The curriculum of Coconut: step by step, latents take the place of reasoning in words.

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

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from latentgym.episodes.protocol import Protocol
from latentgym.episodes.rng import CounterRNG, derive
from latentgym.errors import UsageError
from latentgym.options.ranges import Share, Size, SizeOrZero, Steps
from latentgym.rollout import Policy
from latentgym.training.latents import with_latents
from latentgym.training.stage import MakeEnv, Metrics, Update
from latentgym.training.supervised import Supervised, SupervisedConfig

_LOOKED_AT = 16


@dataclass(frozen=True)
class CurriculumConfig(SupervisedConfig):
    """Settings of the curriculum."""

    own_thoughts: Share = 1.0
    """Always 1: a latent has no target that could be read."""
    c: SizeOrZero = 1
    """Latents in the place of each step of the reasoning; 0 for none."""
    stages: Size | None = None
    """How many steps latents take the place of, one more at each stage; None for as many as the
    environment's thoughts allow."""
    steps_per_stage: Steps = 1000
    """Training steps of each stage."""
    first_stage: SizeOrZero = 0
    """Where to begin: 1 where the policy has learnt the whole chain in words before."""
    mix: Share = 0.0
    """Share of the demonstrations that are of any stage up to the present one, drawn anew at every
    step."""

    def validate(self) -> None:
        super().validate()
        if self.own_thoughts != 1:
            raise UsageError(
                "a curriculum's latents are the policy's own; leave own_thoughts at 1."
            )

    def check(self, rules: Protocol) -> None:
        """Whether an episode thinks as often as the last stage does.

        Raises:
            UsageError: it does not, or something else than the rest of the chain comes after.
        """
        thoughts = rules.think.steps
        if not self.c:
            fits, made, think = thoughts == 0, "no latents", "0"
        elif self.stages is None:
            fits = thoughts > 0 and thoughts % self.c == 0
            made = f"{self.c} latents for each stage"
            think = "STAGES" if self.c == 1 else f"{self.c}*STAGES"
        else:
            fits = thoughts == self.stages * self.c
            made = f"{self.c} latents for each of {self.stages} stages"
            think = str(self.stages * self.c)
        if not rules.think.exact or rules.forced_prompt:
            raise UsageError(
                "latents come in a fixed number and the rest of the chain follows in tokens; "
                f"set -o exact_thoughts=true -o think={think}."
            )
        if not fits:
            raise UsageError(
                f"{made} do not make the {thoughts} thoughts of this environment; set "
                f"-o think={think}, or choose other stages."
            )

    def build(self, policy: Policy, make_env: MakeEnv, seed: int) -> Curriculum:
        """The stage that trains this policy."""
        self.validate()
        rules = make_env(1).unwrapped.task.protocol()
        self.check(rules)
        stages = self.stages
        if stages is None:
            if not self.c:
                raise UsageError(
                    "without latents the environment does not tell the number of stages; set "
                    "--stages."
                )
            stages = rules.think.steps // self.c
        # An environment that does not think may demonstrate no chain either.
        env = make_env(1) if self.c else make_env(1, think=None)
        return Curriculum(policy, env, replace(self, stages=stages), seed)


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
        # Latents may take more places than the words that they stand for.
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
            mixed, which = rng.uniform(2)[0]
            stage = int(which * (stage + 1)) if mixed < self.config.mix else stage
        steps = stage if stage <= self.stages else len(demonstration.steps)
        return with_latents(demonstration, min(stage, self.stages) * self.config.c, steps)
