"""Compressed chains: the supervised stage of CoLaR (arXiv 2505.16552, section 3.2).

Of a demonstration's reasoning, every c consecutive tokens become one thought: the sum of their
embeddings over the root of their number, which keeps the variance of independent embeddings. The
marker that opens the answer is a token of its own, and the answer is not compressed. Two losses:

    tokens    cross-entropy of the next token; of a group the label is one of its tokens at random
    latents   the head's Gaussian against the next thought, in units of the table's deviation s

c is drawn anew at every step, and a suffix of the prompt says it. With c = 1 the loss on tokens is
ordinary supervised training.

Legend: B demonstrations, P prompt positions, T steps (groups, then plain tokens), S tokens of a
group, M thoughts, D width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from latentgym.analysis.sequences import PositionKind, Sequences, kind_of_thoughts
from latentgym.episodes.rng import derive
from latentgym.errors import UsageError
from latentgym.heads.base import VectorHead
from latentgym.heads.superposition import mix
from latentgym.lm.chunks import in_chunks
from latentgym.lm.mode import mode
from latentgym.lm.model import left_pad
from latentgym.rollout import Policy
from latentgym.training.compression_config import CompressionConfig, Pooling
from latentgym.training.demonstrations import Demonstrations
from latentgym.training.inputs import of_chains
from latentgym.training.order import Order
from latentgym.training.stage import Metrics, QuestionStage, Update

IntArray = npt.NDArray[np.int64]


class Compressed(NamedTuple):
    """A chain whose reasoning is in groups.

    Attributes:
        ids_TS: the tokens of each step, 0 where a group has fewer.
        weights_TS: what each is multiplied with in the sum, fp32.
        groups: how many of the T steps are groups; the others are plain tokens.
    """

    ids_TS: IntArray
    weights_TS: npt.NDArray[np.float32]
    groups: int


def compress(ids: IntArray, reasoning: int, c: int, pooling: Pooling = "sqrt_mean") -> Compressed:
    """Put the first `reasoning` tokens of a chain into groups of c; the last may be smaller.

    Args:
        ids: token ids, int64 (T0,).
        reasoning: how many of them are reasoning.
        c: tokens of a group.
        pooling: divide a sum by the root of its number of tokens, or by the number.
    """
    groups = -(-reasoning // c)
    plain = ids[reasoning:]
    ids_TS = np.zeros((groups + len(plain), c), dtype=np.int64)
    weights_TS = np.zeros(ids_TS.shape, dtype=np.float32)
    ids_TS[:groups].reshape(-1)[:reasoning] = ids[:reasoning]
    weights_TS[:groups].reshape(-1)[:reasoning] = 1
    ids_TS[groups:, 0], weights_TS[groups:, 0] = plain, 1
    size_T1 = weights_TS.sum(1, keepdims=True)
    weights_TS /= np.sqrt(size_T1) if pooling == "sqrt_mean" else size_T1
    return Compressed(ids_TS, weights_TS, groups)


class CompressedBatch(NamedTuple):
    """Compressed demonstrations as tensors.

    Attributes:
        prompt_BP, prompt_mask_BP: prompts with their suffix, padded left.
        ids_BTS, weights_BTS: what is read, padded right.
        label_BT: the token to predict at each step.
        mask_BT, latent_BT, answer_BT: which steps there are, which are groups, which are answers.
    """

    prompt_BP: Tensor
    prompt_mask_BP: Tensor
    ids_BTS: Tensor
    weights_BTS: Tensor
    label_BT: Tensor
    mask_BT: Tensor
    latent_BT: Tensor
    answer_BT: Tensor

    def sequences(self, policy: Policy) -> Sequences:
        """What the model reads, thoughts in their place."""
        kind_BT = torch.full_like(self.label_BT, PositionKind.CHAIN)
        kind_BT[self.latent_BT] = kind_of_thoughts(policy)
        kind_BT[self.answer_BT] = PositionKind.ANSWER
        return of_chains(policy.lm, self, kind_BT * self.mask_BT)


class CompressionLoss(NamedTuple):
    """Sums over a batch; `latent` and `log_std` are means over the width, summed over thoughts."""

    tokens: Tensor
    latent: Tensor
    log_std: Tensor
    right_answers: Tensor


def compression_loss(
    policy: Policy, batch: CompressedBatch, config: CompressionConfig
) -> CompressionLoss:
    """The two losses of a batch, summed over its steps.

    Args:
        policy: its head is a `VectorHead`.
        batch: B demonstrations.
        config: which losses.
    """
    lm, head = policy.lm, policy.head
    assert isinstance(head, VectorHead)
    x_BTD = mix(batch.ids_BTS, batch.weights_BTS, lm.table_VD)
    x = torch.cat([lm.embed(batch.prompt_BP), x_BTD], dim=1)[:, :-1]
    mask = torch.cat([batch.prompt_mask_BP, batch.mask_BT], dim=1)[:, :-1]
    hidden_BTD = lm.hidden(x, mask)[:, batch.prompt_BP.shape[1] - 1 :]

    def of_tokens(hidden_MD: Tensor, label_M: Tensor) -> tuple[Tensor, Tensor]:
        logits_MV = lm.logits(hidden_MD)
        loss_M = nn.functional.cross_entropy(logits_MV, label_M, reduction="none")
        return loss_M, logits_MV.detach().argmax(-1) == label_M

    loss_M, right = in_chunks(
        of_tokens, lm.logits_at_once, hidden_BTD[batch.mask_BT], batch.label_BT[batch.mask_BT]
    )
    tokens, right = loss_M.sum(), right & batch.answer_BT[batch.mask_BT]

    mean_MD, log_std_MD = head.distribution(hidden_BTD[batch.latent_BT])
    # The table learns from the tokens alone, or thoughts would become easy to predict by shrinking.
    target_MD = (x_BTD[batch.latent_BT].detach() / head.scale_of(lm.table_VD)).to(mean_MD)
    squared_MD = (mean_MD - target_MD).square()
    if head.deterministic:
        each_MD = squared_MD
    elif config.latent_loss == "nll":
        each_MD = 0.5 * squared_MD * (-2 * log_std_MD).exp() + log_std_MD
    else:
        each_MD = squared_MD + (2 * log_std_MD).exp() - config.entropy_weight * log_std_MD
    return CompressionLoss(
        tokens, each_MD.mean(-1).sum(), log_std_MD.detach().mean(-1).sum(), right.sum()
    )


class Compression(QuestionStage):
    """Supervised training on compressed chains.

    Args:
        policy: its model and its latent head are trained.
        env: gives demonstrations, one token a step.
        config: settings.
        seed: of the order, of c and of the labels.

    Raises:
        UsageError: settings that cannot work, another head, or soft demonstrations.
    """

    def __init__(self, policy: Policy, env: Any, config: CompressionConfig, seed: int = 0) -> None:
        config.validate()
        if not isinstance(policy.head, VectorHead):
            raise UsageError(
                "compressed chains train a head that predicts vectors (`VectorHead`), such as "
                "GaussianHead; give the policy one."
            )
        self.policy, self.config, self.seed = policy, config, seed
        self.demonstrations = Demonstrations(env)
        self.order = Order(len(self.demonstrations), config.batch_size, seed)
        first = self.demonstrations.item(0)[1]
        if first.ids_TS.shape[1] != 1:
            raise UsageError("compressed chains need one token a step; use a -hybrid environment.")
        if first.inserted_T is not None:
            raise UsageError(
                "chains into which the environment speaks cannot be compressed; choose a task, or "
                "options of this one, without calls."
            )

    def positions(self, question: int) -> int:
        prompt_suffix = len(self.policy.lm.tokenizer.encode(self.config.suffix(self.config.c_max)))
        return (
            self.demonstrations.positions(question) + prompt_suffix
        )  # at most: compression shortens it

    def step(self, number: int, update: Update) -> Metrics:
        c, lm = self.config, self.policy.lm
        indices = self.order.batch(number)
        # A step may not depend on what was drawn before it, or a resumed run would differ.
        rng = np.random.default_rng(derive(self.seed, number, 6))
        speed = int(rng.integers(c.c_min, c.c_max + 1))
        parts = np.array_split(indices, -(-len(indices) // (c.micro_batch or c.batch_size)))
        batches = [self.batch(part, speed, rng) for part in parts]
        steps, thoughts, answers = (
            sum(int(getattr(b, name).sum()) for b in batches)
            for name in ("mask_BT", "latent_BT", "answer_BT")
        )
        sums = torch.zeros(4)

        def losses() -> Iterator[Tensor]:
            for batch in batches:
                out = compression_loss(self.policy, batch, c)
                sums.add_(torch.stack([value.detach().float() for value in out]).cpu())
                yield out.tokens / steps + c.latent_weight * out.latent / max(1, thoughts)

        inside = self.watched(number, lambda: batches[0].sequences(self.policy))
        with mode(lm, training=True):
            grad_norm = update(losses())
        tokens, latent = float(sums[0]) / steps, float(sums[1]) / max(1, thoughts)
        return {
            "train/loss": tokens + c.latent_weight * latent,
            "train/word_loss": tokens,
            "train/latent_loss": latent,
            "train/latent_std": float((sums[2] / max(1, thoughts)).exp()),
            "train/answer_accuracy": float(sums[3]) / max(1, answers),
            "train/grad_norm": grad_norm,
            "train/speed": float(speed),
            **inside,
        }

    def batch(
        self, indices: Sequence[int] | IntArray, c: int, rng: np.random.Generator
    ) -> CompressedBatch:
        """These questions' demonstrations, c tokens a thought; `rng` draws the labels."""
        device, tokenizer = self.policy.lm.device, self.policy.lm.tokenizer
        prompt_suffix = tokenizer.encode(self.config.suffix(c))
        items = [self.demonstrations.item(int(i)) for i in indices]
        chains = [compress(d.ids_TS[:, 0], sum(d.steps), c, self.config.pooling) for _, d in items]
        prompt, prompt_mask = left_pad(
            [[*p, *prompt_suffix] for p, _ in items], tokenizer.pad_id, device
        )
        shape = (len(items), max(len(chain.ids_TS) for chain in chains))
        ids, weights = np.zeros((*shape, c), np.int64), np.zeros((*shape, c), np.float32)
        label = np.zeros(shape, np.int64)
        mask, latent, answer = (np.zeros(shape, bool) for _ in range(3))
        for row, (chain, (_, d)) in enumerate(zip(chains, items, strict=True)):
            t = len(chain.ids_TS)
            ids[row, :t], weights[row, :t] = chain.ids_TS, chain.weights_TS
            member = (rng.random(t) * (chain.weights_TS > 0).sum(1)).astype(np.int64)
            label[row, :t] = np.take_along_axis(chain.ids_TS, member[:, None], 1)[:, 0]
            mask[row, :t], latent[row, : chain.groups] = True, True
            answer[row, chain.groups + d.thoughts - sum(d.steps) : t] = True
        tensors = (
            torch.from_numpy(a).to(device) for a in (ids, weights, label, mask, latent, answer)
        )
        return CompressedBatch(prompt, prompt_mask, *tensors)
