"""Supervised training on demonstrations, hard or soft.

Soft targets are continuous supervision (CSFT of CoT2): thought t is trained towards a distribution
over tokens, and the next input is the mixture of embeddings under that distribution (teacher
forcing). Where every target is a single token this is ordinary supervised training, bit for bit.

At test a model reads what it made itself. `own_thoughts` trains some rows that way: they read the
prompt once and then, thought after thought, what the policy's head makes of their own
predictions; the targets stay, and the gradient runs back through all that was read.

Legend: B demonstrations, P prompt positions, T steps, S support of a target, V vocabulary.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from latentgym.episodes.rng import derive
from latentgym.errors import UsageError
from latentgym.heads.rng import CounterRNG
from latentgym.heads.superposition import mix
from latentgym.lm.chunks import in_chunks
from latentgym.lm.mode import mode
from latentgym.lm.model import LatentLM
from latentgym.rollout import Policy
from latentgym.rollout.own_thoughts import OwnThoughts
from latentgym.training.demonstrations import Demonstrations, SupervisedBatch
from latentgym.training.inputs import of_batch
from latentgym.training.latents import before_answer, latents_of
from latentgym.training.losses import soft_target_loss
from latentgym.training.order import Order
from latentgym.training.stage import Metrics, QuestionStage, Update
from latentgym.training.supervised_config import SupervisedConfig


class SupervisedLoss(NamedTuple):
    """What `supervised_loss` computes.

    Attributes:
        loss_BT: KL(target || prediction) of each step.
        mask_BT: which steps have a target.
        right_BT: the likeliest token is one of the target's.
        prompt_M: KL of each target on a prompt; empty unless it was asked for.
    """

    loss_BT: Tensor
    mask_BT: Tensor
    right_BT: Tensor
    prompt_M: Tensor


def supervised_loss(
    lm: LatentLM,
    batch: SupervisedBatch,
    *,
    dropout: float = 0.0,
    generator: Any = None,
    own: OwnThoughts | None = None,
    prompts: bool = False,
) -> SupervisedLoss:
    """Loss of each step, and whether its likeliest token is right.

    Args:
        lm: the model.
        batch: B demonstrations.
        dropout: probability with which an element of the input embeddings is zeroed (the rest is
            scaled up), a regulariser.
        generator: of the dropout.
        own: rows that read their own thoughts; none by default.
        prompts: with the loss of the targets on prompts.
    """
    prompt_BPD = lm.embed(batch.prompt_BP)
    x_BTD = mix(batch.ids_BTS, batch.weights_BTS, lm.table_VD)

    def dropped(x: Tensor) -> Tensor:
        if not dropout:
            return x
        keep = torch.rand(x.shape, generator=generator, device=x.device) >= dropout
        return x * keep / (1 - dropout)

    read_BL = torch.cat([batch.prompt_mask_BP, batch.mask_BT], dim=1)
    if own is None or not bool((own.row_B[:, None] & batch.thought_BT).any()):
        x = dropped(torch.cat([prompt_BPD, x_BTD], dim=1)[:, :-1])
        hidden = lm.hidden(x, read_BL[:, :-1])
    else:
        with lm.full_precision():  # over all calls of the model: its weights are cast once
            hidden = own.hidden_states(
                lm, prompt_BPD, x_BTD, read_BL, batch.thought_BT, batch.question_B, dropped
            )
    hidden_BTD = hidden[:, batch.prompt_BP.shape[1] - 1 :]
    where = batch.targets_BT
    loss, right = in_chunks(
        partial(_of_targets, lm),
        lm.logits_at_once,
        hidden_BTD[where],
        batch.ids_BTS[where],
        batch.weights_BTS[where],
    )
    loss_BT = torch.zeros(where.shape, device=loss.device).masked_scatter(where, loss)
    right_BT = torch.zeros_like(where).masked_scatter(where, right)
    prompt_M = loss.new_zeros(0)
    if prompts and batch.prompt_ids_BPS is not None and batch.prompt_weights_BPS is not None:
        named_BP = batch.prompt_weights_BPS.sum(-1) > 0
        prompt_M, _ = in_chunks(
            partial(_of_targets, lm),
            lm.logits_at_once,
            hidden[:, : named_BP.shape[1]][named_BP],
            batch.prompt_ids_BPS[named_BP],
            batch.prompt_weights_BPS[named_BP],
        )
    return SupervisedLoss(loss_BT, where, right_BT, prompt_M)


def _of_targets(
    lm: LatentLM, hidden_MD: Tensor, ids_MS: Tensor, weights_MS: Tensor
) -> tuple[Tensor, Tensor]:
    """Loss of each position, and whether its likeliest token is one of its targets, both (M,)."""
    logits_MV = lm.logits(hidden_MD)
    loss_M = soft_target_loss(logits_MV, ids_MS, weights_MS)
    best_M1 = logits_MV.detach().argmax(-1, keepdim=True)
    return loss_M, ((ids_MS == best_M1) & (weights_MS > 0)).any(-1)


class Supervised(QuestionStage):
    """Supervised training, hard or soft as the environment's demonstrations are.

    Args:
        policy: its language model is trained.
        env: gives demonstrations.
        config: settings.
        seed: of the order, the dropout and the choice of rows that read their own thoughts.

    Raises:
        UsageError: settings that cannot work, or targets on prompts that the task does not have.
    """

    def __init__(self, policy: Policy, env: Any, config: SupervisedConfig, seed: int = 0) -> None:
        config.validate()
        self.policy, self.config, self.seed = policy, config, seed
        self.demonstrations = Demonstrations(env)
        self.rules = env.unwrapped.protocol
        self.latents = latents_of(self.rules) if config.latents else 0
        self.order = Order(len(self.demonstrations), config.batch_size, seed)
        if config.prompt_weight and self.demonstrations.item(0)[1].prompt_ids_PS is None:
            raise UsageError("this task has no targets on its prompts; set --prompt-weight to 0.")

    def positions(self, question: int) -> int:
        return self.demonstrations.positions(question) + self.latents

    def step(self, number: int, update: Update) -> Metrics:
        c, lm = self.config, self.policy.lm
        indices = self.order.batch(number)
        # A step may not depend on what was drawn before it, or a resumed run would differ.
        generator = torch.Generator(lm.device).manual_seed(derive(self.seed, number, 1))
        _seed_dropout_modules(lm, derive(self.seed, number, 2))
        sums, prompt_sum = torch.zeros(4), torch.zeros(())
        parts = np.array_split(indices, -(-len(indices) // (c.micro_batch or c.batch_size)))
        shown = partial(self.shown, number)
        batches = [self.demonstrations.batch(part, lm.device, shown) for part in parts]
        total = sum(int(batch.targets_BT.sum()) for batch in batches)
        named = sum(_named(batch) for batch in batches) if c.prompt_weight else 0

        def losses() -> Any:
            for batch in batches:
                loss_BT, mask, right, prompt_M = supervised_loss(
                    lm,
                    batch,
                    dropout=c.dropout,
                    generator=generator,
                    own=self.own_rows(batch, number),
                    prompts=bool(c.prompt_weight),
                )
                answer = mask & ~batch.thought_BT
                sums.add_(
                    torch.stack(
                        [loss_BT.detach().sum(), mask.sum(), (right & answer).sum(), answer.sum()]
                    ).cpu()
                )
                loss = loss_BT.sum() / total
                if c.prompt_weight:
                    prompt_sum.add_(prompt_M.detach().sum().cpu())
                    loss = loss + c.prompt_weight * prompt_M.sum() / named
                yield loss

        first = batches[0]
        inside = self.watched(
            number, lambda: of_batch(self.policy, first, self.own_rows(first, number))
        )
        with mode(lm, training=True):
            grad_norm = update(losses())
        return {
            "train/loss": float(sums[0] / sums[1]),
            "train/answer_accuracy": float(sums[2] / sums[3].clamp_min(1)),
            "train/grad_norm": grad_norm,
            **({"train/prompt_loss": float(prompt_sum / named)} if c.prompt_weight else {}),
            **inside,
        }

    def shown(self, number: int, index: int, demonstration: Any) -> Any:
        """What a question's demonstration is at that step; a curriculum changes it."""
        return before_answer(demonstration, self.rules) if self.latents else demonstration

    def own_rows(self, batch: SupervisedBatch, number: int) -> OwnThoughts | None:
        """Which of these demonstrations are read with own thoughts at that step."""
        if not self.config.own_thoughts:
            return None
        zero_B, device = np.zeros_like(batch.question_B), self.policy.lm.device
        rng = CounterRNG.at(derive(self.seed, number, 3), batch.question_B, zero_B, zero_B, device)
        row_B = rng.uniform(1)[:, 0] < self.config.own_thoughts
        return OwnThoughts(self.policy.head, row_B, derive(self.seed, number, 4))


def _named(batch: SupervisedBatch) -> int:
    """How many tokens of the prompts have a target."""
    weights = batch.prompt_weights_BPS
    return 0 if weights is None else int((weights.sum(-1) > 0).sum())


def _seed_dropout_modules(model: nn.Module, seed: int) -> None:
    """Models with dropout of their own draw from torch's global generator."""
    if any(isinstance(m, nn.Dropout) and m.p > 0 for m in model.modules()):
        torch.manual_seed(seed)
