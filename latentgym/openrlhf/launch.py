"""Carry out a job: a Ray cluster, OpenRLHF's groups of workers, its trainer, the final weights."""

from __future__ import annotations

import math
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latentgym.cluster.connection import connected, failures
from latentgym.errors import CheckpointError, Notice, TrainingError, require_same
from latentgym.evaluation.results import METRICS
from latentgym.openrlhf.job import ClusterOptions, Job
from latentgym.progress import progress_bar
from latentgym.registry import current_run
from latentgym.storage import atomic_write, to_json, writable
from latentgym.system.sealed import read_sealed, sealed
from latentgym.training.logs import JsonLines

RESUME = "Go on with --resume."
_FINITE = ("train/loss", "train/grad_norm", "reward/score")
_OPTIMISER = 2  # which groups of parameters it has, in which precision: DeepSpeed does not say


def train(job: Job) -> dict[str, float]:
    """Train to the end; the metrics of the last step.

    Weights and manifest are then in `job.out/checkpoints`, in the library's own form; OpenRLHF's
    (DeepSpeed's) checkpoints, to resume from, in `job.out/deepspeed`.

    Raises:
        UsageError: OpenRLHF is missing, or the cluster too small.
        ClusterError: something failed on the cluster.
    """
    from latentgym.openrlhf.shim import install

    install()
    _ = job.order  # what the model cannot read is told before a cluster is started
    _remember(job)
    workers, cluster = job.cluster.workers, job.cluster
    alone = job.grpo.kl == 0 or cluster.colocate
    with connected(
        workers if alone else 2 * workers,
        option="--gpus",
        afterwards=RESUME,
        address=cluster.ray_address,
        object_store_mb=cluster.object_store_mb,
    ):
        session = Session(job, Workers.start(cluster, reference=job.grpo.kl > 0))
        session.fit()
        session.save()
        return session.last


@dataclass(frozen=True)
class Workers:
    """OpenRLHF's groups of workers; they can carry out one job after the other.

    Attributes:
        policies: roll out, score and train.
        reference: score with the policy that the run began with, or None.
    """

    policies: Any
    reference: Any

    @classmethod
    def start(cls, cluster: ClusterOptions, *, reference: bool) -> Workers:
        """Start them on the connected cluster."""
        from openrlhf.trainer.ray.launcher import RayActorGroup

        from latentgym.openrlhf.workers import RemotePolicy, RemoteReference

        shared = _bundles(cluster.workers) if cluster.colocate and reference else None

        def group(kind: Any) -> Any:
            share = 1 if shared is None else 0.2
            return RayActorGroup(
                cluster.nodes, cluster.gpus, kind, pg=shared, num_gpus_per_actor=share
            )

        kinds: list[Any] = [RemotePolicy, RemoteReference] if reference else [RemotePolicy]
        with ThreadPoolExecutor() as pool:  # a group waits for its first worker's imports
            policies, *others = pool.map(group, kinds)
        return cls(policies, others[0] if others else None)


class Session:
    """A job on its workers, with OpenRLHF's trainer in this process.

    Args:
        job: what is to be done.
        workers: who does it.

    Attributes:
        last: metrics of the last step.
    """

    def __init__(self, job: Job, workers: Workers) -> None:
        from latentgym.openrlhf.arguments import arguments
        from latentgym.openrlhf.strategy import Strategy
        from latentgym.openrlhf.trainer import Trainer

        self.job, self.last = job, dict[str, float]()
        self.policies = workers.policies
        reference = workers.reference if job.grpo.kl else None
        strategy = Strategy(arguments(job), job)
        self.trainer = Trainer(job, strategy, self.policies, reference, self._on_step)
        with failures(RESUME):
            self._start(strategy, reference)

    def _start(self, strategy: Any, reference: Any) -> None:
        """Have the workers load what they work with; an error of theirs is a sentence."""
        import ray

        started = self.policies.async_init_model_from_pretrained(
            strategy, "latentgym", self.trainer.get_max_steps(), None
        )
        if reference is not None:
            started += reference.async_init_model_from_pretrained(strategy, "latentgym")
        ray.get(started)

    def fit(self) -> None:
        """Train; metrics go to `metrics.jsonl` and TensorBoard, progress to the terminal."""
        job = self.job
        job.out.mkdir(parents=True, exist_ok=True)
        first = self.trainer.init_checkpoint_states()["global_step"] if job.resume else 0
        self._stepped = time.monotonic()
        self._log = JsonLines(job.out / METRICS, first)
        try:
            with progress_bar("training", job.steps, first) as self._advance, failures(RESUME):
                self.trainer.fit()
        finally:
            self._log.close()

    def save(self) -> Path:
        """Write the final weights; the folder of the run."""
        import ray

        ray.get(self.policies.async_save_model())
        return self.job.out

    def weights(self) -> list[dict[str, Any]]:
        """The policy's weights as each worker has them."""
        import ray

        found: list[dict[str, Any]] = ray.get(self.policies.async_run_method("weights"))
        return found

    def memory_mb(self) -> list[float]:
        """The most memory that each policy worker has had, MiB."""
        import ray

        return [float(mb) for mb in ray.get(self.policies.async_run_method("memory_mb"))]

    def _on_step(self, step: int, metrics: dict[str, float]) -> None:
        told = {name: metrics[name] for name in _FINITE if name in metrics}
        if not all(map(math.isfinite, told.values())):
            numbers = ", ".join(f"{name} is {value:g}" for name, value in told.items())
            raise TrainingError(
                f"training stopped at step {step}: {numbers}; the checkpoint before it is the last "
                "good one. A lower --optimisation.lr often helps."
            )
        if "reward/score" in metrics:
            now = time.monotonic()
            metrics["train/steps_per_second"] = 1 / (now - self._stepped)
            self._stepped, self.last = now, metrics
            self._advance(1, f"score {metrics['reward/score']:.3f}")
        self._log.write(step, metrics)


def _remember(job: Job) -> None:
    """Write down what the run is, or when it is resumed, check that it is the same."""
    path = job.out / "run.json"
    asked = {**job.identity, "steps": job.steps, "optimiser": _OPTIMISER}
    lengths: list[dict[str, int]] = []
    if job.resume and path.exists():
        try:
            stored, _ = read_sealed(path)
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{path} is damaged ({error}); train again.") from error
        if stored.get("optimiser") != _OPTIMISER:
            raise CheckpointError(
                f"{job.out} was started by a version whose optimiser had other groups of "
                "parameters, so it cannot be resumed; train again, or install the version that "
                "began it."
            )
        before, lengths = stored.pop("steps"), stored.pop("lengths", [])
        require_same(current_run(stored), {k: v for k, v in asked.items() if k != "steps"}, job.out)
        if before == job.steps:
            return
        lengths.append({"from": before, "to": job.steps})
        warnings.warn(job.optimisation.lengthened(before, job.steps), Notice, stacklevel=3)
    with writable(job.out):
        job.out.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as partial:
            record = sealed({**asked, "lengths": lengths})
            partial.write_text(to_json(record, indent=2) + "\n")


def _bundles(workers: int) -> Any:
    """Room for one policy and one reference worker on each of so many GPUs."""
    import ray
    from ray.util.placement_group import placement_group

    bundles = placement_group([{"GPU": 1, "CPU": 1}] * workers, strategy="PACK")
    ray.get(bundles.ready())
    return bundles
