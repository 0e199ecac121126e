"""OpenRLHF's PPO trainer, drawing its samples from policy workers instead of vLLM engines."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from latentgym.openrlhf.shim import install, plain, rebound

install()

import torch
from openrlhf.trainer import ppo_trainer
from openrlhf.trainer.ppo_utils import samples_generator
from openrlhf.trainer.ppo_utils.experience_maker import RemoteExperienceMaker
from tqdm import tqdm

from latentgym.heads.distributions import masked
from latentgym.openrlhf.job import Job
from latentgym.openrlhf.parts import actions_of, places
from latentgym.openrlhf.samples import StepRow, TrainingRows, collate, is_ours
from latentgym.text.tokenizers import Tokenizer
from latentgym.training.losses import action_weights, advantages

OnStep = Callable[[int, dict[str, float]], None]

# OpenRLHF's names for what the local backend logs too.
_NAMES = {
    "policy_loss": "train/loss",
    "entropy_loss": "train/entropy",
    "ppo_clip_ratio": "train/clip_fraction",
    "actor_grad_norm": "train/grad_norm",
    "actor_lr": "train/lr",
    "kl": "train/kl",
    "rollout/reward_mean": "reward/score",
    "timing/generation": "rollout/seconds",
}


class WorkerSamples(samples_generator.SamplesGenerator):  # type: ignore[misc]
    """Sends questions to the policy workers."""

    def __init__(self, workers: Sequence[Any], stage: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.workers, self.stage = workers, stage

    def generate_samples(self, **kwargs: Any) -> Any:
        samples, *rest = super().generate_samples(**kwargs)
        # They come as workers finish; in the order of their questions a run can be repeated.
        samples.sort(key=lambda sample: sample.labels[0].place)
        return samples, *rest

    def _dispatch_prompts_to_vllm(
        self, prompts: list[str], labels: list[StepRow], *, images: Any = None, **kwargs: Any
    ) -> list[Any]:
        # OpenRLHF gives its evaluations a temperature of their own; the training rows have none,
        # as the policy's head knows its own.
        learning = kwargs.get("temperature") is None
        group = kwargs.get("n_samples_per_prompt", self.args.rollout.n_samples_per_prompt)
        refs: list[Any] = []
        for rank, worker in enumerate(self.workers):
            rows = labels[rank :: len(self.workers)]
            if not rows:
                if self.stage == 3:  # weights are gathered by all workers together
                    worker.rollout.options(num_returns=0).remote([], group, learning)
                continue
            out = worker.rollout.options(num_returns=len(rows)).remote(rows, group, learning)
            refs.extend(out if isinstance(out, list) else [out])
        return refs


class ExperienceMaker(RemoteExperienceMaker):  # type: ignore[misc]
    """OpenRLHF's, with the advantage estimators of the local backend.

    They know more kinds, and compute in fp64: in fp32 the rounding of a mean of equal rewards,
    divided by their spread of nearly zero, can be a large advantage. Means that OpenRLHF does not
    know are weights on its mean over rows.
    """

    def compute_advantages_and_returns(self, experiences: list[Any]) -> list[Any]:
        experiences = super().compute_advantages_and_returns(experiences)
        c = self.strategy.job.grpo
        index = torch.tensor([i for experience in experiences for i in experience.index])
        reward = torch.cat([experience.rewards for experience in experiences])
        by_row = torch.empty_like(reward)
        by_row[index] = reward
        advantage = advantages(by_row, c.group_size, c.advantage)[index]
        sizes = [len(experience.index) for experience in experiences]
        for experience, part in zip(experiences, torch.split(advantage, sizes), strict=True):
            actions = actions_of(experience)
            weights_BT = action_weights(actions.thought_BT, actions.acted_BT, c.mean)
            advantage_BTJ = part[:, None, None] * weights_BT[..., None] * actions.weight_BTJ
            experience.advantages = places(masked(advantage_BTJ, actions.part_BTJ))
        return experiences


class Trainer(plain(ppo_trainer.PPOTrainer)):  # type: ignore[misc]
    """OpenRLHF's trainer over a job, in the driver's own process.

    Args:
        job: what is to be done.
        strategy: as the workers have it.
        policies, reference: OpenRLHF's groups of workers; no reference without divergence.
        on_step: told the number of steps taken, and their metrics.
    """

    def __init__(
        self, job: Job, strategy: Any, policies: Any, reference: Any, on_step: OnStep
    ) -> None:
        self.job, self.on_step = job, on_step
        env = job.run.make_env(1).unwrapped
        tokens = _Decoder(env.task.tokenizer)
        samples = partial(WorkerSamples, policies._actor_handlers, strategy.stage)
        with rebound(
            ppo_trainer,
            get_tokenizer=lambda *_, **__: tokens,
            prepare_datasets=lambda strategy, _: self._data(strategy),
            SamplesGenerator=samples,
            RemoteExperienceMaker=ExperienceMaker,
        ):
            super().__init__("", strategy, policies, None, None, reference, None, temperature=None)

    def _data(self, strategy: Any) -> tuple[Any, Any, int]:
        """Loaders of training and evaluation questions, and the number of optimiser steps."""
        job = self.job
        rows = TrainingRows(job.order, job.steps)
        loader = partial(strategy.setup_dataloader, shuffle=False, collate_fn=collate)
        evaluation = None
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "'set_vital'")  # torchdata's, of newer torch
            if job.eval_every:
                task = job.run.make_env(1, split=job.eval_split, limit=job.eval_limit).unwrapped
                questions = [StepRow(0, i, i) for i in range(task.n_questions)]
                evaluation = loader(questions, 1)
            return loader(rows, 1), evaluation, job.steps * job.updates_per_step

    def fit(self, global_step: int = 0) -> None:
        """Train to the end, without OpenRLHF's bars: there is one, ours."""
        silent = partial(tqdm, disable=True)
        with rebound(ppo_trainer, tqdm=silent), rebound(samples_generator, tqdm=silent):
            super().fit(global_step)

    def broadcast_to_vllm(self) -> None:
        """There are no engines: the workers that train also roll out."""

    def save_logs_and_checkpoints(
        self, global_step: int, logs_dict: Any = None, client_states: Any = None
    ) -> None:
        logs = {k: v for k, v in (logs_dict or {}).items() if isinstance(v, int | float)}
        metrics = {ours: float(logs[name]) for name, ours in _NAMES.items() if name in logs}
        # A reward that does not apply to an episode is NaN there, and so is OpenRLHF's mean of it.
        metrics |= {k: float(v) for k, v in logs.items() if is_ours(k) and math.isfinite(v)}
        if self.reference_model_group is None:
            del metrics["train/kl"]
        if self.strategy.stage == 0:
            del metrics["train/grad_norm"]  # DeepSpeed does not tell it
        # First the line, then the checkpoint: a resumed run drops lines beyond its checkpoint, but
        # a line that a checkpoint has left behind would never be written.
        self.on_step(global_step, metrics)
        super().save_logs_and_checkpoints(global_step, logs_dict, client_states)

    def evaluate(self, global_step: int, **kwargs: Any) -> Any:
        logs = super().evaluate(global_step, **kwargs)
        self.on_step(global_step, {"eval/accuracy": float(logs["eval_eval_pass1"])})
        return logs


class _Decoder:
    """As much of a Hugging Face tokenizer as OpenRLHF's trainer asks for."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.pad_token_id = tokenizer.pad_id

    def decode(self, ids: torch.Tensor, skip_special_tokens: bool = True) -> list[str]:
        return [self._tokenizer.decode(row.tolist()) for row in ids]
