"""Group-relative policy optimisation over any action family.

One step: roll out G episodes of each of Q questions, compare them within their groups, and move
the policy by the clipped surrogate on replayed log-probabilities. The head decides what an action
is; nothing here knows.

Legend: Q questions, G samples each, N = Q * G rows, T steps.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from latentgym.analysis.sequences import of_rollouts
from latentgym.episodes.rng import derive
from latentgym.errors import TrainingError, UsageError
from latentgym.lm.mode import mode
from latentgym.rollout import (
    Engine,
    Episodes,
    Policy,
    collect,
    latent_statistics,
    replay,
)
from latentgym.rollout.replay import micro_batches
from latentgym.rollout.rollouts import IntArray
from latentgym.rollout.targets import foreseen
from latentgym.training.dynamic_sampling import spread, with_spread
from latentgym.training.grpo_config import CLEAN, MASK, PENALTY, GRPOConfig
from latentgym.training.losses import (
    action_weights,
    kl_estimate,
    masked_mean,
)
from latentgym.training.order import Order
from latentgym.training.overlong import penalised
from latentgym.training.rewards import Reward, Rewards, load_rewards
from latentgym.training.rollout_correction import RoundedPolicy, truncated_importance
from latentgym.training.scoring import Scored, scored
from latentgym.training.stage import Metrics, QuestionStage, Update
from latentgym.training.step_metrics import UpdateMetrics, episode_metrics, group_metrics
from latentgym.training.surrogates import surrogate


class GRPO(QuestionStage):
    """Group-relative policy optimisation.

    Rollout and replay run in evaluation mode, so that dropout cannot part the policy that acts
    from the one that learns: without an update in between, every ratio is 1. Where rollouts are in
    another precision, `latentgym.training.rollout_correction` makes up for it.

    Args:
        policy: what is trained.
        env: a vector environment of at least `prompts * group_size` rows.
        config: settings.
        seed: of questions and random numbers.
        rewards: of the user's own, in the place of those that the settings name: functions, or all
            of them with the weight of the task's.

    Raises:
        UsageError: settings that cannot work, or a reward that asks for what there is not.
    """

    def __init__(
        self,
        policy: Policy,
        env: Any,
        config: GRPOConfig,
        seed: int = 0,
        *,
        rewards: Rewards | Sequence[Reward | Callable[..., Any]] | None = None,
    ) -> None:
        config.validate()
        self.policy, self.env, self.config, self.seed = policy, env, config, seed
        if rewards is None:
            self.rewards = load_rewards(config.rewards, config.completions)
        else:
            self.rewards = Rewards.of(rewards, config.completions)
        if self.rewards is not None:
            if config.reward != "task":
                raise UsageError(config.whole_episodes)
            self.rewards.check(env.unwrapped.task)
        config.check_budgets(env.unwrapped.protocol)
        self.rounded: RoundedPolicy | None = None
        self.engine = Engine(policy)
        if config.rollout_dtype is not None:
            self.rounded = RoundedPolicy(policy, getattr(torch, config.rollout_dtype))
            self.engine = Engine(self.rounded.policy, record_log_probs=True)
        self.reference = policy.reference() if config.kl else None
        spare = config.prompts * config.dynamic_sampling
        self.order = Order(env.unwrapped.n_questions, config.prompts, derive(seed, 3), spare)
        # Samples that think without Gaussian noise.
        self.noise_free = int(config.advantage == CLEAN)

    @property
    def kept(self) -> Policy | None:
        return self.reference if self.config.reference_every else None

    def positions(self, question: int) -> int:
        env = self.env.unwrapped
        read = len(env.prompt(question)) + len(self.policy.prompt_suffix)
        return read + int(env.protocol.max_steps)

    def step(self, number: int, update: Update) -> Metrics:
        with mode(self.policy, training=False):
            return self._step(number, update)

    def _step(self, number: int, update: Update) -> Metrics:
        c = self.config
        started = time.perf_counter()
        if c.reference_every and number and number % c.reference_every == 0:
            self.reference = self.policy.reference()
        if self.rounded is not None:
            self.rounded.refresh()
        batch = with_spread(
            partial(self._drawn, number),
            self._teaches,
            self.order.batch(number),
            self.order.others(number),
            c.dynamic_sampling,
        )
        episodes, rolled = batch.kept, time.perf_counter() - started
        latents = latent_statistics(self.policy, episodes.rollouts)
        inside = self.watched(number, lambda: of_rollouts(self.policy, episodes.rollouts))
        given = scored(self.policy, self.reference, episodes, c)
        seen, learnt_N = UpdateMetrics(), self._learnt(episodes)
        for epoch in range(c.updates):
            for some in self._mini_batches(number, epoch):
                rows = some[learnt_N[some]]
                if not len(rows):
                    continue
                seen.grad_norms.append(update(self._losses(given, rows, seen)))
        in_tokens = self.policy.thinks_in_tokens
        return {
            **episode_metrics(batch.drawn, in_tokens=in_tokens, seconds=rolled),
            **group_metrics(batch, c.group_size),
            **latents,
            **inside,
            **seen.metrics(),
        }

    def _drawn(self, number: int, questions: IntArray) -> Episodes:
        """Episodes of questions of a step, and what they earn.

        Raises:
            TrainingError: a reward is not finite.
        """
        roll_out = {"task": self._answered, "perplexity": self._foreseen}[self.config.reward]
        episodes = roll_out(questions, derive(self.seed, 4, number))
        if self.rewards is not None:
            episodes = self.rewards(episodes, self.env.unwrapped.task, number)
        if self.config.truncated == PENALTY:
            episodes = penalised(episodes, self.config.overlong_buffer)
        if not np.isfinite(episodes.reward_N).all():
            raise TrainingError(f"a reward of step {number + 1} is not finite; mend the reward.")
        return episodes

    def _teaches(self, episodes: Episodes) -> npt.NDArray[np.bool_]:
        """Which groups of episodes have advantages that are learnt from, bool (Q,)."""
        learnt_QG = self._learnt(episodes).reshape(-1, self.config.group_size)
        teaches: npt.NDArray[np.bool_] = spread(episodes.reward_N, learnt_QG.shape[1])
        return teaches & learnt_QG.any(1)

    def _learnt(self, episodes: Episodes) -> npt.NDArray[np.bool_]:
        """Which episodes are learnt from, bool (N,)."""
        truncated_N = episodes.rollouts.truncated_N
        return ~truncated_N if self.config.truncated == MASK else np.ones_like(truncated_N)

    def _answered(self, questions: IntArray, seed: int) -> Episodes:
        """Whole episodes, graded by the task."""
        c = self.config
        return collect(
            self.engine,
            self.env,
            questions,
            group_size=c.group_size,
            seed=seed,
            noise_free=self.noise_free,
        )

    def _foreseen(self, questions: IntArray, seed: int) -> Episodes:
        """Chains of thought, rewarded by how well they foresee the right answer."""
        c = self.config
        return foreseen(
            self.engine,
            self.env,
            questions,
            group_size=c.group_size,
            seed=seed,
            scorer=self.policy,
            noise_free=self.noise_free,
            micro_batch=c.micro_batch,
        )

    def _mini_batches(self, number: int, epoch: int) -> list[IntArray]:
        """The rows of each optimiser step of a pass over a rollout."""
        c, rows = self.config, np.arange(self.config.rows)
        if c.mini_batches > 1:
            # In order, a small mini-batch would be a single question's group.
            rows = np.random.default_rng(derive(self.seed, 7, number, epoch)).permutation(rows)
        return np.array_split(rows, c.mini_batches)

    def _losses(self, given: Scored, rows: IntArray, seen: UpdateMetrics) -> Iterator[Tensor]:
        """The loss of an optimiser step, in micro-batches that add up to its mean."""
        c, rollouts = self.config, given.rollouts
        n_actions = given.actions_N[rows].sum()
        positions_N = rollouts.positions_N[rows]
        for places in micro_batches(positions_N, c.micro_batch, c.micro_tokens):
            part = rows[places]
            chosen = rollouts.select(part)
            scores = replay(self.policy, chosen, entropy_gradient=c.entropy > 0)
            logp_NT, part_NT, action_NT = scores.logp_NT, scores.part_NT, scores.action_NT
            at = torch.from_numpy(part).to(logp_NT.device)
            steps = slice(logp_NT.shape[1])  # a part is as wide as its own longest row
            old_NT = logp_NT.detach() if given.old_NT is None else given.old_NT[at, steps]
            advantage_N = given.advantage_N[at].view(-1, *(1,) * (logp_NT.dim() - 1))
            found = surrogate(
                c.loss, logp_NT, old_NT, advantage_N, part_NT, c.clip_low, c.clip_high
            )
            loss_NT, kl_NT, correction = scores.of_actions(found.loss_NT), None, None
            if chosen.logp_NT is not None:
                recorded_NT = chosen.logp_NT.to(old_NT.device)
                correction = truncated_importance(recorded_NT, scores.joint(old_NT), action_NT)
                loss_NT = loss_NT * correction.weight_NT
            if given.reference_NT is not None:
                reference_NT = given.reference_NT[at, steps]
                divergence_NT = kl_estimate(logp_NT, reference_NT, part_NT, c.kl_estimator)
                kl_NT = scores.of_actions(divergence_NT)
                if c.kl_in == "loss":
                    loss_NT = loss_NT + c.kl * kl_NT
            if c.entropy:
                loss_NT = loss_NT - c.entropy * scores.entropy_NT
            loss_NT = loss_NT * action_weights(scores.thought_NT & action_NT, action_NT, c.mean)
            if c.mean == "token":
                loss = masked_mean(loss_NT, action_NT, "token") * action_NT.sum() / n_actions
            else:
                loss = masked_mean(loss_NT, action_NT, "sequence") * len(part) / len(rows)
            if not n_actions or not found.loss_NT.requires_grad:
                raise UsageError(
                    "nothing in these episodes is drawn at random, so that a reward teaches "
                    "nothing; use a head whose thoughts are drawn, or --grpo.reward task."
                )
            seen.add(scores, found, kl_NT, loss, correction)
            yield loss
