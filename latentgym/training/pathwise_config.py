"""Settings of the policy gradient through thoughts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from latentgym.errors import UsageError
from latentgym.system.options.ranges import (
    NotNegative,
    Share,
    Size,
    SizeOrZero,
    check_ranges,
    check_rows,
)
from latentgym.training.grpo_config import CLEAN, check_advantage
from latentgym.training.stage import MakeEnv

if TYPE_CHECKING:
    from latentgym.rollout import Policy
    from latentgym.training.pathwise import Pathwise


@dataclass(frozen=True)
class PathwiseConfig:
    """Settings of the policy gradient through thoughts."""

    prompts: Size = 32
    """Questions per step."""
    group_size: Size = 8
    """Chains of thought per question."""
    updates: Size = 1
    """Optimiser steps per batch of chains; with one, every ratio is 1."""
    micro_batch: Size = 64
    """Most rows in memory at once, but no less than a group."""
    advantage: str = CLEAN
    """Estimator: clean_batch (LatentR3: the baseline is the mean reward of the first chain of each
    group, which has no noise), or any of GRPO's."""
    baseline_prompts: SizeOrZero = 0
    """Questions that share a baseline and a norm; 0 for all of a step. The authors' two GPUs make
    it 2."""
    clip_low: Share = 0.2
    """How far a ratio may fall below one."""
    clip_high: NotNegative = 0.28
    """How far a ratio may rise above one."""

    def validate(self) -> None:
        """Raise `UsageError` for settings that cannot work."""
        check_ranges(self, "rl.")
        if self.group_size < 2:
            raise UsageError("--rl.group-size must be at least 2: one row has no advantage.")
        check_rows(self.rows)
        check_advantage(self.advantage)
        if self.baseline_prompts < 0 or self.prompts % (self.baseline_prompts or self.prompts):
            raise UsageError(
                f"--rl.baseline-prompts is {self.baseline_prompts}, which does not divide the "
                f"{self.prompts} questions of a step."
            )

    @property
    def rows(self) -> int:
        """Chains per step."""
        return self.prompts * self.group_size

    def build(self, policy: Policy, make_env: MakeEnv, seed: int) -> Pathwise:
        """The stage that trains this policy."""
        from latentgym.training.pathwise import Pathwise

        return Pathwise(policy, make_env(1), self, seed)
