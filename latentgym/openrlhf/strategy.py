"""OpenRLHF's DeepSpeed strategy, with the parameter groups and the schedule of a job."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from latentgym.openrlhf.shim import install, rebound

install()

import deepspeed
import torch
from openrlhf.utils.deepspeed import DeepspeedStrategy
from openrlhf.utils.deepspeed import deepspeed as openrlhf_deepspeed
from torch import nn

from latentgym.openrlhf.job import Job
from latentgym.rollout import Policy


class Strategy(DeepspeedStrategy):  # type: ignore[misc]
    """What OpenRLHF sends to every worker.

    Args:
        args: OpenRLHF's arguments.
        job: what is to be done; it travels along.
    """

    def __init__(self, args: Any, job: Job) -> None:
        super().__init__(
            seed=args.train.seed,
            max_norm=args.actor.max_norm,
            micro_train_batch_size=args.train.micro_batch_size,
            train_batch_size=args.train.batch_size,
            zero_stage=args.ds.zero_stage,
            args=args,
        )
        self.job = job

    def _get_model_parameters(
        self, model: Any, *, optim: str | None = None, weight_decay: float = 0.0
    ) -> tuple[Policy, list[dict[str, Any]]]:
        """The policy's own groups: rates of its head's, and what does not decay."""
        policy: Policy = model.model
        groups = policy.parameter_groups(self.job.optimisation.lr)
        return policy, [{"weight_decay": weight_decay, **group} for group in groups]

    def _ds_init_train_model(self, model: Any, cfg: dict[str, Any]) -> Any:
        with rebound(openrlhf_deepspeed, get_scheduler=self._schedule):
            return super()._ds_init_train_model(model, cfg)

    def _schedule(self, name: str, optimizer: Any, **_: Any) -> Any:
        """The job's schedule in the place of transformers', whose first step has no rate."""
        job = self.job

        def factor(update: int) -> float:
            step = min(update // job.updates_per_step, job.steps - 1)
            return job.optimisation.factor(step, job.steps)

        return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)

    def get_ds_train_config(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        config: dict[str, Any] = super().get_ds_train_config(*args, **kwargs)
        if "optimizer" in config:
            # DeepSpeed's fused optimisers compile themselves at first use, for minutes.
            config["optimizer"]["params"]["torch_adam"] = True
        return config


def gathered(parameters: Iterable[nn.Parameter], stage: int) -> Any:
    """Within it, parameters are whole in every worker, which all must enter.

    They are spread at ZeRO stage 3 only.
    """
    return deepspeed.zero.GatheredParameters(list(parameters), enabled=stage == 3)
