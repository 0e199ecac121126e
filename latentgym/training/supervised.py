"""Supervised training on demonstrations, hard or soft.

Soft targets are continuous supervision (CSFT of CoT2): thought t is trained towards a distribution
over tokens, and the next input is the mixture of embeddings under that distribution (teacher
forcing). Where every target is a single token this is ordinary supervised training, bit for bit.

Legend: B demonstrations, P prompt positions, T steps, S support of a target, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from latentgym.heads.superposition import mix
from latentgym.lm.model import LatentLM, left_pad
from latentgym.losses import soft_target_loss
from latentgym.rng import derive
from latentgym.rollout import Policy
from latentgym.training.stage import MakeEnv, Metrics, Stage, Update, batch_indices


@dataclass
class SupervisedBatch:
    """Demonstrations as tensors."""

    prompt_BP: Tensor
    prompt_mask_BP: Tensor
    ids_BTS: Tensor
    weights_BTS: Tensor
    mask_BT: Tensor
    thought_BT: Tensor


class Demonstrations:
    """Prompts and right chains of an environment, read once and kept.

    Args:
        env: a single or vector environment of ours.
    """

    def __init__(self, env: Any) -> None:
        self._env = env.unwrapped
        self._memo: dict[int, tuple[list[int], Any]] = {}

    def __len__(self) -> int:
        return int(self._env.n_questions)

    def batch(self, indices: np.ndarray[Any, Any], device: torch.device) -> SupervisedBatch:
        """The demonstrations of these questions, prompts padded left and chains right."""
        items = [self._item(int(i)) for i in indices]
        pad = self._env.task.tokenizer.pad_id
        prompt, prompt_mask = left_pad([p for p, _ in items], pad, device)
        steps = max(len(d.ids_TS) for _, d in items)
        support = max(d.ids_TS.shape[1] for _, d in items)
        ids = np.zeros((len(items), steps, support), dtype=np.int64)
        weights = np.zeros((len(items), steps, support), dtype=np.float32)
        mask = np.zeros((len(items), steps), dtype=bool)
        thought = np.zeros((len(items), steps), dtype=bool)
        for row, (_, d) in enumerate(items):
            t, s = d.ids_TS.shape
            ids[row, :t, :s], weights[row, :t, :s] = d.ids_TS, d.weights_TS
            mask[row, :t], thought[row, : d.thoughts] = True, True
        tensors = [torch.from_numpy(a).to(device) for a in (ids, weights, mask, thought)]
        return SupervisedBatch(prompt, prompt_mask, *tensors)

    def _item(self, index: int) -> tuple[list[int], Any]:
        if index not in self._memo:
            self._memo[index] = self._env.prompt(index), self._env.demonstration(index)
        return self._memo[index]


def supervised_loss(
    lm: LatentLM, batch: SupervisedBatch, *, dropout: float = 0.0, generator: Any = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Loss of each step, and whether its likeliest token is right.

    Args:
        lm: the model.
        batch: B demonstrations.
        dropout: probability with which an element of the input embeddings is zeroed (the rest is
            scaled up), a regulariser.
        generator: of the dropout.

    Returns:
        KL(target || prediction) per step (B, T), the mask of steps, and right answers (B, T): the
        likeliest token is one of the target's.
    """
    x_BTD = mix(batch.ids_BTS, batch.weights_BTS, lm.table_VD)
    x = torch.cat([lm.embed(batch.prompt_BP), x_BTD], dim=1)[:, :-1]
    if dropout:
        keep = torch.rand(x.shape, generator=generator, device=x.device) >= dropout
        x = x * keep / (1 - dropout)
    mask = torch.cat([batch.prompt_mask_BP, batch.mask_BT], dim=1)[:, :-1]
    hidden_BTD = lm.hidden(x, mask)[:, batch.prompt_BP.shape[1] - 1 :]
    where = batch.mask_BT
    logits = lm.logits(hidden_BTD[where])
    ids, weights = batch.ids_BTS[where], batch.weights_BTS[where]
    loss = soft_target_loss(logits, ids, weights)
    with torch.no_grad():
        best = logits.argmax(-1, keepdim=True)
        right = ((ids == best) & (weights > 0)).any(-1)
    loss_BT = torch.zeros(where.shape, device=x.device).masked_scatter(where, loss)
    return loss_BT, where, torch.zeros_like(where).masked_scatter(where, right)


@dataclass(frozen=True)
class SupervisedConfig:
    """Settings of supervised training."""

    batch_size: int = 64
    """Demonstrations per step."""
    micro_batch: int = 0
    """Most demonstrations in memory at once; 0 for all."""
    dropout: float = 0.0
    """Of the input embeddings, see `supervised_loss`."""

    def build(self, policy: Policy, make_env: MakeEnv, seed: int) -> Supervised:
        """The stage that trains this policy."""
        return Supervised(policy, make_env(1), self, seed)


class Supervised(Stage):
    """Supervised training, hard or soft as the environment's demonstrations are.

    Args:
        policy: its language model is trained.
        env: gives demonstrations.
        config: settings.
        seed: of the order and the dropout.
    """

    def __init__(self, policy: Policy, env: Any, config: SupervisedConfig, seed: int = 0) -> None:
        self.policy, self.config, self.seed = policy, config, seed
        self.demonstrations = Demonstrations(env)

    def step(self, number: int, update: Update) -> Metrics:
        c, lm = self.config, self.policy.lm
        lm.train()
        indices = batch_indices(len(self.demonstrations), c.batch_size, self.seed, number)
        # A step may not depend on what was drawn before it, or a resumed run would differ.
        generator = torch.Generator(lm.device).manual_seed(derive(self.seed, number, 1))
        _seed_dropout_modules(lm, derive(self.seed, number, 2))
        sums = torch.zeros(4)
        parts = np.array_split(indices, -(-len(indices) // (c.micro_batch or c.batch_size)))

        def losses() -> Any:
            total = sum(len(self.demonstrations._item(int(i))[1].ids_TS) for i in indices)
            for part in parts:
                batch = self.demonstrations.batch(part, lm.device)
                loss_BT, mask, right = supervised_loss(
                    lm, batch, dropout=c.dropout, generator=generator
                )
                answer = mask & ~batch.thought_BT
                sums.add_(
                    torch.stack(
                        [loss_BT.detach().sum(), mask.sum(), (right & answer).sum(), answer.sum()]
                    ).cpu()
                )
                yield loss_BT.sum() / total

        grad_norm = update(losses())
        lm.eval()
        return {
            "train/loss": float(sums[0] / sums[1]),
            "train/answer_accuracy": float(sums[2] / sums[3].clamp_min(1)),
            "train/grad_norm": grad_norm,
        }


def _seed_dropout_modules(model: nn.Module, seed: int) -> None:
    """Models with dropout of their own draw from torch's global generator."""
    if any(isinstance(m, nn.Dropout) and m.p > 0 for m in model.modules()):
        torch.manual_seed(seed)
