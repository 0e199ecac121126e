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

from latentgym.episodes.protocol import Phase, Protocol
from latentgym.errors import UsageError
from latentgym.heads import Action, Readout
from latentgym.heads.rng import CounterRNG
from latentgym.lm.cache import GroupedCache
from latentgym.lm.model import left_pad
from latentgym.rollout.episode_tensors import EpisodeTensors
from latentgym.rollout.prefix_cache import PrefixCache
from latentgym.rollout.recorder import Recorder
from latentgym.rollout.rollouts import MOST_STEPS, IntArray, Rollouts, StepKind
from latentgym.rollout.step import Chosen, Doing, carried, choose, inputs, log_probs, look, thoughts
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
        device = self.policy.lm.device
        self.state = EpisodeTensors(protocol, n, device)
        self.recorder = Recorder(n, device)
        self._discarded = torch.zeros((), dtype=torch.int64, device=device)
        given = 0 if given_QkD is None else given_QkD.shape[1]
        length_N = np.array([len(prompts[i]) + given for i in self.prompt_N], dtype=np.int64)
        self._length_N, self._prompt_N = map(self._to_device, (length_N, self.prompt_N))
        self._rng = CounterRNG.of_rows(seed, self.question_N, self.sample_N, device)
        if noise_free:
            self._rng = self._rng.noise_free(self.sample_N < noise_free)
        self._given_QkD = given_QkD
        self._group = group_size
        self._table_VD = self.policy.lm.table_VD.detach()  # once: a model may scale it
        self._rows = torch.arange(n, device=device)  # the row behind each place of the batch
        self._head_state = self.policy.head.initial_state(n, device)
        self._thought_steps = 0

    def begin(
        self, prefix: Sequence[Sequence[int]] | None, prefix_cache: PrefixCache | None
    ) -> None:
        """Read the prompts, and the actions that the rows are given; see `Engine.start`."""
        if prefix is not None:
            self._take(prefix)
        taken_Q = self.recorder.step_N[:: self._group].tolist()
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
                given = given[self._prompt_N.to(given.device)]
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
        state, length_N = self.state, self._to_device(lengths_Q[self.prompt_N])
        for t, token_N in enumerate(self._to_device(token_QT[self.prompt_N].T)):
            acting = self._live() & (state.forced() < 0) & (t < length_N)
            as_token = state.advance(token_N, acting)
            kind_N = torch.where(as_token, int(StepKind.TOKEN), int(StepKind.THOUGHT))
            kind_N = kind_N.masked_fill(~acting, int(StepKind.PAD)).to(torch.int8)
            self.recorder.record(self._rows, token_N, kind_N, {}, None)

    @property
    def discarded(self) -> int:
        """Positions that were computed for rows that stood still."""
        return int(self._discarded)

    @property
    def waiting(self) -> IntArray:
        """Rows for which the environment must respond before they go on."""
        return np.flatnonzero((self.state.phase == Phase.TOOL_CALL).cpu().numpy())

    def run(self, *, answers: bool = True) -> None:
        """Decode until every row is done or waits for the environment.

        Args:
            answers: False stops rows that are about to answer; see `standing`.
        """
        every = self.engine.steps_between_looks(self.policy.lm.device)
        with self.policy.lm.decoding():
            step = 0
            while (doing := self._look_ahead(answers, every)) is not None:
                for _ in range(every):
                    self._step(doing, answers, every)
                    step += 1
                    if self.engine.compact_every and step % self.engine.compact_every == 0:
                        self._compact()

    def _look_ahead(self, answers: bool, steps: int) -> Doing | None:
        """What rows may do in the next steps; None if none does anything. It waits for them."""
        state, rows = self.state, self._rows
        phase_B, forced_B = (x[rows].cpu().numpy() for x in (state.phase, state.forced_left))
        thinking_B, answers_B = phase_B == Phase.THINK, phase_B == Phase.ANSWER
        live_B = thinking_B | (answers_B if answers else answers_B & (forced_B > 0))
        if not live_B.any():
            return None
        thinking = bool(thinking_B.any())
        if steps == 1:
            answering = bool((live_B & answers_B & (forced_B == 0)).any())
            idle = not live_B.all() and bool((~live_B & (phase_B != Phase.DONE)).any())
            return Doing(thinking, answering, idle)
        # Rows go from thinking to answering, and never back while nobody responds to them.
        return Doing(thinking, answers, self.protocol.tool_call is not None or not answers)

    def insert(self, rows: IntArray, ids: Sequence[Sequence[int]]) -> None:
        """The environment speaks: append tokens to waiting rows, which then think on.

        Args:
            rows: row numbers, as in `waiting`.
            ids: for each of them the token ids to insert, at least one.

        Raises:
            UsageError: the model has too few positions for them and for what may follow.
        """
        lm, n, limit = self.policy.lm, max(map(len, ids)), self.policy.lm.max_positions
        at = self._to_device(rows)
        steps_N = self.recorder.step_N - self.state.think_used + self.protocol.turn_steps
        longest = int((self._length_N + steps_N)[at].max()) + n
        if limit is not None and longest > limit:
            raise UsageError(
                f"with {n} inserted tokens an episode may take {longest} positions, but the model "
                f"has {limit}; {SHORTER}."
            )
        place = {row: i for i, row in enumerate(self._rows.tolist())}
        token_Bn = np.full((len(self._rows), n), lm.tokenizer.pad_id, dtype=np.int64)
        mask_Bn = np.zeros((len(self._rows), n), dtype=bool)
        for row, new in zip(rows, ids, strict=True):
            token_Bn[place[int(row)], n - len(new) :] = new
            mask_Bn[place[int(row)], n - len(new) :] = True
        mask, token = self._to_device(mask_Bn), self._to_device(token_Bn)
        position_B = (self._length_N + self.recorder.step_N)[self._rows]
        position = (position_B[:, None] + mask.cumsum(1) - 1).clamp_min(0)
        with lm.decoding():
            hidden = lm.extend(lm.embed(token), position, self._cache, mask)[:, -1]
            self._hidden_BD = torch.where(mask[:, -1:], hidden, self._hidden_BD)
            kind = mask.to(torch.int8) * int(StepKind.INSERTED)  # PAD is 0
            for column in range(n):
                self.recorder.record(self._rows, token[:, column], kind[:, column], {}, None)
            self._discarded += (~mask).sum()
            self.state.resume(at)

    def finish(self) -> Rollouts:
        """The record of all rows so far."""
        return Rollouts(
            prompts=self.prompts,
            prompt_N=self.prompt_N,
            question_N=self.question_N,
            sample_N=self.sample_N,
            **self.recorder.arrays(log_probs=self.engine.record_log_probs),
            terminated_N=self.state.terminated.cpu().numpy().copy(),
            truncated_N=self.state.truncated.cpu().numpy().copy(),
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
        if bool((self.state.phase != Phase.ANSWER).any() or self.state.forced_left.any()):
            raise UsageError(
                "some episodes end or wait before their answer, so it cannot be chosen for them; "
                "use an environment that forces answers and has no calls."
            )
        return DecodeState(self._cache, self._hidden_BD, self._length_N + self.recorder.step_N)

    def _live(self, answers: bool = True) -> Tensor:
        """Which rows act next, (N,)."""
        phase_N: Tensor = self.state.phase
        answering_N = phase_N == Phase.ANSWER
        if not answers:
            answering_N = answering_N & (self.state.forced_left > 0)
        return (phase_N == Phase.THINK) | answering_N

    def _step(self, doing: Doing, answers: bool, steps: int) -> None:
        """One step of the batch.

        Args:
            doing: what rows may do in it.
            answers: see `run`.
            steps: after so many one looks whether any row goes on.
        """
        phase_B, live_N = self.state.phase[self._rows], self._live(answers)
        read = self._readout()
        chosen = self._choose(phase_B, live_N[self._rows], read, doing)
        kind_B = chosen.kinds(self._count(chosen, phase_B, live_N))
        self._record(chosen, kind_B, read)
        if self._head_state and doing.thinking:
            thinking_B = phase_B == Phase.THINK
            self._head_state = carried(chosen.state, self._head_state, thinking_B)
        if steps > 1 or bool((self.state.phase != Phase.DONE).any()):
            self._read(chosen, kind_B, phase_B, doing)

    def _choose(self, phase_B: Tensor, live_B: Tensor, read: Readout, doing: Doing) -> Chosen:
        """What each row of the batch does next."""
        rows, forced_B = self._rows, self.state.forced()[self._rows]
        rng = self._rng[rows].at_step(self.recorder.step_N[rows])
        answering_B = (phase_B == Phase.ANSWER) & (forced_B < 0) & live_B
        return choose(self.policy, read, rng, phase_B == Phase.THINK, answering_B, forced_B, doing)

    def _count(self, chosen: Chosen, phase_B: Tensor, live_N: Tensor) -> Tensor:
        """Advance the episodes; which of the actions are thoughts that did not end thinking."""
        token_N = torch.zeros_like(self.state.phase).index_copy(0, self._rows, chosen.token_B)
        as_token_N: Tensor = self.state.advance(token_N, live_N)
        return (phase_B == Phase.THINK) & ~as_token_N[self._rows]

    def _record(self, chosen: Chosen, kind_B: Tensor, read: Readout) -> None:
        logp_B = None
        if self.engine.record_log_probs:
            logp_B = log_probs(self.policy, read, chosen, kind_B)
        self.recorder.record(
            *(
                self._rows,
                chosen.token_B,
                kind_B,
                chosen.thought,
                logp_B,
                self._look(chosen, kind_B, read),
            )
        )
        self._discarded += (kind_B == StepKind.PAD).sum()

    def _look(self, chosen: Chosen, kind_B: Tensor, read: Readout) -> Action:
        """What is kept of the thoughts to look at; nothing of those that come too late."""
        most = self.engine.keep_thoughts
        if not most or not chosen.thought:
            return {}
        self._thought_steps += 1
        if self._thought_steps > MOST_STEPS:  # rows that waited may have made fewer
            early_B = self.state.think_used[self._rows] <= MOST_STEPS
            if not bool((thoughts(kind_B) & early_B).any()):
                return {}
        return look(self.policy, read, chosen.thought, most)

    def _read(self, chosen: Chosen, kind_B: Tensor, phase_B: Tensor, doing: Doing) -> None:
        """Feed the model what was chosen; rows that wait keep their hidden state."""
        x_BD = inputs(self.policy, chosen, kind_B, self._table_VD)
        position_B = (self._length_N + self.recorder.step_N)[self._rows] - 1
        lm, mask = self.policy.lm, None
        if doing.idle:
            mask = (chosen.acting_B | (phase_B == Phase.DONE))[:, None]
        hidden = lm.extend(x_BD[:, None], position_B[:, None], self._cache, mask)[:, 0]
        self._hidden_BD = hidden if mask is None else torch.where(mask, hidden, self._hidden_BD)

    def _readout(self) -> Readout:
        lm, memory, mask = self.policy.lm, None, None
        if self._memory is not None:
            at = self._prompt_N[self._rows] if self.engine.share_prompts else self._rows
            memory, mask = self._memory[at], self._memory_mask[at]
        logits_BV = lm.logits(self._hidden_BD)
        return Readout(
            logits_BV, self._hidden_BD, self._table_VD, memory, mask, dict(self._head_state)
        )

    def _compact(self) -> None:
        keep = torch.nonzero(self.state.phase[self._rows] != Phase.DONE)[:, 0]
        # Copying what stays must cost less than carrying the rest along.
        if 0 < len(keep) <= 0.9 * len(self._rows):
            self._cache.keep(keep)
            self._hidden_BD = self._hidden_BD[keep]
            self._head_state = {name: x[keep] for name, x in self._head_state.items()}
            self._rows = self._rows[keep]

    def _to_device(self, array: npt.NDArray[np.generic]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.policy.lm.device)
