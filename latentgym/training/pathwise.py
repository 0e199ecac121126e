"""Policy gradient through the thoughts themselves: stage 2 of LatentR3 as its authors train it.

"Reinforced Latent Reasoning for LLM-based Recommendation" (arXiv 2505.19092). Each question is
thought about G times, with Gaussian noise on the latents, and not answered: the reward is how well
the right answer is foreseen, and the loss is the clipped surrogate of the *right answer's tokens*,

    r_t = p(y_t | x, z + noise, y_<t) / p_old(y_t | ...)      weighted by the advantage of the row,

whose gradient runs back through the latents z into what made them. So it is likelihood weighted by
advantages: where the advantage is negative, the right answer is made less likely under that noise.
It is not the score function of the noise; for that, see `GRPOConfig.reward`.

Where the language model is frozen, its prompts are read without a graph, once for their group.

Legend: Q questions, G samples each, N = Q * G rows, T tokens of an answer.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from latentgym.episodes.rng import derive
from latentgym.heads.distributions import masked
from latentgym.lm.mode import mode
from latentgym.rollout import Policy
from latentgym.rollout.own_thoughts import OwnThoughts
from latentgym.rollout.rollouts import IntArray
from latentgym.rollout.targets import perplexity_reward
from latentgym.training.demonstrations import Demonstrations, SupervisedBatch
from latentgym.training.grpo_config import CLEAN
from latentgym.training.inputs import of_batch
from latentgym.training.latents import before_answer, latents_of
from latentgym.training.losses import advantages
from latentgym.training.order import Order
from latentgym.training.pathwise_config import PathwiseConfig
from latentgym.training.stage import Metrics, QuestionStage, Update
from latentgym.training.supervised import SupervisedLoss, supervised_loss
from latentgym.training.surrogates import surrogate


class Pathwise(QuestionStage):
    """Policy gradient through thoughts.

    Args:
        policy: its head makes the latents.
        env: gives demonstrations, whose answers are the targets.
        config: settings.
        seed: of the order and of the noise.

    Raises:
        UsageError: settings that cannot work, or an environment without a fixed number of thoughts.
    """

    def __init__(self, policy: Policy, env: Any, config: PathwiseConfig, seed: int = 0) -> None:
        config.validate()
        self.policy, self.config, self.seed = policy, config, seed
        self.demonstrations = Demonstrations(env)
        self.rules = env.unwrapped.protocol
        self.latents = latents_of(self.rules)
        self.order = Order(len(self.demonstrations), config.prompts, derive(seed, 3))

    def positions(self, question: int) -> int:
        return self.demonstrations.positions(question) + self.latents

    def step(self, number: int, update: Update) -> Metrics:
        with mode(self.policy, training=False):
            return self._step(number, update)

    def _step(self, number: int, update: Update) -> Metrics:
        c = self.config
        questions = self.order.batch(number)
        parts = np.array_split(questions, min(-(-c.rows // c.micro_batch), c.prompts))
        seed = derive(self.seed, 4, number)
        score = partial(self._scored, seed=seed)
        inside = self.watched(
            number, lambda: of_batch(self.policy, *self._behind_chains(parts[0], seed))
        )
        with torch.no_grad():
            scored = [score(part) for part in parts]
        old = [-s.loss_BT for s in scored]
        reward_N = torch.cat([perplexity_reward(-s.loss_BT, s.mask_BT) for s in scored])
        advantage_N = self.advantages(reward_N)
        tokens = sum(int(s.mask_BT.sum()) for s in scored)
        sums = torch.zeros(3)

        def losses() -> Iterator[Tensor]:
            for part, old_BT, advantage_B in zip(
                parts,
                old,
                torch.split(advantage_N, [len(p) * c.group_size for p in parts]),
                strict=True,
            ):
                now = score(part)
                # With one update the policy is still the one that thought.
                before = now.loss_BT.detach().neg() if c.updates == 1 else old_BT
                found = surrogate(
                    "clip",
                    -now.loss_BT,
                    before,
                    advantage_B[:, None],
                    now.mask_BT,
                    c.clip_low,
                    c.clip_high,
                )
                loss = found.loss_NT.sum() / tokens
                with torch.no_grad():
                    ratio_BT = masked(found.ratio_NT, now.mask_BT)
                    seen = [loss, ratio_BT.sum(), found.clipped_NT.sum()]
                    sums.add_(torch.stack([value.cpu().float() for value in seen]))
                yield loss

        grad_norms = [update(losses()) for _ in range(c.updates)]
        clean_N = reward_N.view(-1, c.group_size)[:, 0]
        return {
            "reward/score": float(reward_N.mean()),
            "reward/clean": float(clean_N.mean()),
            "train/loss": float(sums[0]) / c.updates,
            "train/ratio": float(sums[1]) / (tokens * c.updates),
            "train/clip_fraction": float(sums[2]) / (tokens * c.updates),
            "train/grad_norm": float(np.mean(grad_norms)),
            **inside,
        }

    def advantages(self, reward_N: Tensor) -> Tensor:
        """Advantages of the rows of a step, those of a group next to each other; fp32 (N,)."""
        c = self.config
        blocks = torch.split(reward_N, (c.baseline_prompts or c.prompts) * c.group_size)
        return torch.cat([advantages(block, c.group_size, c.advantage) for block in blocks])

    def _scored(self, questions: IntArray, *, seed: int) -> SupervisedLoss:
        """Negative log-likelihood of the right answers, behind G chains of each question."""
        batch, own = self._behind_chains(questions, seed)
        return supervised_loss(self.policy.lm, batch, own=own)

    def _behind_chains(self, questions: IntArray, seed: int) -> tuple[SupervisedBatch, OwnThoughts]:
        """The right answers, and how the G chains of each question before them are thought."""
        lm, g = self.policy.lm, self.config.group_size
        batch = self.demonstrations.batch(
            np.repeat(questions, g), lm.device, lambda _, d: before_answer(d, self.rules)
        )
        rows = len(questions) * g
        own = OwnThoughts(
            self.policy.head,
            torch.ones(rows, dtype=torch.bool, device=lm.device),
            seed,
            sample_B=np.tile(np.arange(g), len(questions)),
            noise_free=int(self.config.advantage == CLEAN),
        )
        return batch, own
