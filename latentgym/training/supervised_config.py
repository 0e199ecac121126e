"""Settings of supervised training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from latentgym.errors import UsageError
from latentgym.system.options.ranges import (
    NotNegative,
    Share,
    ShareBelowOne,
    Size,
    SizeOrZero,
    check_ranges,
)
from latentgym.training.stage import MakeEnv

if TYPE_CHECKING:
    from latentgym.rollout import Policy
    from latentgym.training.supervised import Supervised


@dataclass(frozen=True)
class SupervisedConfig:
    """Settings of supervised training."""

    batch_size: Size = 64
    """Demonstrations per step."""
    micro_batch: SizeOrZero = 0
    """Most demonstrations in memory at once; 0 for all."""
    dropout: ShareBelowOne = 0.0
    """Of the input embeddings, see `supervised_loss`."""
    own_thoughts: Share = 0.0
    """Share of the demonstrations that are read with the policy's own thoughts in place of the
    targets, drawn anew at every step."""
    prompt_weight: NotNegative = 0.0
    """Of the loss of the targets that demonstrations have on their prompts."""
    latents: bool = False
    """Put thoughts of the policy's own before each demonstration, as many as an episode has; for
    tasks that demonstrate answers alone."""

    def validate(self) -> None:
        """Raise `UsageError` for settings that cannot work."""
        check_ranges(self)
        if self.latents and self.own_thoughts != 1:
            raise UsageError("latents are thoughts of the policy's own; set own_thoughts to 1.")

    def build(self, policy: Policy, make_env: MakeEnv, seed: int) -> Supervised:
        """The stage that trains this policy."""
        from latentgym.training.supervised import Supervised

        return Supervised(policy, make_env(1), self, seed)
