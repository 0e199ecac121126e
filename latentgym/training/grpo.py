"""Group-relative policy optimisation over any action family.

One step: roll out G episodes of each of Q questions, compare them within their groups, and move
the policy by the clipped surrogate on replayed log-probabilities. The head decides what an action
is; nothing here knows.

Legend: Q questions, G samples each, N = Q * G rows, T steps.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from latentgym.errors import UsageError, did_you_mean
from latentgym.losses import (
    CLEAN,
    MEANS,
    action_weights,
    advantages,
    clipped_surrogate,
    kl_estimate,
    masked_mean,
)
from latentgym.rng import derive
from latentgym.rollout import (
    Engine,
    Episodes,
    Policy,
    Rollouts,
    Scores,
    collect,
    latent_statistics,
    replay,
)
from latentgym.rollout.replay import micro_batches
from latentgym.rollout.rollouts import IntArray
from latentgym.rollout.targets import perplexity_reward, target_log_probs, think
from latentgym.training.stage import MakeEnv, Metrics, Stage, Update, batch_indices


@dataclass(frozen=True)
class GRPOConfig:
    """Settings of the policy gradient."""

    prompts: int = 16
    """Questions per step."""
    group_size: int = 8
    """Episodes per question."""
    updates: int = 1
    """Passes over each rollout; each takes one optimiser step per mini-batch."""
    mini_batches: int = 1
    """Optimiser steps per pass."""
    micro_batch: int = 64
    """Most rows replayed at once."""
    advantage: str = "group_norm"
    """Estimator: group_norm, group_norm_trl, group_norm_population, dr_grpo, rloo or batch."""
    clip_low: float = 0.2
    """How far a ratio may fall below one."""
    clip_high: float = 0.2
    """How far a ratio may rise above one."""
    kl: float = 0.0
    """Weight of the divergence from the starting policy; 0 keeps no reference."""
    kl_estimator: str = "k3"
    """k1, k2 or k3."""
    reward: Literal["task", "perplexity"] = "task"
    """Of whole episodes, from the task's grader; or of chains of thought alone, minus the
    perplexity of the right answer behind them. What is learnt then are the thoughts."""
    mean: str = "token"
    """Average over all actions alike (token), over the actions of each row and then over rows
    (sequence), the same with thoughts and words apart (phase), or no average within a row (sum)."""

    def validate(self) -> None:
        """Raise `UsageError` for settings that cannot work."""
        if min(self.prompts, self.updates, self.mini_batches, self.micro_batch) < 1:
            raise UsageError("prompts, updates, mini_batches and micro_batch must be at least 1.")
        if self.group_size < 2:
            raise UsageError("group_size must be at least 2: a group of one has no advantage.")
        if self.rows % self.mini_batches:
            raise UsageError(
                f"mini_batches = {self.mini_batches} does not divide the {self.rows} rows of a "
                "step."
            )
        if self.reward not in ("task", "perplexity"):
            raise UsageError(f"no reward {self.reward!r}; choose task or perplexity.")
        if self.mean not in MEANS:
            raise UsageError(f"no mean {self.mean!r}; {did_you_mean(self.mean, MEANS)}")

    @property
    def rows(self) -> int:
        """Episodes per step."""
        return self.prompts * self.group_size

    def build(self, policy: Policy, make_env: MakeEnv, seed: int) -> GRPO:
        """The stage that trains this policy."""
        return GRPO(policy, make_env(self.rows), self, seed)


class GRPO(Stage):
    """Group-relative policy optimisation.

    Rollout and replay run in evaluation mode, so that dropout cannot part the policy that acts
    from the one that learns: without an update in between, every ratio is 1.

    Args:
        policy: what is trained.
        env: a vector environment of at least `prompts * group_size` rows.
        config: settings.
        seed: of questions and draws.
    """

    def __init__(self, policy: Policy, env: Any, config: GRPOConfig, seed: int = 0) -> None:
        config.validate()
        self.policy, self.env, self.config, self.seed = policy, env, config, seed
        self.engine = Engine(policy)
        self.reference = policy.reference() if config.kl else None
        self.quiet = int(config.advantage == CLEAN)  # samples that think without Gaussian noise

    def step(self, number: int, update: Update) -> Metrics:
        c = self.config
        self.policy.eval()
        started = time.perf_counter()
        questions = batch_indices(
            self.env.unwrapped.n_questions, c.prompts, derive(self.seed, 3), number
        )
        seed = derive(self.seed, 4, number)
        roll_out = {"task": self._answered, "perplexity": self._foreseen}[c.reward]
        episodes = roll_out(questions, seed)
        rolled = time.perf_counter() - started
        latents = latent_statistics(self.policy, episodes.rollouts)
        advantage_N = advantages(torch.from_numpy(episodes.reward_N), c.group_size, c.advantage)
        advantage_N = advantage_N.to(self.policy.lm.device)
        tracker = _Tracker()
        for _ in range(c.updates):
            for rows, old in self._mini_batches(episodes.rollouts, number):
                losses = self._losses(episodes.rollouts, rows, old, advantage_N, tracker)
                tracker.grad_norms.append(update(losses))
        return {
            **_episode_metrics(episodes, self.policy.speaks_its_thoughts, rolled),
            **latents,
            **tracker.metrics(),
            "train/groups_without_signal": _flat_groups(episodes, c.group_size),
        }

    def _answered(self, questions: IntArray, seed: int) -> Episodes:
        """Whole episodes, graded by the task."""
        c = self.config
        return collect(
            self.engine,
            self.env,
            questions,
            group_size=c.group_size,
            seed=seed,
            quiet=self.quiet,
        )

    def _foreseen(self, questions: IntArray, seed: int) -> Episodes:
        """Chains of thought, rewarded by how well they foresee the right answer."""
        c, env = self.config, self.env.unwrapped
        shape = {"group_size": c.group_size, "seed": seed, "quiet": self.quiet}
        rollouts = think(self.engine, env, questions, **shape)
        shown = [env.demonstration(int(i)) for i in questions]
        targets = [d.ids_TS[d.thoughts :, 0].tolist() for d in shown]
        logp_NT, target_NT = target_log_probs(self.policy, rollouts, targets, c.micro_batch)
        reward_N = perplexity_reward(logp_NT, target_NT).double().numpy()
        infos = [{"reward/perplexity": -reward} for reward in reward_N.tolist()]
        return Episodes(rollouts, reward_N, infos)

    def _mini_batches(
        self, rollouts: Rollouts, number: int
    ) -> Iterator[tuple[Any, dict[int, Tensor] | None]]:
        """Rows of each optimiser step with their old log-probabilities.

        With a single step per rollout the policy is still the one that acted, and its own
        detached log-probabilities serve: no second pass is needed.
        """
        c = self.config
        rows = np.arange(len(rollouts))
        if c.updates * c.mini_batches == 1:
            yield rows, None
            return
        old: dict[int, Tensor] = {}
        with torch.no_grad():
            for part in micro_batches(rollouts, c.micro_batch):
                for row, logp in zip(
                    part, self._replay(self.policy, rollouts, part).logp_NT, strict=True
                ):
                    old[int(row)] = logp
        if c.mini_batches > 1:
            # In order, a small mini-batch would be a single question's group.
            rows = np.random.default_rng(derive(self.seed, 7, number)).permutation(rows)
        for part in np.array_split(rows, c.mini_batches):
            yield part, old

    def _losses(
        self,
        rollouts: Rollouts,
        rows: Any,
        old: dict[int, Tensor] | None,
        advantage_N: Tensor,
        tracker: _Tracker,
    ) -> Iterator[Tensor]:
        c = self.config
        n_actions = int((rollouts.thoughts_N + rollouts.spoken_N)[rows].sum())
        for start in range(0, len(rows), c.micro_batch):
            part = rows[start : start + c.micro_batch]
            scores = self._replay(self.policy, rollouts, part)
            steps = scores.logp_NT.shape[1]
            old_logp = (
                scores.logp_NT.detach()
                if old is None
                else torch.stack([old[int(r)][:steps] for r in part])
            )
            advantage_N1 = advantage_N[torch.from_numpy(part).to(advantage_N.device)][:, None]
            advantage = advantage_N1 * action_weights(scores.thought_NT, scores.action_NT, c.mean)
            surrogate = clipped_surrogate(
                scores.logp_NT, old_logp, advantage, c.clip_low, c.clip_high
            )
            loss_NT, kl_NT = surrogate.loss_NT, None
            if self.reference is not None:
                with torch.no_grad():
                    reference = self._replay(self.reference, rollouts, part).logp_NT
                kl_NT = kl_estimate(scores.logp_NT, reference, c.kl_estimator)
                loss_NT = loss_NT + c.kl * kl_NT
            # Micro-batches add up to the mean over the whole batch.
            if c.mean == "token":
                share = float(scores.action_NT.sum()) / n_actions
                loss = masked_mean(loss_NT, scores.action_NT, "token") * share
            else:
                share = len(part) / len(rows)
                loss = masked_mean(loss_NT, scores.action_NT, "sequence") * share
            if not loss.requires_grad:
                raise UsageError(
                    "nothing in these episodes is drawn at random, so that a reward teaches "
                    "nothing; use a head whose thoughts are drawn, or --grpo.reward task."
                )
            tracker.add(scores, surrogate.ratio_NT, surrogate.clipped_NT, kl_NT, loss)
            yield loss

    @staticmethod
    def _replay(policy: Policy, rollouts: Rollouts, rows: Any) -> Scores:
        return replay(policy, rollouts.select(rows))


class _Tracker:
    """Sums over the micro-batches of a step."""

    def __init__(self) -> None:
        self.sums: dict[str, float] = {}
        self.most: dict[str, float] = {}
        self.grad_norms: list[float] = []
        self.actions = 0.0
        self.batches = 0

    @torch.no_grad()
    def add(
        self, scores: Scores, ratio: Tensor, clipped: Tensor, kl: Tensor | None, loss: Tensor
    ) -> None:
        mask = scores.action_NT
        self.actions += float(mask.sum())
        self.batches += 1
        values = {
            "train/entropy": scores.entropy_NT,
            "train/ratio": ratio,
            "train/clip_fraction": clipped.float(),
        }
        if kl is not None:
            values["train/kl"] = kl
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + float((value * mask).sum())
        deviation = float(((ratio - 1).abs() * mask).max()) if mask.any() else 0.0
        self.most["train/ratio_deviation"] = max(
            deviation, self.most.get("train/ratio_deviation", 0.0)
        )
        self.most["train/loss"] = self.most.get("train/loss", 0.0) + float(loss)

    def metrics(self) -> Metrics:
        means = {name: total / max(self.actions, 1.0) for name, total in self.sums.items()}
        return {**means, **self.most, "train/grad_norm": float(np.mean(self.grad_norms))}


def _flat_groups(episodes: Episodes, group_size: int) -> float:
    grouped = episodes.reward_N.reshape(-1, group_size)
    return float((grouped.max(1) == grouped.min(1)).mean())


def _episode_metrics(episodes: Episodes, words: bool, seconds: float) -> Metrics:
    rollouts = episodes.rollouts
    thoughts, spoken = rollouts.thoughts_N, rollouts.spoken_N
    latent = 0 if words else thoughts.sum()
    components = sorted(k for k in episodes.infos[0] if k.startswith("reward/"))
    return {
        "reward/score": float(episodes.reward_N.mean()),
        **{name: float(episodes.component(name).mean()) for name in components},
        "rollout/latent_share": float(latent / max(1, (thoughts + spoken).sum())),
        **{name: float(count_N.mean()) for name, count_N in episodes.counts().items()},
        "rollout/seconds": seconds,
    }
