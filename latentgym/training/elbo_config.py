"""Settings of the evidence lower bound of latent states."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from latentgym.system.options.ranges import NotNegative, Positive, Size, SizeOrZero, check_ranges
from latentgym.training.stage import MakeEnv

if TYPE_CHECKING:
    from latentgym.rollout import Policy
    from latentgym.training.elbo import ELBO


@dataclass(frozen=True)
class ELBOConfig:
    """Settings of the stage."""

    batch_size: Size = 32
    """Demonstrations per step."""
    micro_batch: SizeOrZero = 0
    """Most demonstrations in memory at once; 0 for all."""
    kl_weight: NotNegative = 1.0
    """Of the divergence from the transition model; at 1 the loss is the bound itself."""
    relaxation: Positive = 1.0
    """Temperature of the softmax through which gradients of drawn states reach the encoder."""

    def validate(self) -> None:
        """Raise `UsageError` for settings that cannot work."""
        check_ranges(self)

    def build(self, policy: Policy, make_env: MakeEnv, seed: int) -> ELBO:
        """The stage that trains this policy."""
        from latentgym.training.elbo import ELBO

        return ELBO(policy, make_env(1), self, seed)
