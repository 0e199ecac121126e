"""OpenRLHF's updates of a policy, with the means and the metrics of the local backend.

Legend: B rows, T positions, J parts of a thought, A places that may be scored, see
`latentgym.openrlhf.parts`.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from latentgym.openrlhf.shim import install, rebound

install()

from openrlhf.models import loss as losses
from openrlhf.models.loss import aggregate_loss
from openrlhf.trainer.ray import ppo_actor
from torch import Tensor

from latentgym.heads.distributions import masked
from latentgym.openrlhf.parts import actions_of, over_actions, places, positions
from latentgym.training.losses import action_weights, masked_mean


class ActorTrainer(ppo_actor.ActorPPOTrainer):  # type: ignore[misc]
    """OpenRLHF's trainer of an actor, whose divergence has the mean of the loss.

    OpenRLHF knows means over tokens and over rows; all others are weights on the mean over rows,
    which advantages carry already. The divergence OpenRLHF averages over tokens whatever the loss.
    """

    def ppo_train(self, kl_ctl: float) -> Any:
        normalised = ppo_actor.iter_grad_accum_global_norm

        def by_action(items: Any, strategy: Any, steps: int, mask_of: Any) -> Any:
            def acted_BT(item: Any) -> Tensor:
                return positions(mask_of(item), self.parts).any(-1)

            return normalised(items, strategy, steps, acted_BT)

        with rebound(ppo_actor, iter_grad_accum_global_norm=by_action):
            return super().ppo_train(kl_ctl)

    @property
    def parts(self) -> int:
        """J of the policy's head."""
        return len(self.actor.policy.head.part_weights)

    def training_step(
        self, experience: Any, kl_ctl: float, step: int, loss_batch_info: Any = None
    ) -> Any:
        c, actions = self.strategy.job.grpo, actions_of(experience)
        mean, self.actor.entropy_gradient = c.mean, c.entropy > 0
        in_mean = action_weights(actions.thought_BT, actions.acted_BT, mean)
        weight_BA = places(actions.weight_BTJ * in_mean[..., None])
        per_action: list[Tensor] = []
        lr = self.actor_scheduler.get_last_lr()[0]
        estimate = ppo_actor.compute_approx_kl

        def divergence(*args: Any, **kwargs: Any) -> Tensor:
            kl_BA: Tensor = estimate(*args, **kwargs)
            kl_BTJ = positions(kl_BA.detach(), self.parts) * actions.weight_BTJ
            kl_BT = masked(kl_BTJ, actions.part_BTJ).sum(-1)
            per_action.append(masked_mean(kl_BT, actions.acted_BT))
            return kl_BA * weight_BA

        aggregate = over_actions(aggregate_loss, self.parts)
        here = partial(aggregate, token_level_loss=mean == "token")
        with (
            rebound(losses, aggregate_loss=aggregate),
            rebound(ppo_actor, compute_approx_kl=divergence, aggregate_loss=here),
        ):
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
