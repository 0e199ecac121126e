"""An update for tests of training stages: it looks at losses and gradients, and moves nothing."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn


class GradientRecorder:
    """Stands in for the optimiser's step: `stage.step(0, GradientRecorder(policy))`.

    Args:
        policy: whose gradients are looked at.

    Attributes:
        losses: of each micro-batch, detached.
    """

    def __init__(self, policy: nn.Module) -> None:
        self.policy = policy
        self.losses: list[Tensor] = []

    def __call__(self, losses: Iterable[Tensor]) -> float:
        self.policy.zero_grad()
        for loss in losses:
            loss.backward()  # type: ignore[no-untyped-call]
            self.losses.append(loss.detach())
        return 0.0

    @property
    def gradients(self) -> dict[str, Tensor]:
        """Of all parameters that have one, by name."""
        return {n: p.grad.clone() for n, p in self.policy.named_parameters() if p.grad is not None}

    @property
    def lm_gradients(self) -> list[Tensor]:
        """Of the parameters of the policy's language model alone, in their order."""
        parameters = self.policy.get_submodule("lm").parameters()
        return [p.grad.clone() for p in parameters if p.grad is not None]
