"""Rollouts in flight: a batch of rows behind one cache, from their prompts to their answers.

Legend: Q prompts, G rows per prompt, N rows in all, B rows still in the batch, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from latentgym.episodes.protocol import BoolArray, EpisodeState, Phase, Protocol
from latentgym.episodes.rng import CounterRNG
from latentgym.errors import UsageError
from latentgym.heads import Action, Readout
from latentgym.lm.cache import GroupedCache
from latentgym.lm.model import left_pad
from latentgym.rollout.prefix_cache import PrefixCache
from latentgym.rollout.recorder import Recorder
from latentgym.rollout.rollouts import MOST_STEPS, THOUGHTS, IntArray, Rollouts, StepKind
from latentgym.rollout.step import Chosen, carried, choose, inputs, log_probs, look
from latentgym.text.lengths import SHORTER

if TYPE_CHECKING:
    from latentgym.rollout.engine import Engine


@dataclass(frozen=True)
class DecodeState:
    """Where rows stand: what is known of them when their next token is to be chosen.

    Attributes:
        cache: of all that was read, N rows.
        hidden_ND: last hidden state of each.
        position_N: of the token to come.
    """

    cache: GroupedCache
    hidden_ND: Tensor
    position_N: Tensor


class Session:
    """Rollouts in flight. Made by `Engine.start`."""

    def __init__(
        self,
        engine: Engine,
        prompts: list[list[int]],
        protocol: Protocol,
        seed: int,
        group_size: int,
        question_Q: IntArray,
        first_sample: int | IntArray,
        noise_free: int,
        given_QkD: Tensor | None,
    ) -> None:
        self.engine, self.policy, self.protocol = engine, engine.policy, protocol
        self.prompts, self.seed = prompts, seed
        n = len(prompts) * group_size
        self.prompt_N = np.repeat(np.arange(len(prompts)), group_size)
        self.question_N = question_Q.astype(np.int64)[self.prompt_N]
        first_Q = np.broadcast_to(np.asarray(first_sample, dtype=np.int64), len(prompts))
        self.sample_N = (first_Q[:, None] + np.arange(group_size)).ravel()
        self.noise_free_N = self.sample_N < noise_free
        self.state = EpisodeState(protocol, n)
        self.recorder = Recorder(n)
        self.step_N = self.recorder.step_N
        self.discarded = 0
        given = 0 if given_QkD is None else given_QkD.shape[1]
        self._length_N = np.array([len(prompts[i]) + given for i in self.prompt_N], dtype=np.int64)
        self._given_QkD = given_QkD
        self._group = group_size
        self._table_VD = self.policy.lm.table_VD.detach()  # once: a model may scale it
        self._rows = np.arange(n)  # the row behind each place of the batch
        self._head_state = self.policy.head.initial_state(n, self.policy.lm.device)

    def begin(
        self, prefix: Sequence[Sequence[int]] | None, prefix_cache: PrefixCache | None
    ) -> None:
        """Read the prompts, and the actions that the rows are given; see `Engine.start`."""
        if prefix is not None:
            self._take(prefix)
        taken_Q = self.step_N[:: self._group]
        read = [
            [*prompt, *(prefix[i][: taken_Q[i]] if prefix is not None else ())]
            for i, prompt in enumerate(self.prompts)
        ]
        lm, shared = self.policy.lm, self.engine.share_prompts
        memory = self.policy.head.needs_memory
        if prefix_cache is not None:
            prefill = prefix_cache.read(self.question_N[:: self._group].tolist(), read, self._group)
        else:
            rows = read if shared else [read[i] for i in self.prompt_N]
            ids, mask = left_pad(rows, lm.tokenizer.pad_id, lm.device)
            given = self._given_QkD
            if given is not None and not shared:
                given = given[self._to_device(self.prompt_N).to(given.device)]
            with lm.decoding():
                prefill = lm.prefill(
                    ids, mask, self._group if shared else 1, memory=memory, given_QkD=given
                )
        self._cache, self._hidden_BD = prefill.cache, prefill.hidden_ND
        self._memory = prefill.memory_QPD if memory else None
        self._memory_mask = prefill.memory_mask_QP

    def _take(self, prefix: Sequence[Sequence[int]]) -> None:
        """Count and record given actions, up to the end or to where the environment responds."""
        lengths_Q = np.array([len(ids) for ids in prefix])
        token_QT = np.zeros((len(prefix), int(lengths_Q.max(initial=0))), dtype=np.int64)
        for row, ids in zip(token_QT, prefix, strict=True):
            row[: len(ids)] = ids
        for t, token_Q in enumerate(token_QT.T):
            state, token_N = self.state, token_Q[self.prompt_N]
            acting = self._live() & (state.forced() < 0) & (t < lengths_Q[self.prompt_N])
            as_token = state.advance(token_N, acting)
            kind_N = np.where(as_token, StepKind.TOKEN, StepKind.THOUGHT)
            self.recorder.record(
                self._rows, token_N, np.where(acting, kind_N, StepKind.PAD), {}, None
            )

    @property
    def waiting(self) -> IntArray:
        """Rows for which the environment must respond before they go on."""
        return np.flatnonzero(self.state.phase == Phase.TOOL_CALL)

    def run(self, *, answers: bool = True) -> None:
        """Decode until every row is done or waits for the environment.

        Args:
            answers: False stops rows that are about to answer; see `standing`.
        """
        with self.policy.lm.decoding():
            step = 0
            while self._live(answers).any():
                self._step(answers)
                step += 1
                if self.engine.compact_every and step % self.engine.compact_every == 0:
                    self._compact()

    def insert(self, rows: IntArray, ids: Sequence[Sequence[int]]) -> None:
        """The environment speaks: append tokens to waiting rows, which then think on.

        Args:
            rows: row numbers, as in `waiting`.
            ids: for each of them the token ids to insert, at least one.

        Raises:
            UsageError: the model has too few positions for them and for what may follow.
        """
        lm, n, limit = self.policy.lm, max(map(len, ids)), self.policy.lm.max_positions
        steps = self.step_N[rows] - self.state.think_used[rows] + self.protocol.turn_steps
        longest = int((self._length_N[rows] + steps).max()) + n
        if limit is not None and longest > limit:
            raise UsageError(
                f"with {n} inserted tokens an episode may take {longest} positions, but the model "
                f"has {limit}; {SHORTER}."
            )
        place = {int(row): i for i, row in enumerate(self._rows)}
        token_Bn = np.full((len(self._rows), n), lm.tokenizer.pad_id, dtype=np.int64)
        mask_Bn = np.zeros((len(self._rows), n), dtype=bool)
        for row, new in zip(rows, ids, strict=True):
            token_Bn[place[int(row)], n - len(new) :] = new
            mask_Bn[place[int(row)], n - len(new) :] = True
        position_Bn = (self._length_N + self.step_N)[self._rows][:, None] + mask_Bn.cumsum(1) - 1
        mask = self._to_device(mask_Bn)
        with lm.decoding():
            x_BnD = lm.embed(self._to_device(token_Bn))
            position = self._to_device(position_Bn.clip(min=0))
            hidden = lm.extend(x_BnD, position, self._cache, mask)[:, -1]
        self._hidden_BD = torch.where(mask[:, -1:], hidden, self._hidden_BD)
        kind_Bn = np.where(mask_Bn, StepKind.INSERTED, StepKind.PAD)
        for column in range(n):
            self.recorder.record(self._rows, token_Bn[:, column], kind_Bn[:, column], {}, None)
        self.discarded += int((~mask_Bn).sum())
        self.state.resume(np.asarray(rows, dtype=np.int64))

    def finish(self) -> Rollouts:
        """The record of all rows so far."""
        return Rollouts(
            prompts=self.prompts,
            prompt_N=self.prompt_N,
            question_N=self.question_N,
            sample_N=self.sample_N,
            **self.recorder.arrays(log_probs=self.engine.record_log_probs),
            terminated_N=self.state.terminated.copy(),
            truncated_N=self.state.truncated.copy(),
            seed=self.seed,
            discarded=self.discarded,
            given_QkD=self._given_QkD,
        )

    @property
    def decode_state(self) -> DecodeState:
        """Where the rows stand, once `run(answers=False)` has brought them to their answers.

        Raises:
            UsageError: not all of them are there.
        """
        if (self.state.phase != Phase.ANSWER).any() or self.state.forced_left.any():
            raise UsageError(
                "some episodes end or wait before their answer, so it cannot be chosen for them; "
                "use an environment that forces answers and has no calls."
            )
        position = self._to_device(self._length_N + self.step_N)
        return DecodeState(self._cache, self._hidden_BD, position)

    def _live(self, answers: bool = True) -> BoolArray:
        """Which rows of the batch act next."""
        phase = self.state.phase[self._rows]
        answering = phase == Phase.ANSWER
        if not answers:
            answering &= self.state.forced_left[self._rows] > 0
        live: BoolArray = (phase == Phase.THINK) | answering
        return live

    def _step(self, answers: bool = True) -> None:
        phase, live = self.state.phase[self._rows], self._live(answers)
        read = self._readout()
        chosen = self._choose(phase, live, read)
        kind_B = chosen.kinds(self._count(chosen, phase, live))
        self._record(chosen, kind_B, read)
        if self._head_state:
            thinking_B = self._to_device(phase == Phase.THINK)
            self._head_state = carried(chosen.state, self._head_state, thinking_B)
        if self._live().any() or self.waiting.size:
            self._read(chosen, kind_B, phase)

    def _choose(self, phase: IntArray, live: BoolArray, read: Readout) -> Chosen:
        """What each row of the batch does next."""
        rows, forced = self._rows, self.state.forced()[self._rows]
        rng = CounterRNG.at(
            self.seed, self.question_N[rows], self.sample_N[rows], self.step_N[rows]
        )
        answering = (phase == Phase.ANSWER) & (forced < 0) & live
        rng = rng.noise_free(self.noise_free_N[rows])
        return choose(self.policy, read, rng, phase == Phase.THINK, answering, forced)

    def _count(self, chosen: Chosen, phase: IntArray, live: BoolArray) -> BoolArray:
        """Advance the episodes; which of the actions are thoughts that did not end thinking."""
        token_N = np.zeros(len(self.state.phase), dtype=np.int64)
        acting_N = np.zeros(len(self.state.phase), dtype=bool)
        token_N[self._rows], acting_N[self._rows] = chosen.token_B, live
        as_token = self.state.advance(token_N, acting_N)[self._rows]
        latent_B: BoolArray = (phase == Phase.THINK) & ~as_token
        return latent_B

    def _record(self, chosen: Chosen, kind_B: IntArray, read: Readout) -> None:
        logp_B = None
        if self.engine.record_log_probs:
            logp_B = log_probs(self.policy, read, chosen, kind_B)
        seen = self._look(chosen, kind_B, read)
        self.recorder.record(self._rows, chosen.token_B, kind_B, chosen.thought, logp_B, seen)
        self.discarded += int((kind_B == StepKind.PAD).sum())

    def _look(self, chosen: Chosen, kind_B: IntArray, read: Readout) -> Action:
        """What is kept of the thoughts to look at; nothing of those that come too late."""
        most, made_B = self.engine.keep_thoughts, self.state.think_used[self._rows]
        if not most or not (np.isin(kind_B, THOUGHTS) & (made_B <= MOST_STEPS)).any():
            return {}
        return look(self.policy, read, chosen.thought, most)

    def _read(self, chosen: Chosen, kind_B: IntArray, phase: IntArray) -> None:
        """Feed the model what was chosen; rows that wait keep their hidden state."""
        x_BD = inputs(self.policy, chosen, kind_B, self._table_VD)
        rows = self._rows
        position = self._to_device(self._length_N[rows] + self.step_N[rows] - 1)
        idle = ~chosen.acting_B & (phase != Phase.DONE)
        mask = self._to_device(~idle)[:, None] if idle.any() else None
        lm = self.policy.lm
        hidden = lm.extend(x_BD[:, None], position[:, None], self._cache, mask)[:, 0]
        self._hidden_BD = hidden if mask is None else torch.where(mask, hidden, self._hidden_BD)

    def _readout(self) -> Readout:
        lm, memory, mask = self.policy.lm, None, None
        if self._memory is not None:
            shared = self.engine.share_prompts
            at = self._to_device(self.prompt_N[self._rows] if shared else self._rows)
            memory, mask = self._memory[at], self._memory_mask[at]
        logits_BV = lm.logits(self._hidden_BD)
        return Readout(
            logits_BV, self._hidden_BD, self._table_VD, memory, mask, dict(self._head_state)
        )

    def _compact(self) -> None:
        keep = np.flatnonzero(self.state.phase[self._rows] != Phase.DONE)
        # Copying what stays must cost less than carrying the rest along.
        if 0 < len(keep) <= 0.9 * len(self._rows):
            index = self._to_device(keep)
            self._cache.keep(index)
            self._hidden_BD = self._hidden_BD[index]
            self._head_state = {name: x[index] for name, x in self._head_state.items()}
            self._rows = self._rows[keep]

    def _to_device(self, array: npt.NDArray[np.generic]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.policy.lm.device)
