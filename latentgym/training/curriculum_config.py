"""Settings of the curriculum."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from latentgym.episodes.protocol import Protocol
from latentgym.errors import UsageError
from latentgym.system.options.ranges import Share, Size, SizeOrZero, Steps
from latentgym.training.stage import MakeEnv
from latentgym.training.supervised_config import SupervisedConfig

if TYPE_CHECKING:
    from latentgym.rollout import Policy
    from latentgym.training.curriculum import Curriculum


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
    """Where to begin: 1 where the policy has learnt the whole token chain before."""
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
        from latentgym.training.curriculum import Curriculum

        return Curriculum(policy, env, replace(self, stages=stages), seed)
