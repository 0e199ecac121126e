"""Ray workers: OpenRLHF's policy and reference workers, with policies and environments of ours."""

from __future__ import annotations

import resource
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from latentgym.openrlhf.shim import install, plain, rebound

install()

import ray
import torch
from openrlhf.trainer.ray import launcher, ppo_actor

from latentgym.episodes.rng import derive
from latentgym.lm.mode import mode
from latentgym.openrlhf.actor import PolicyActor
from latentgym.openrlhf.job import Job
from latentgym.openrlhf.samples import StepRow, responses
from latentgym.openrlhf.strategy import gathered
from latentgym.openrlhf.updates import ActorTrainer
from latentgym.rollout import Engine, Policy, collect, latent_statistics
from latentgym.training import checkpoint
from latentgym.training.grpo_config import PENALTY
from latentgym.training.overlong import penalised
from latentgym.training.rewards import load_rewards


def _stands_for_actor(make: Callable[[], Policy]) -> Any:
    """What stands for OpenRLHF's `Actor(path, ...)`: a policy of ours, however it asks for it."""
    return lambda *_, **__: PolicyActor(make())


class PolicyWorker(plain(ppo_actor.PolicyModelActor)):  # type: ignore[misc]
    """Rolls out, scores and trains."""

    def init_model_from_pretrained(
        self, strategy: Any, pretrain: str, max_steps: int | None = None, vllm_engines: Any = None
    ) -> None:
        self.job: Job = strategy.job
        actor = _stands_for_actor(self.job.run.learner)
        with rebound(
            ppo_actor,
            Actor=actor,
            ActorPPOTrainer=ActorTrainer,
            get_tokenizer=lambda *_, **__: None,
        ):
            super().init_model_from_pretrained(strategy, pretrain, max_steps, vllm_engines)
        self._envs: dict[bool, Any] = {}
        self._rewards = load_rewards(self.job.grpo.rewards, self.job.grpo.completions)
        if self._rewards is not None:
            self._rewards.check(self._env(1, learning=True).unwrapped.task)
        # Spread weights cannot decode step by step: the workers' steps would have to agree.
        self._replica = self.job.run.learner() if strategy.stage == 3 else None

    def rollout(self, rows: Sequence[StepRow], group_size: int, learning: bool) -> list[Any]:
        """Episodes of some questions: for each a list of `group_size` responses.

        Args:
            rows: the questions, all of one step.
            group_size: episodes of each.
            learning: with the policy that learns, else with the one that answers.
        """
        policy = self._whole_policy()
        if not rows:
            return []
        if not learning:
            policy = self.job.run.acting(policy)
        seed = derive(self.job.run.seed, 4, rows[0].step)
        with mode(self.actor, training=False), torch.no_grad():
            episodes = collect(
                Engine(policy),
                self._env(len(rows) * group_size, learning),
                [row.question for row in rows],
                group_size=group_size,
                seed=seed,
            )
        if learning and self._rewards is not None:
            task = self._env(1, learning=True).unwrapped.task
            episodes = self._rewards(episodes, task, rows[0].step)
        if learning and self.job.grpo.truncated == PENALTY:
            episodes = penalised(episodes, self.job.grpo.overlong_buffer)
        latents = latent_statistics(policy, episodes.rollouts) if learning else {}
        groups = responses(policy, rows, episodes, group_size, latents)
        return groups if len(groups) > 1 else groups[0]  # Ray takes a single return as it is

    def save_model(self) -> None:
        """Write the weights in the library's own form; every worker must be asked."""
        job, weights = self.job, self.weights()
        if self.strategy.is_rank_0():
            # DeepSpeed keeps parameters as views of one buffer, which safetensors will not write.
            policy = job.run.learner()
            policy.load_state_dict(weights)
            manifest = {"steps": job.steps, "run": job.identity}
            root, adapters = Path(self.args.ckpt.output_dir), job.run.stores_adapters
            checkpoint.save(root, job.steps, policy, None, manifest, adapters=adapters)
        torch.distributed.barrier()

    def weights(self) -> dict[str, torch.Tensor]:
        """The policy's weights on the CPU; every worker must be asked."""
        policy = self.actor.policy
        with gathered(policy.parameters(), self.strategy.stage):
            return {k: v.detach().cpu().clone() for k, v in policy.state_dict().items()}

    def memory_mb(self) -> float:
        """The most memory that this process has had, MiB."""
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    @property
    def args(self) -> Any:
        """OpenRLHF's arguments."""
        return self.strategy.args

    def _whole_policy(self) -> Policy:
        policy: Policy = self.actor.policy
        replica: Policy | None = self._replica
        if replica is None:
            return policy
        with torch.no_grad():
            for own, spread in zip(replica.parameters(), policy.parameters(), strict=True):
                with gathered([spread], 3):
                    own.copy_(spread)
        return replica

    def _env(self, rows: int, learning: bool) -> Any:
        """An environment of at least so many rows, kept from one rollout to the next."""
        env = self._envs.get(learning)
        if env is None or env.unwrapped.num_envs < rows:
            split = {} if learning else {"split": self.job.eval_split, "limit": None}
            env = self._envs[learning] = self.job.run.make_env(rows, **split)
        return env


class ReferenceWorker(plain(launcher.ReferenceModelActor)):  # type: ignore[misc]
    """Scores with the policy that the run began with."""

    def init_model_from_pretrained(self, strategy: Any, pretrain: str) -> None:
        run = strategy.job.run
        with rebound(launcher, Actor=_stands_for_actor(lambda: run.learner().reference())):
            super().init_model_from_pretrained(strategy, pretrain)


RemotePolicy = ray.remote(num_gpus=1)(PolicyWorker)
RemoteReference = ray.remote(num_gpus=1)(ReferenceWorker)
