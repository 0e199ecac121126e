"""Settings that every training run has."""

from __future__ import annotations

import math
from dataclasses import dataclass

from latentgym.errors import UsageError
from latentgym.system.options.ranges import NotNegative, Positive, Rate, ShareBelowOne, check_ranges

OPTIMIZERS = ("adamw", "soap", "adamw-8bit", "paged-adamw-8bit")
_CHOICE = f"{', '.join(OPTIMIZERS[:-1])} or {OPTIMIZERS[-1]}"


@dataclass(frozen=True)
class Optimisation:
    """How parameters move, whatever the loss."""

    lr: Rate = 1e-3
    """Peak learning rate of the model."""
    weight_decay: NotNegative = 0.01
    """Decoupled weight decay, of matrices alone: not of biases, norms, other vectors."""
    beta1: ShareBelowOne = 0.9
    """First-moment decay."""
    beta2: ShareBelowOne = 0.999
    """Second-moment decay."""
    eps: Positive = 1e-8
    """Added to the root of the second moment; larger values move rare directions less."""
    optimizer: str = "adamw"
    """adamw; soap: Adam in the eigenbasis of Shampoo's preconditioner (extra soap); adamw-8bit or
    paged-adamw-8bit: with states in 8 bits, paged ones out to the host (extra bitsandbytes)."""
    max_grad_norm: NotNegative = 1.0
    """Gradients are scaled down to this norm; 0 leaves them."""
    schedule: str = "cosine"
    """Learning rate after warm-up: constant, linear or cosine (both to zero)."""
    warmup: ShareBelowOne = 0.05
    """Share of the steps over which the learning rate rises from zero."""

    def validate(self) -> None:
        """Raise `UsageError` for settings that cannot work."""
        check_ranges(self, "optimisation.")
        if self.schedule not in ("constant", "linear", "cosine"):
            raise UsageError(f"no schedule {self.schedule!r}; choose constant, linear or cosine.")
        if self.optimizer not in OPTIMIZERS:
            raise UsageError(f"no optimizer {self.optimizer!r}; choose {_CHOICE}.")

    def lengthened(self, before: int, steps: int) -> str:
        """What it means for a run of `before` steps to go on as one of `steps`, as a sentence."""
        if self.schedule == "constant" and not self.warmup:
            return f"the run was of {before} steps and is now of {steps}."
        return (
            f"the run was of {before} steps and is now of {steps}: its learning rate goes on as in "
            f"a run of {steps} steps (warm-up {self.warmup:g}, then {self.schedule}), so it is not "
            "the run that would have been that long from the start."
        )

    def factor(self, step: int, steps: int) -> float:
        """Learning rate of a step (0-based) as a share of the peak."""
        warm = round(self.warmup * steps)
        if step < warm:
            return (step + 1) / warm
        if self.schedule == "constant":
            return 1.0
        done = (step - warm) / max(1, steps - warm)
        return 1 - done if self.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * done))
