"""The rows of a rollout where the model is, and their step in tensors of fixed shapes.

Nothing here looks at what the tensors hold, so a step neither waits for the device nor depends on
anything but shapes, and `torch.compile` takes it as a whole.

Legend: Q prompts, G rows per prompt, N rows in all, B rows still in the batch, D width, P prompt
positions, E what a head remembers of each.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from latentgym.episodes.protocol import Phase, Protocol
from latentgym.heads import Readout
from latentgym.heads.base import State
from latentgym.heads.rng import CounterRNG
from latentgym.lm.joining import end_to_end, joined
from latentgym.lm.model import Prefill
from latentgym.rollout.episode_tensors import EpisodeTensors
from latentgym.rollout.policy import Policy
from latentgym.rollout.recorder import Frame, Recorder
from latentgym.rollout.rollouts import StepKind
from latentgym.rollout.step import (
    Chosen,
    Doing,
    carried,
    choose,
    first_state,
    inputs,
    log_probs,
    look,
)

# Plain numbers: torch's compiler takes a member of an enumeration to equal no tensor.
THINK, ANSWER, DONE, PAD = map(int, (Phase.THINK, Phase.ANSWER, Phase.DONE, StepKind.PAD))


@dataclass
class Batch:
    """Rows in flight.

    Attributes:
        policy: that acts.
        state: of the N episodes.
        rng: random numbers of the N rows, of all their steps.
        length_N: positions of each row's prompt.
        step_N: steps that each row has made.
        rows: the row behind each place of the batch, (B,).
        prompt_N: the prompt of each row, as what the head remembers has them.
        hidden_BD: last hidden state of each.
        head_state: of the head, (B, ...).
        table_VD: the input embedding table, taken once.
        discarded: positions that were computed for rows that stood still.
        finite: whether all hidden states were.
    """

    policy: Policy
    protocol: Protocol
    rng: CounterRNG
    length_N: Tensor
    prompt_N: Tensor

    def __post_init__(self) -> None:
        n, device = len(self.length_N), self.length_N.device
        self.state = EpisodeTensors(self.protocol, n, device)
        self.step_N = torch.zeros_like(self.length_N)
        self.rows = torch.arange(n, device=device)
        self.head_state: State = first_state(self.policy.head, n, device)
        self.table_VD = self.policy.lm.table_VD.detach()  # a model may scale it
        self.discarded = torch.zeros((), dtype=torch.int64, device=device)
        self.finite = torch.ones((), dtype=torch.bool, device=device)

    def begin(self, prefill: Prefill) -> None:
        """Stand behind prompts that were read."""
        self.cache, self.hidden_BD = prefill.cache, prefill.hidden_ND
        head, self.memory_QPE, self.memory_mask_QP = self.policy.head, None, prefill.memory_mask_QP
        if head.needs_memory and prefill.memory_QPD is not None:
            self.memory_QPE = head.remember(prefill.memory_QPD, prefill.memory_mask_QP)

    def live(self, answers: bool = True) -> Tensor:
        """Which rows act next, (N,).

        Args:
            answers: False stops rows that are about to answer.
        """
        phase_N: Tensor = self.state.phase
        answering_N = phase_N == ANSWER
        if not answers:
            answering_N = answering_N & (self.state.forced_left > 0)
        return (phase_N == THINK) | answering_N

    def act(
        self, doing: Doing, answers: bool, *, log_prob: bool, heaviest: int
    ) -> tuple[Frame, Chosen]:
        """Choose and count what the rows do next.

        Args:
            doing: what rows may do.
            answers: see `live`.
            log_prob: keep the log-probability of each action.
            heaviest: keep so many of the heaviest tokens of each thought.

        Returns:
            What there is to write down, and what `read` needs.
        """
        rows, phase_B, live_N = self.rows, self.state.phase[self.rows], self.live(answers)
        thinking_B, forced_B = phase_B == THINK, self.state.forced()[rows]
        answering_B = (phase_B == ANSWER) & (forced_B < 0) & live_N[rows]
        step_B, read = self.step_N[rows], self._readout()
        rng = self.rng[rows].at_step(step_B)
        chosen = choose(self.policy, read, rng, thinking_B, answering_B, forced_B, doing)
        token_N = torch.zeros_like(self.state.phase).index_copy(0, rows, chosen.token_B)
        as_token_N: Tensor = self.state.advance(token_N, live_N)
        kind_B = chosen.kinds(thinking_B & ~as_token_N[rows])
        logp_B = log_probs(self.policy, read, chosen, kind_B) if log_prob else None
        seen = look(self.policy, read, chosen.thought, heaviest) if heaviest else {}
        if self.head_state and doing.thinking:
            self.head_state = carried(chosen.state, self.head_state, thinking_B)
        self.count(kind_B)
        frame = Frame(rows, step_B, chosen.token_B, kind_B, chosen.thought, logp_B, seen)
        return frame, chosen

    def read(self, frame: Frame, chosen: Chosen, doing: Doing) -> None:
        """Feed the model what was chosen; rows that wait keep their hidden state."""
        rows, mask = self.rows, None
        x_BD = inputs(self.policy, chosen, frame.kind_B, self.table_VD)
        position_B = (self.length_N + self.step_N)[rows] - 1
        if doing.idle:
            mask = (chosen.acting_B | (self.state.phase[rows] == DONE))[:, None]
        hidden = self.policy.lm.extend(x_BD[:, None], position_B[:, None], self.cache, mask)[:, 0]
        self.finite &= hidden.isfinite().all()
        self.hidden_BD = hidden if mask is None else torch.where(mask, hidden, self.hidden_BD)

    def insert(self, token_Bn: Tensor, mask_Bn: Tensor, recorder: Recorder) -> None:
        """Read and record n positions that the environment puts behind some rows.

        Args:
            token_Bn: token ids, padded on the left.
            mask_Bn: which of them are real; none of rows that get nothing.
            recorder: writes them down.
        """
        lm, position_B = self.policy.lm, (self.length_N + self.step_N)[self.rows]
        position_Bn = (position_B[:, None] + mask_Bn.cumsum(1) - 1).clamp_min(0)
        hidden_BD = lm.extend(lm.embed(token_Bn), position_Bn, self.cache, mask_Bn)[:, -1]
        self.hidden_BD = torch.where(mask_Bn[:, -1:], hidden_BD, self.hidden_BD)
        kind_Bn = mask_Bn.to(torch.int8) * int(StepKind.INSERTED)  # PAD is 0
        for token_B, kind_B in zip(token_Bn.T, kind_Bn.T, strict=True):
            recorder.record(Frame(self.rows, self.step_N[self.rows], token_B, kind_B))
            self.count(kind_B)

    def count(self, kind_B: Tensor) -> None:
        """Count a step of the rows that made one, and positions of those that did not."""
        made_B = kind_B != PAD
        self.step_N = self.step_N.index_add(0, self.rows, made_B.long())
        self.discarded += (~made_B).sum()

    def keep(self, places: Tensor) -> None:
        """Go on with these places of the batch alone."""
        self.cache.keep(places)
        self.hidden_BD, self.rows = self.hidden_BD[places], self.rows[places]
        self.head_state = {name: x[places] for name, x in self.head_state.items()}

    def select(self, rows: Tensor) -> None:
        """Go on with these rows alone, which are numbered anew in that order.

        Args:
            rows: their numbers, ascending. Those that are done may have left the batch.
        """
        n = len(self.length_N)
        number_N = torch.full((n,), -1, device=rows.device)
        number_N[rows] = torch.arange(len(rows), device=rows.device)
        places = torch.nonzero(number_N[self.rows] >= 0)[:, 0]
        if len(places) < len(self.rows):
            self.keep(places)
        self.rows = number_N[self.rows]
        self.state, self.rng = self.state.select(rows), self.rng[rows]
        self.length_N, self.step_N = self.length_N[rows], self.step_N[rows]
        used_Q, self.prompt_N = torch.unique(self.prompt_N[rows], return_inverse=True)
        self.memory_mask_QP = self.memory_mask_QP[used_Q]
        if self.memory_QPE is not None:
            self.memory_QPE = self.memory_QPE[used_Q]

    def join(self, other: Batch) -> None:
        """Take the rows of another batch of the same policy and rules along, behind these."""
        n, prompts = len(self.length_N), len(self.memory_mask_QP)
        self.cache = joined(self.cache, other.cache)
        self.hidden_BD = torch.cat([self.hidden_BD, other.hidden_BD])
        both = self.head_state, other.head_state
        self.head_state = {name: torch.cat([state[name] for state in both]) for name in both[0]}
        self.rows = torch.cat([self.rows, other.rows + n])
        self.state, self.rng = self.state.joined(other.state), self.rng.joined(other.rng)
        self.length_N = torch.cat([self.length_N, other.length_N])
        self.step_N = torch.cat([self.step_N, other.step_N])
        self.prompt_N = torch.cat([self.prompt_N, other.prompt_N + prompts])
        self.memory_mask_QP = end_to_end(self.memory_mask_QP, other.memory_mask_QP)
        if self.memory_QPE is not None and other.memory_QPE is not None:
            self.memory_QPE = end_to_end(self.memory_QPE, other.memory_QPE)

    def _readout(self) -> Readout:
        memory, mask = None, None
        if self.memory_QPE is not None:
            at = self.prompt_N[self.rows]
            memory, mask = self.memory_QPE[at], self.memory_mask_QP[at]
        logits_BV = self.policy.lm.logits(self.hidden_BD)
        state = dict(self.head_state)
        return Readout(logits_BV, self.hidden_BD, self.table_VD, memory, mask, state)
