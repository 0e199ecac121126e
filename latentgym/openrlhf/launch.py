"""Carry out a job: a Ray cluster, OpenRLHF's groups of workers, its trainer, the final weights."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from latentgym.cluster import connected, failures
from latentgym.openrlhf.job import Job
from latentgym.progress import progress_bar
from latentgym.training.logs import JsonLines


def train(job: Job) -> dict[str, float]:
    """Train to the end; the metrics of the last step.

    Weights and manifest are then in `job.out/checkpoints`, in the library's own form; OpenRLHF's
    (DeepSpeed's) checkpoints, to resume from, in `job.out/deepspeed`.

    Raises:
        UsageError: OpenRLHF is missing, or the cluster too small.
        ClusterError: something failed on the cluster.
    """
    workers = job.cluster.workers
    alone = job.grpo.kl == 0 or job.cluster.colocate
    with connected(
        workers if alone else 2 * workers,
        address=job.cluster.ray_address,
        object_store_mb=job.cluster.object_store_mb,
    ):
        session = Session(job)
        session.fit()
        session.save()
        return session.last


class Session:
    """Workers and trainer of a job on the connected cluster."""

    def __init__(self, job: Job) -> None:
        os.environ["TQDM_DISABLE"] = "1"  # there is one bar, ours
        from latentgym.openrlhf.shim import install

        install()
        import ray
        from openrlhf.trainer.ray.launcher import RayActorGroup

        from latentgym.openrlhf.arguments import arguments
        from latentgym.openrlhf.strategy import Strategy
        from latentgym.openrlhf.trainer import Trainer
        from latentgym.openrlhf.workers import RemotePolicy, RemoteReference

        self.job, self.last = job, dict[str, float]()
        args = arguments(job)
        strategy = Strategy(args, job)
        nodes, gpus = job.cluster.nodes, job.cluster.gpus
        shared = _shared_bundles(job) if args.train.colocate_actor_ref else None

        def group(kind: Any) -> Any:
            share = 1 if shared is None else 0.2
            return RayActorGroup(nodes, gpus, kind, pg=shared, num_gpus_per_actor=share)

        kinds = [RemotePolicy] if job.grpo.kl == 0 else [RemotePolicy, RemoteReference]
        with ThreadPoolExecutor() as pool:  # a group waits for its first worker's imports
            self.policies, *rest = pool.map(group, kinds)
        reference = rest[0] if rest else None
        self.trainer = Trainer(job, strategy, self.policies, reference, self._on_step)
        refs = self.policies.async_init_model_from_pretrained(
            strategy, "latentgym", self.trainer.get_max_steps(), None
        )
        if reference is not None:
            refs += reference.async_init_model_from_pretrained(strategy, "latentgym")
        ray.get(refs)

    def fit(self) -> None:
        """Train; metrics go to `metrics.jsonl` and TensorBoard, progress to the terminal."""
        job = self.job
        job.out.mkdir(parents=True, exist_ok=True)
        first = self.trainer.init_checkpoint_states()["global_step"] if job.resume else 0
        self._log = JsonLines(job.out / "metrics.jsonl", first)
        try:
            with progress_bar("training", job.steps, first) as self._advance, failures():
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

    def _on_step(self, step: int, metrics: dict[str, float]) -> None:
        self._log.write(step, metrics)
        if "reward/score" in metrics:
            self.last = metrics
            self._advance(1, f"score {metrics['reward/score']:.3f}")


def _shared_bundles(job: Job) -> Any:
    import ray
    from ray.util.placement_group import placement_group

    bundles = placement_group([{"GPU": 1, "CPU": 1}] * job.cluster.workers, strategy="PACK")
    ray.get(bundles.ready())
    return bundles
