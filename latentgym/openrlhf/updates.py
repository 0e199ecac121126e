"""OpenRLHF's updates of a policy, with the means and the metrics of the local backend.

Legend: B rows, A positions that may be scored.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from latentgym.openrlhf.shim import install, rebound

install()

from openrlhf.trainer.ray import ppo_actor
from torch import Tensor

from latentgym.openrlhf.samples import thoughts_of
from latentgym.training.losses import action_weights, masked_mean


class ActorTrainer(ppo_actor.ActorPPOTrainer):  # type: ignore[misc]
    """OpenRLHF's trainer of an actor, whose divergence has the mean of the loss.

    OpenRLHF knows means over tokens and over rows; all others are weights on the mean over rows,
    which advantages carry already. The divergence OpenRLHF averages over tokens whatever the loss.
    """

    def training_step(
        self, experience: Any, kl_ctl: float, step: int, loss_batch_info: Any = None
    ) -> Any:
        c, mask_BA = self.strategy.job.grpo, experience.action_mask.bool()
        mean, self.actor.entropy_gradient = c.mean, c.entropy > 0
        weights = action_weights(thoughts_of(experience), mask_BA, mean)
        per_action: list[Tensor] = []
        lr = self.actor_scheduler.get_last_lr()[0]
        estimate = ppo_actor.compute_approx_kl

        def divergence(*args: Any, **kwargs: Any) -> Tensor:
            kl_BA: Tensor = estimate(*args, **kwargs)
            per_action.append(masked_mean(kl_BA.detach(), mask_BA))
            return kl_BA * weights

        aggregate = partial(ppo_actor.aggregate_loss, token_level_loss=mean == "token")
        with rebound(ppo_actor, compute_approx_kl=divergence, aggregate_loss=aggregate):
            status: dict[str, Any] = super().training_step(
                experience, kl_ctl, step, loss_batch_info
            )
        metrics, weighed_by = status["metrics"], status["weights"]
        metrics["actor_lr"] = lr  # of this update; OpenRLHF tells that of the next
        if per_action:
            # What is minimised, divergence and all; and the divergence of an action.
            metrics["policy_loss"] = metrics["policy_loss"] + kl_ctl * metrics["kl"]
            (metrics["kl"],) = per_action
        metrics["policy_loss"] = metrics["policy_loss"] - c.entropy * metrics["entropy_loss"]
        # Micro-batches have equally many rows, and their losses are parts of one mean already.
        weighed_by["policy_loss"] = weighed_by["entropy_loss"] = "sample"
        return status
