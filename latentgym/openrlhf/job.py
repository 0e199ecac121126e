"""What the workers carry out, as data that is sent to each of them. Needs no ray, no OpenRLHF."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from latentgym.episodes.rng import derive
from latentgym.errors import UsageError
from latentgym.system.options.ranges import Size, Steps
from latentgym.training import GRPOConfig, Optimisation, Order
from latentgym.training.grpo_config import MASK

if TYPE_CHECKING:
    from latentgym.rollout import Policy


@dataclass(frozen=True)
class ClusterOptions:
    """Where OpenRLHF trains, and how the model is spread."""

    gpus: Size = 1
    """Policy workers per machine, one GPU each; on machines without GPUs, processes on the CPU."""
    nodes: Size = 1
    """Machines."""
    zero: Literal[0, 1, 2, 3] = 2
    """DeepSpeed's ZeRO stage: 1 spreads optimiser states, 2 gradients too, 3 weights too."""
    colocate: bool = False
    """Let policy and reference share the GPUs."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass instead of keeping them."""
    ray_address: str | None = None
    """Join this Ray cluster (auto for the one of this machine); none starts one of its own."""
    object_store_mb: Steps = 200
    """Shared memory of an own cluster, in MiB; what does not fit goes to disk."""

    @property
    def workers(self) -> int:
        """Policy workers in all."""
        return self.gpus * self.nodes


class Runnable(Protocol):
    """What a job runs; `latentgym.agents.run.Run` is one. It must be picklable."""

    @property
    def seed(self) -> int:
        """Of fresh weights, of order and random numbers."""
        ...

    def learner(self) -> Policy:
        """The policy that learns, with the weights to begin with."""
        ...

    def acting(self, learner: Policy) -> Policy:
        """The policy that answers with what a learner has learnt."""
        ...

    @property
    def max_positions(self) -> int | None:
        """The longest sequence that the model can read, if it has a limit."""
        ...

    @property
    def stores_adapters(self) -> bool:
        """Whether checkpoints leave out the model's weights that are not trained."""
        ...

    def make_env(self, num_envs: int, **more: Any) -> Any:
        """A vector environment."""
        ...


@dataclass(frozen=True)
class Job:
    """One training run through OpenRLHF.

    Attributes:
        run: builds policies and environments.
        grpo, optimisation: as for the local backend.
        steps: rollouts in all.
        out: folder of the run.
        cluster: where.
        identity: what the run is; a resumed run must be the same.
        save_every: steps between checkpoints; 0 for the last alone.
        resume: go on from the newest checkpoint.
        eval_every: steps between evaluations during training; 0 for none.
        eval_split, eval_limit: what is evaluated then.
        skip_long: leave out questions that the model cannot read; refused otherwise.

    Raises:
        UsageError: workers, questions and micro-batches do not divide, or there is no such
            optimiser here.
    """

    run: Runnable
    grpo: GRPOConfig
    optimisation: Optimisation
    steps: int
    out: Path
    cluster: ClusterOptions
    identity: dict[str, Any]
    save_every: int = 0
    resume: bool = False
    eval_every: int = 0
    eval_split: str = "test"
    eval_limit: int | None = None
    skip_long: bool = False

    def __post_init__(self) -> None:
        self.grpo.validate()
        self.optimisation.validate()
        if self.optimisation.optimizer != "adamw":
            raise UsageError(
                f"DeepSpeed trains with AdamW, not with {self.optimisation.optimizer}; leave out "
                "--optimisation.optimizer, or use --backend local."
            )
        workers, c = self.cluster.workers, self.grpo
        if c.loss == "cispo" or (c.loss == "gspo" and c.mean != "sequence"):
            raise UsageError(
                f"OpenRLHF has no --grpo.loss {c.loss} with --grpo.mean {c.mean}; it has clip, "
                "dual_clip, and gspo with --grpo.mean sequence. --backend local has all."
            )
        if c.dynamic_sampling:
            raise UsageError(
                "OpenRLHF draws groups again without a bound, and from the questions of later "
                "steps; leave out --grpo.dynamic-sampling, or use --backend local."
            )
        if c.kl_in == "reward" or c.reference_every:
            raise UsageError(
                "OpenRLHF measures the divergence here from the starting policy, and in the loss; "
                "leave out --grpo.kl-in and --grpo.reference-every, or use --backend local."
            )
        if c.entropy and c.mean not in ("token", "sequence"):
            raise UsageError(
                f"OpenRLHF has no --grpo.entropy with --grpo.mean {c.mean}; it has it with token "
                "and sequence. --backend local has all."
            )
        if c.truncated == MASK:
            raise UsageError(
                "OpenRLHF has the loss of all episodes; leave out --grpo.truncated mask, or use "
                "--backend local."
            )
        if min(self.cluster.gpus, self.cluster.nodes) < 1:
            raise UsageError("--gpus and --nodes must be at least 1.")
        # A worker with fewer micro-batches than the others would leave them waiting for an hour.
        if c.prompts % workers or (c.rows // c.mini_batches) % workers:
            raise UsageError(
                f"{c.prompts} questions a step (in {c.mini_batches} mini-batches of "
                f"{c.rows // c.mini_batches} episodes) do not divide among {workers} workers; make "
                "--grpo.prompts a multiple of --gpus times --nodes."
            )

    @cached_property
    def order(self) -> Order:
        """The questions of each step.

        Raises:
            UsageError: the model cannot read some of them, or settings do not fit the budgets.
        """
        env = self.run.make_env(1).unwrapped
        self.grpo.check_budgets(env.protocol)
        order = Order(env.n_questions, self.grpo.prompts, derive(self.run.seed, 3))

        def positions(question: int) -> int:
            return len(env.prompt(question)) + int(env.protocol.max_steps)

        order.fit(self.steps, positions, self.run.max_positions, skip_long=self.skip_long)
        return order

    @property
    def micro_batch(self) -> int:
        """Most rows of a worker at once: the largest divisor of its share that fits."""
        share = self.grpo.rows // self.grpo.mini_batches // self.cluster.workers
        fitting = range(1, min(share, self.grpo.micro_batch) + 1)
        return max(size for size in fitting if share % size == 0)

    @property
    def updates_per_step(self) -> int:
        """Optimiser steps per rollout."""
        return self.grpo.updates * self.grpo.mini_batches
