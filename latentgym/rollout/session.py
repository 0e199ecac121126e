"""Rollouts in flight: a batch of rows behind one cache, from their prompts to their answers.

Legend: Q prompts, G rows per prompt, N rows in all, B rows still in the batch, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from latentgym.episodes.protocol import Phase, Protocol
from latentgym.errors import ActionError, UsageError
from latentgym.heads.rng import CounterRNG
from latentgym.lm.cache import GroupedCache
from latentgym.lm.fixed_cache import FixedCache
from latentgym.lm.model import left_pad
from latentgym.rollout.batch import Batch
from latentgym.rollout.compiled import compiled_step, whole_groups
from latentgym.rollout.prefix_cache import PrefixCache
from latentgym.rollout.recorder import Frame, Recorder
from latentgym.rollout.rollouts import MOST_STEPS, IntArray, Rollouts, StepKind
from latentgym.rollout.step import Doing
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
        given = 0 if given_QkD is None else given_QkD.shape[1]
        length_N = np.array([len(prompts[i]) + given for i in self.prompt_N], dtype=np.int64)
        rng = CounterRNG.of_rows(seed, self.question_N, self.sample_N, self.policy.lm.device)
        if noise_free:
            rng = rng.noise_free(self.sample_N < noise_free)
        # Where prompts are read once for each row, each row has one of its own.
        prompt_N = self.prompt_N if engine.share_prompts else np.arange(n)
        self._batch = Batch(
            self.policy, protocol, rng, self._to_device(length_N), self._to_device(prompt_N)
        )
        self.recorder = Recorder(n)
        self._given_QkD, self._group = given_QkD, group_size
        self._thought_steps, self._begun = 0, False

    def begin(
        self, prefix: Sequence[Sequence[int]] | None, prefix_cache: PrefixCache | None
    ) -> None:
        """Read the prompts, and the actions that the rows are given; see `Engine.start`."""
        if prefix is not None:
            self._begin_with(prefix)
        taken_Q = self._batch.step_N[:: self._group].tolist()
        read = [
            [*prompt, *(prefix[i][: taken_Q[i]] if prefix is not None else ())]
            for i, prompt in enumerate(self.prompts)
        ]
        lm, shared = self.policy.lm, self.engine.share_prompts
        memory = self.policy.head.needs_memory
        if prefix_cache is not None:
            keys = self.question_N[:: self._group].tolist()
            with self._decoding():
                prefill = prefix_cache.read(keys, read, self._group)
        else:
            rows = read if shared else [read[i] for i in self.prompt_N]
            ids, mask = left_pad(rows, lm.tokenizer.pad_id, lm.device)
            given = self._given_QkD
            if given is not None and not shared:
                given = given[self._to_device(self.prompt_N).to(given.device)]
            with self._decoding():
                prefill = lm.prefill(
                    ids, mask, self._group if shared else 1, memory=memory, given_QkD=given
                )
        with self._decoding():
            self._batch.begin(prefill)
            if self.engine.compiled:
                self._batch.cache = FixedCache(self._batch.cache)

    def _begin_with(self, prefix: Sequence[Sequence[int]]) -> None:
        """Count and record given actions, up to the end or to where the environment responds."""
        lengths_Q = np.array([len(ids) for ids in prefix])
        token_QT = np.zeros((len(prefix), int(lengths_Q.max(initial=0))), dtype=np.int64)
        for row, ids in zip(token_QT, prefix, strict=True):
            row[: len(ids)] = ids
        batch, length_N = self._batch, self._to_device(lengths_Q[self.prompt_N])
        for t, token_N in enumerate(self._to_device(token_QT[self.prompt_N].T)):
            acting = batch.live() & (batch.state.forced() < 0) & (t < length_N)
            as_token = batch.state.advance(token_N, acting)
            kind_N = torch.where(as_token, int(StepKind.TOKEN), int(StepKind.THOUGHT))
            kind_N = kind_N.masked_fill(~acting, int(StepKind.PAD)).to(torch.int8)
            self.recorder.record(Frame(batch.rows, batch.step_N, token_N, kind_N))
            batch.count(kind_N)
        batch.discarded.zero_()  # nothing was computed for them

    @property
    def discarded(self) -> int:
        """Positions that were computed for rows that stood still."""
        return int(self._batch.discarded)

    @property
    def waiting(self) -> IntArray:
        """Rows for which the environment must respond before they go on."""
        return np.flatnonzero((self._batch.state.phase == Phase.TOOL_CALL).cpu().numpy())

    @property
    def done(self) -> IntArray:
        """Rows whose episode has ended."""
        return np.flatnonzero((self._batch.state.phase == Phase.DONE).cpu().numpy())

    def run(self, *, answers: bool = True, until: int | None = None) -> None:
        """Decode until every row is done or waits for the environment.

        Args:
            answers: False stops rows that are about to answer; see `decode_state`.
            until: stop as soon as so many rows are done or wait; None for all of them.

        Raises:
            ActionError: what the model computes is not finite.
        """
        every = self.engine.steps_between_looks(self.policy.lm.device)
        with self._decoding():
            step = 0
            while (doing := self._look_ahead(answers, every, until)) is not None:
                for _ in range(every):
                    self._step(doing, answers, last=every == 1)
                    step += 1
                    if self.engine.compact_every and step % self.engine.compact_every == 0:
                        self._compact()

    def _look_ahead(self, answers: bool, steps: int, until: int | None) -> Doing | None:
        """What rows may do in the next steps; None if they are to stop. It waits for the device."""
        if not self._batch.finite:
            raise ActionError(
                f"the model's hidden state is not finite behind what "
                f"{type(self.policy.head).__name__} thinks; give settings that are less extreme, "
                "or mend the head or the model's weights."
            )
        state, rows = self._batch.state, self._batch.rows
        phase_B, forced_B = (x[rows].cpu().numpy() for x in (state.phase, state.forced_left))
        thinking_B, answers_B = phase_B == Phase.THINK, phase_B == Phase.ANSWER
        live_B = thinking_B | (answers_B if answers else answers_B & (forced_B > 0))
        going = int(live_B.sum())
        if not going or (until is not None and len(state.phase) - going >= until):
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
        batch, n, limit = self._batch, max(map(len, ids)), self.policy.lm.max_positions
        lm, at = self.policy.lm, self._to_device(rows)
        steps_N = batch.step_N - batch.state.think_used + self.protocol.turn_steps
        longest = int((batch.length_N + steps_N)[at].max()) + n
        if limit is not None and longest > limit:
            raise UsageError(
                f"with {n} inserted tokens an episode may take {longest} positions, but the model "
                f"has {limit}; {SHORTER}."
            )
        place = {row: i for i, row in enumerate(batch.rows.tolist())}
        token_Bn = np.full((len(batch.rows), n), lm.tokenizer.pad_id, dtype=np.int64)
        mask_Bn = np.zeros((len(batch.rows), n), dtype=bool)
        for row, new in zip(rows, ids, strict=True):
            token_Bn[place[int(row)], n - len(new) :] = new
            mask_Bn[place[int(row)], n - len(new) :] = True
        with self._decoding():
            batch.cache.reserve(n)
            batch.insert(self._to_device(token_Bn), self._to_device(mask_Bn), self.recorder)
            batch.state.resume(at)

    def take(self, rows: IntArray) -> Rollouts:
        """The record of some rows that are done, which are forgotten; others are numbered anew.

        Args:
            rows: their numbers, whole groups.
        """
        kept = np.setdiff1d(np.arange(len(self.prompt_N)), rows)
        record = replace(self.record(rows), discarded=self.discarded)
        with self._decoding():
            self._batch.discarded.zero_()
            self._batch.select(self._to_device(kept))
        self.recorder = self.recorder.select(kept)
        used_Q, self.prompt_N = np.unique(self.prompt_N[kept], return_inverse=True)
        self.prompts, self._given_QkD = [self.prompts[q] for q in used_Q], self._given_to(used_Q)
        self.question_N, self.sample_N = self.question_N[kept], self.sample_N[kept]
        return record

    def join(self, other: Session) -> None:
        """Take the rows of another session along, behind these: of the same engine and rules.

        Raises:
            UsageError: steps are compiled, or one of them has given embeddings.
        """
        if self.engine.compiled or not (self._given_QkD is other._given_QkD is None):
            raise UsageError(
                "rows with compiled steps or given embeddings cannot join others; let each session "
                "run by itself."
            )
        self.prompt_N = np.concatenate([self.prompt_N, other.prompt_N + len(self.prompts)])
        self.prompts = [*self.prompts, *other.prompts]
        self.question_N = np.concatenate([self.question_N, other.question_N])
        self.sample_N = np.concatenate([self.sample_N, other.sample_N])
        with self._decoding():
            self._batch.join(other._batch)
        self.recorder.join(other.recorder)

    def finish(self) -> Rollouts:
        """The record of all rows so far."""
        whole = self.record(np.arange(len(self.prompt_N)))
        return replace(whole, discarded=self.discarded)

    def record(self, rows: IntArray) -> Rollouts:
        """What some rows have done so far, the positions of rows that stood still left out."""
        state, at = self._batch.state, self._to_device(rows)
        used_Q, prompt_N = np.unique(self.prompt_N[rows], return_inverse=True)
        return Rollouts(
            prompts=[self.prompts[q] for q in used_Q],
            prompt_N=prompt_N.astype(np.int64),
            question_N=self.question_N[rows],
            sample_N=self.sample_N[rows],
            **self.recorder.select(rows).arrays(log_probs=self.engine.record_log_probs),
            terminated_N=state.terminated[at].cpu().numpy(),
            truncated_N=state.truncated[at].cpu().numpy(),
            seed=self.seed,
            given_QkD=self._given_to(used_Q),
        )

    def _given_to(self, prompts: IntArray) -> Tensor | None:
        """The embeddings that some prompts were given."""
        given = self._given_QkD
        return None if given is None else given[torch.from_numpy(prompts).to(given.device)]

    @property
    def decode_state(self) -> DecodeState:
        """Where the rows stand, once `run(answers=False)` has brought them to their answers.

        Raises:
            UsageError: not all of them are there.
        """
        batch = self._batch
        if bool((batch.state.phase != Phase.ANSWER).any() or batch.state.forced_left.any()):
            raise UsageError(
                "some episodes end or wait before their answer, so it cannot be chosen for them; "
                "use an environment that forces answers and has no calls."
            )
        cache = batch.cache.plain() if isinstance(batch.cache, FixedCache) else batch.cache
        return DecodeState(cache, batch.hidden_BD, batch.length_N + batch.step_N)

    def _step(self, doing: Doing, answers: bool, last: bool) -> None:
        """One step of the batch.

        Args:
            doing: what rows may do in it.
            answers: see `run`.
            last: look whether it is the last, after which nothing need be read.
        """
        batch, heaviest = self._batch, self.engine.keep_thoughts if self._looks(doing) else 0
        log_prob = self.engine.record_log_probs
        batch.cache.reserve(1)
        # What heads find out when they are first asked is found out outside of the graph.
        if self.engine.compiled and self._begun:
            self.recorder.record(compiled_step(batch, doing, answers, log_prob, heaviest))
            return
        self._begun = True
        frame, chosen = batch.act(doing, answers, log_prob=log_prob, heaviest=heaviest)
        self.recorder.record(frame)
        if not last or bool((batch.state.phase != Phase.DONE).any()):
            batch.read(frame, chosen, doing)

    def _looks(self, doing: Doing) -> bool:
        """Whether thoughts of the next step are kept to look at; those that come late are not."""
        if not self.engine.keep_thoughts or not doing.thinking:
            return False
        self._thought_steps += 1
        if self._thought_steps <= MOST_STEPS:
            return True
        state = self._batch.state  # rows that waited may have made fewer
        return bool(((state.phase == Phase.THINK) & (state.think_used < MOST_STEPS)).any())

    def _compact(self) -> None:
        """Drop rows that are done, where copying the others costs less than carrying them along."""
        batch = self._batch
        going_B = batch.state.phase[batch.rows] != Phase.DONE
        if self.engine.compiled:
            keep = whole_groups(going_B, self._group)
        else:
            keep = torch.nonzero(going_B)[:, 0]
        if 0 < len(keep) <= 0.9 * len(batch.rows):
            batch.keep(keep)

    def _decoding(self) -> AbstractContextManager[None]:
        """The model as decoding wants it."""
        return self.policy.lm.decoding(compiled=self.engine.compiled)

    def _to_device(self, array: npt.NDArray[np.generic]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.policy.lm.device)
