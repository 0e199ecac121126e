"""Latent states of steps of text, fitted by an evidence lower bound (CTRLS).

With x_t the t-th step of a demonstration and z_t its state,

    log p(x) >= sum_t E_Q log p(x_t | x_<t, z_<=t) - sum_t E_Q KL(Q(z_t | x) || P(z_t | z_t-1)),

where Q takes the states of a chain as independent of each other given its text (the head's
`StateEncoder`), p is the frozen language model behind the states' prefixes, and P the head's
transitions. The divergence is summed exactly; the first term is estimated by one draw of all states
of a chain, whose gradient reaches Q through a softmax (straight-through Gumbel-softmax, arXiv
1611.01144).

Legend: B demonstrations, P prompt positions, L positions of prefixes and tokens, T tokens, S steps,
N places for a step's tokens, M some positions, K states, k eigenpairs, D width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from latentgym.analysis.sequences import PositionKind, Sequences
from latentgym.episodes.rng import derive
from latentgym.errors import UsageError
from latentgym.heads.distributions import entropy, masked
from latentgym.heads.rng import CounterRNG
from latentgym.heads.spectral import spectral_summary
from latentgym.heads.transitions import TransitionHead, length_state
from latentgym.lm.chunks import in_chunks
from latentgym.lm.mode import mode
from latentgym.rollout import Policy
from latentgym.training.demonstrations import Demonstrations
from latentgym.training.elbo_config import ELBOConfig
from latentgym.training.order import Order
from latentgym.training.stage import Metrics, QuestionStage, Update
from latentgym.training.stepped import Stepped, cut, stepped

if TYPE_CHECKING:
    from latentgym.envs.task import Demonstration

IntArray = npt.NDArray[np.int64]


def divergence(logq_BSK: Tensor, real_BS: Tensor, log_transitions: Tensor) -> Tensor:
    """sum_t E_Q KL(Q(z_t) || P(z_t | z_t-1)) of chains, (B,).

    Args:
        logq_BSK: log-probabilities of the states of each step.
        real_BS: which steps there are; those of a chain stand first.
        log_transitions: log P, (K + 1, K); the last row is that of the first state.
    """
    q_BSK = logq_BSK.exp()
    first = log_transitions[-1].expand_as(logq_BSK[:, :1])
    prior_BSK = torch.cat([first, q_BSK[:, :-1] @ log_transitions[:-1]], dim=1)
    # 0 log 0 is 0, for states that cannot be.
    each_BSK = masked(q_BSK * (logq_BSK - prior_BSK), q_BSK > 0)
    return masked(each_BSK.sum(-1), real_BS).sum(-1)


def drawn_states(logq_BSK: Tensor, gumbel_BSK: Tensor, relaxation: float) -> Tensor:
    """One state of each step as a one-hot row, (B, S, K), with the gradient of a softmax."""
    perturbed = logq_BSK + gumbel_BSK
    hard = nn.functional.one_hot(perturbed.argmax(-1), logq_BSK.shape[-1]).to(logq_BSK)
    soft = (perturbed / relaxation).softmax(-1)
    return hard + soft - soft.detach()


class ELBO(QuestionStage):
    """Fits prefixes, encoder and transitions to demonstrations; the language model stays.

    Args:
        policy: its head is a `TransitionHead`.
        env: gives demonstrations, one token a step.
        config: settings.
        seed: of the order, the states that are drawn and where the encoder begins.

    Raises:
        UsageError: another head, soft demonstrations, or such with calls.
    """

    def __init__(self, policy: Policy, env: Any, config: ELBOConfig, seed: int = 0) -> None:
        config.validate()
        if not isinstance(policy.head, TransitionHead):
            raise UsageError("this bound is of latent states; give the policy a TransitionHead.")
        self.policy, self.head, self.config, self.seed = policy, policy.head, config, seed
        self.demonstrations = Demonstrations(env)
        self.marked = not env.unwrapped.protocol.think.exact
        self.order = Order(len(self.demonstrations), config.batch_size, seed)
        first = self.demonstrations.item(0)[1]
        if first.ids_TS.shape[1] != 1:
            raise UsageError("steps of text have one token at a time; use a -hybrid environment.")
        if first.inserted_T is not None:
            raise UsageError(
                "states are fitted to a policy's own words, but into these chains the environment "
                "speaks; choose a task, or options of this one, without calls."
            )

    def positions(self, question: int) -> int:
        steps = len(self._steps(self.demonstrations.item(question)[1]))
        return self.demonstrations.positions(question) + steps * self.head.prefix

    def step(self, number: int, update: Update) -> Metrics:
        c = self.config
        indices = self.order.batch(number)
        parts = np.array_split(indices, -(-len(indices) // (c.micro_batch or c.batch_size)))
        batches = [self.batch(part) for part in parts]
        if number == 0:
            self._begin(batches)
        rows = len(indices)
        words = sum(int(batch.word_BL.sum()) for batch in batches)
        sums, used_K = torch.zeros(2), torch.zeros(self.head.states)

        def losses() -> Iterator[Tensor]:
            for batch in batches:
                logp_B, kl_B, logq_BSK = self.bound(batch, number)
                sums.add_(torch.stack([logp_B.sum(), kl_B.sum()]).detach().cpu())
                real_BS = batch.count_BS > 0
                used_K.add_(logq_BSK.detach().exp()[real_BS].sum(0).cpu())
                yield -(logp_B - c.kl_weight * kl_B).sum() / words

        inside = self.watched(number, lambda: self._sequences(batches[0], number))
        with mode(self.policy, training=False):
            grad_norm = update(losses())
        reconstruction, kl = (sums / rows).tolist()
        return {
            "train/loss": -(reconstruction - c.kl_weight * kl) * rows / words,
            "train/elbo": reconstruction - kl,
            "train/state_kl": kl,
            "train/states": float(entropy((used_K / used_K.sum()).log()).exp()),
            "train/grad_norm": grad_norm,
            **inside,
        }

    def bound(self, batch: Stepped, number: int) -> tuple[Tensor, Tensor, Tensor]:
        """Reconstruction and divergence of chains in nats, (B,), and log Q, (B, S, K)."""
        lm = self.policy.lm
        logq_BSK = self._posterior(batch)
        x_BLD = self._read(batch, logq_BSK, number)
        read_BL = torch.cat([batch.prompt_mask_BP, batch.kind_BL != PositionKind.PAD], dim=1)
        x = torch.cat([lm.embed(batch.prompt_BP), x_BLD], dim=1)
        hidden_BLD = lm.hidden(x[:, :-1], read_BL[:, :-1])[:, batch.prompt_BP.shape[1] - 1 :]

        def of_tokens(hidden_MD: Tensor, label_M: Tensor) -> tuple[Tensor]:
            return (-nn.functional.cross_entropy(lm.logits(hidden_MD), label_M, reduction="none"),)

        word_BL = batch.word_BL
        (logp_M,) = in_chunks(
            of_tokens, lm.logits_at_once, hidden_BLD[word_BL], batch.token_BL[word_BL]
        )
        logp_BL = torch.zeros(word_BL.shape, device=logp_M.device).masked_scatter(word_BL, logp_M)
        log_transitions = self.head.transitions.float().log_softmax(-1)
        return logp_BL.sum(-1), divergence(logq_BSK, batch.count_BS > 0, log_transitions), logq_BSK

    def batch(self, indices: Sequence[int] | IntArray) -> Stepped:
        """The demonstrations of these questions, cut where tokens end steps."""
        items = [self.demonstrations.item(int(i)) for i in indices]
        cuts = [self._steps(d) for _, d in items]
        lm, questions = self.policy.lm, np.asarray(indices)
        return stepped(items, cuts, self.head.prefix, questions, lm, marked=self.marked)

    def _steps(self, demonstration: Demonstration) -> list[int]:
        return cut(demonstration, self.head.step_end.cpu().numpy())

    @torch.no_grad()
    def _summaries(self, batch: Stepped) -> tuple[Tensor, Tensor]:
        """Summaries of all steps of a batch, and their numbers of tokens, as rows of (B, S)."""
        lm, N = self.policy.lm, self.head.longest
        # The steps as they are read without prefixes, which depend on the states themselves.
        word_BL = batch.word_BL
        words = [ids[word] for ids, word in zip(batch.token_BL, word_BL, strict=True)]
        token_BT = nn.utils.rnn.pad_sequence(words, batch_first=True)
        there_BT = torch.arange(token_BT.shape[1], device=lm.device) < word_BL.sum(1)[:, None]
        read_BT = torch.cat([batch.prompt_mask_BP, there_BT], dim=1)
        x = lm.embed(torch.cat([batch.prompt_BP, token_BT], dim=1))
        hidden_BTD = lm.hidden(x, read_BT)[:, batch.prompt_BP.shape[1] :]
        # Of a longer step the last N tokens, in the places that the head keeps them in.
        size = (len(words), batch.count_BS.shape[1], N, hidden_BTD.shape[-1])
        step_BSND = torch.zeros(size, device=lm.device)
        row_M, at_M = word_BL.nonzero(as_tuple=True)
        step_M, place_M = batch.step_BL[row_M, at_M], batch.place_BL[row_M, at_M]
        kept = place_M >= batch.count_BS[row_M, step_M] - N
        where = (row_M[kept], step_M[kept], place_M[kept] % N)
        step_BSND[where] = hidden_BTD[there_BT][kept].float()
        count = batch.count_BS.flatten().clamp_max(N)
        return spectral_summary(step_BSND.flatten(0, 1), count, self.head.encoder.k), count

    def _posterior(self, batch: Stepped) -> Tensor:
        """log Q of the state of each step, (B, S, K)."""
        shape = (*batch.count_BS.shape, self.head.states)
        if self.head.encoded == "length":
            known = length_state(batch.count_BS, self.head.states)
            return nn.functional.one_hot(known, self.head.states).float().log()
        e_MkD, _ = self._summaries(batch)
        return self.head.encoder.of_summaries(e_MkD).view(shape)

    def _begin(self, batches: Sequence[Stepped]) -> None:
        """Have the encoder begin with clusters of steps, if it knows none yet."""
        encoder = self.head.encoder
        if self.head.encoded == "length" or encoder.fitted:
            return
        with mode(self.policy, training=False):
            told = [self._summaries(batch) for batch in batches]
        e_MkD = torch.cat([e[count > 0] for e, count in told])
        generator = torch.Generator(e_MkD.device).manual_seed(derive(self.seed, 8))
        encoder.fit(e_MkD, generator)

    def _read(self, batch: Stepped, logq_BSK: Tensor, number: int) -> Tensor:
        """What the model reads behind the prompt: tokens, and vectors of drawn states."""
        lm, head = self.policy.lm, self.head
        zero_B = np.zeros_like(batch.question_B)
        rng = CounterRNG.at(derive(self.seed, number, 9), batch.question_B, zero_B, zero_B)
        # As many numbers for a chain as it has steps, whatever it is batched with.
        uniform = rng.uniform(logq_BSK[0].numel()).to(logq_BSK).view_as(logq_BSK)
        z_BSK = drawn_states(logq_BSK, -(-uniform.log()).log(), self.config.relaxation)
        row_M, at_M = batch.latent_BL.nonzero(as_tuple=True)
        z_MK = z_BSK[row_M, batch.step_BL[row_M, at_M]]
        x_BLD = lm.embed(batch.token_BL)
        latent_MD = head.mixed(z_MK, batch.place_BL[row_M, at_M]) * head.size_of(lm.table_VD)
        latent_MD = latent_MD.to(x_BLD.dtype)
        added = not head.prefix  # to the words that stand there
        return x_BLD.index_put((row_M, at_M), latent_MD, accumulate=added)

    @torch.no_grad()
    def _sequences(self, batch: Stepped, number: int) -> Sequences:
        """What the model reads of demonstrations, states in their place."""
        x_BLD = self._read(batch, self._posterior(batch), number)
        prompt_BP = batch.prompt_mask_BP.long() * PositionKind.PROMPT
        return Sequences(
            torch.cat([batch.prompt_BP, batch.token_BL], dim=1)[:, :-1],
            torch.cat([prompt_BP, batch.kind_BL], dim=1)[:, :-1],
            torch.cat([self.policy.lm.embed(batch.prompt_BP), x_BLD], dim=1)[:, :-1],
        )
