"""Which thought matters, and how much: answers behind thoughts that were replaced.

A stored rollout is read again in one parallel pass, without a cache, with the thought of one step
(or of all) replaced. What follows stays as it was stored, and the change of the log-probability of
the answer's tokens is the effect of the replacement,

    effect = log p(answer | replaced) - log p(answer).

Thoughts behind the replaced one stay as they are stored too (the *direct* effect), or are made
again by the head from what stands before them now (the *total* effect). Whose answer it is, is a
matter of the sequences: the policy's own, or the right one
(`rollout.targets.with_right_answers`).

Legend: N rows, T positions, S steps of thought, J rows that are read together, M positions of
answers, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import isfinite, nan
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from latentgym.analysis.interventions import DEFINITIONS as REPLACEMENTS
from latentgym.analysis.interventions import INTERVENTIONS, Intervention, question_of
from latentgym.analysis.sequences import PositionKind, Sequences
from latentgym.episodes.protocol import BoolArray
from latentgym.errors import UsageError
from latentgym.evaluation.stats import Floats, mean_interval
from latentgym.heads import Readout
from latentgym.heads.rng import CounterRNG
from latentgym.progress import progress_bar
from latentgym.rollout import Policy, Rollouts
from latentgym.rollout.rollouts import IntArray

ALL_STEPS = -1
DEFINITIONS = {
    "effect": "difference of log p(answer) in nats ('logp') and of p(answer) ('probability'), "
    "replaced minus as stored: below 0 where the thought helped. p(answer) is the product over the "
    "answer's tokens, each behind the ones before it (teacher-forced), as the answer head scores "
    "them; tokens that the environment inserted are not scored, the end of an answer marker is",
    "direct": "thoughts behind the replaced one stay as they were stored",
    "total": "thoughts behind the replaced one are made again by the head, with the random numbers "
    "of the rollout; their number, and the answer, stay as they were stored",
    "step": "number of the thought in its row, from 0 (tables and pictures count from 1); 'all' "
    "replaces every one. Rows with fewer thoughts do not count",
    "rows": "how many rows count",
    "mean, low, high": "mean over questions of the means of their rows, and Student's 95 % "
    "interval over questions; null where there are too few",
    "changed": "rows in which the likeliest token at some position of the answer is another one",
    **REPLACEMENTS,
}


@torch.no_grad()
def answer_log_probs(policy: Policy, sequences: Sequences) -> tuple[Tensor, Tensor]:
    """What a policy makes of the answers that stand in sequences, in one parallel pass.

    Args:
        policy: with the answer head that scores them.
        sequences: N rows, all read at once.

    Returns:
        Log-probabilities of the tokens of answers, fp32 (N, T), 0 elsewhere; and the likeliest
        token at each of them, int64 (N, T), -1 elsewhere.
    """
    lm = policy.lm
    answer_NT = sequences.kind_NT == PositionKind.ANSWER
    logp_NT = torch.zeros(answer_NT.shape, device=lm.device)
    greedy_NT = torch.full_like(sequences.token_NT, -1)
    with lm.decoding():
        table_VD = lm.table_VD
        hidden_NTD = lm.hidden(sequences.x_NTD, sequences.mask_NT)
        for at in torch.split(answer_NT.nonzero(), lm.logits_at_once):
            row_M, column_M = at.T
            hidden_MD = hidden_NTD[row_M, column_M - 1]
            read = Readout(lm.logits(hidden_MD), hidden_MD, table_VD)
            token = {"token": sequences.token_NT[row_M, column_M]}
            logp_NT[row_M, column_M] = policy.answer_head.log_prob(token, read)
            greedy_NT[row_M, column_M] = read.logits.argmax(-1)
    return logp_NT, greedy_NT


@torch.no_grad()
def thought_again(
    policy: Policy, sequences: Sequences, rollouts: Rollouts, after_N: Tensor
) -> Sequences:
    """Sequences whose thoughts behind a step are made again, from what stands before them.

    Exactly as a rollout makes them, with its random numbers, but without a cache.

    Args:
        policy: thinks.
        sequences: N rows, all read at once.
        rollouts: the same rows: their random numbers.
        after_N: the step behind which each row thinks anew; -1 for all of its thoughts.
    """
    lm, head, step_NT, mask_NT = policy.lm, policy.head, sequences.step_NT, sequences.mask_NT
    if head.initial_state(1, lm.device):
        raise UsageError(
            f"{type(head).__name__} keeps a state from step to step, which is not stored, so it "
            "cannot think on from the middle; leave --total (rollouts) out."
        )
    prompt_NT = sequences.kind_NT == PositionKind.PROMPT
    # The counter behind the random numbers: all steps of a row, inserted ones too.
    counter_NT = (mask_NT & ~prompt_NT).cumsum(1) - 1
    x_NTD, token_NT = sequences.x_NTD.clone(), sequences.token_NT.clone()
    with lm.decoding():
        table_VD = lm.table_VD
        for step in range(int(after_N.min()) + 1, int(step_NT.max()) + 1):
            row_J, column_J = ((step_NT == step) & (after_N < step)[:, None]).nonzero().T
            if not len(row_J):
                continue
            before = slice(0, int(column_J.max()))
            hidden_JTD = lm.hidden(x_NTD[row_J, before], mask_NT[row_J, before])
            last_JD = hidden_JTD[torch.arange(len(row_J), device=lm.device), column_J - 1]
            read = Readout(lm.logits(last_JD), last_JD, table_VD)
            if head.needs_memory:
                read.memory_mask = prompt_NT[row_J, before]
                read.memory = head.remember(hidden_JTD, read.memory_mask)
            rows = row_J.cpu().numpy()
            counters = (
                *(rollouts.question_N[rows], rollouts.sample_N[rows]),
                counter_NT[row_J, column_J].cpu().numpy(),
            )
            rng = CounterRNG.at(rollouts.seed, *counters, device=lm.device)
            thought = head.sample(read, rng)
            made_JD = policy.thought_inputs(thought, table_VD).to(x_NTD.dtype)
            x_NTD[row_J, column_J], token_NT[row_J, column_J] = made_JD, thought["token"]
    return replace(sequences, x_NTD=x_NTD, token_NT=token_NT)


def causal_map(
    policy: Policy,
    sequences: Sequences,
    *,
    interventions: Sequence[Intervention] = INTERVENTIONS,
    rollouts: Rollouts | None = None,
    steps: Sequence[int] | None = None,
    positions_at_once: int = 1 << 14,
) -> dict[str, Any]:
    """The effect on the answer of replacing the thought of each step, and of all.

    Args:
        policy: whose rollouts they are, in float32.
        sequences: what it has read, with answers.
        interventions: what thoughts are replaced by.
        rollouts: the rows of the sequences, for total effects; None for direct ones.
        steps: whose thoughts are replaced one by one, from 0; None for every step.
        positions_at_once: that are read together, but at least one row.

    Returns:
        For a record: `effect` (direct or total), `rows`, `questions`, `steps` (the most of a row),
        `stored` (the answers as they are), `map` by the interventions' names: the effects of the
        steps in order, and last of all thoughts at once; `definitions`.

    Raises:
        UsageError: the model is not in float32, no row has both a thought and an answer, the
            rollouts are of other rows, or no row has a thought at one of the steps.
    """
    lm, step_NT = policy.lm, sequences.step_NT
    if lm.dtype != torch.float32 or lm.autocast is not None:
        raise UsageError(
            "small effects are lost in the rounding of fewer bits; load the model in float32 "
            "(--dtype float32)."
        )
    if rollouts is not None and len(rollouts) != len(sequences):
        raise UsageError(
            f"{len(rollouts)} rollouts cannot be those of {len(sequences)} sequences; give the "
            "rollouts that the sequences are of."
        )
    judged_N = (step_NT >= 0).any(1) & (sequences.kind_NT == PositionKind.ANSWER).any(1)
    if not bool(judged_N.any()):
        raise UsageError(
            "no row has both a thought and an answer behind it, so there is no effect to measure; "
            "analyse episodes that think and answer, with larger budgets or demonstrations."
        )
    rows_at_once = max(1, positions_at_once // step_NT.shape[1])
    read = _Reading(policy, sequences, rollouts)
    row_R = judged_N.nonzero()[:, 0]
    for rows in torch.split(row_R, rows_at_once):
        read.keep(rows)
    question_N = question_of(sequences)
    every = range(int(step_NT[judged_N].max()) + 1)
    if steps is not None and not set(steps) <= set(every):
        raise UsageError(
            f"there are thoughts at the steps 0 to {every[-1]}; choose some of them instead of "
            f"{list(steps)}."
        )
    chosen = [*(every if steps is None else sorted(set(steps))), ALL_STEPS]
    found: dict[str, list[dict[str, Any]]] = {}
    with progress_bar("replacing thoughts", len(interventions) * len(chosen)) as advance:
        for intervention in interventions:
            x_NTD, replaced_NT = intervention.replacement(lm, sequences)
            cells = []
            for step in chosen:
                at_NT = _at(step_NT, step)
                # Where all are replaced, each must have something in its place.
                whole_N = at_NT.any(1) & (replaced_NT | ~at_NT).all(1)
                row_R = (whole_N & judged_N).nonzero()[:, 0]
                parts = torch.split(row_R, rows_at_once) if len(row_R) else ()
                effects = [read.replaced(rows, x_NTD, step) for rows in parts]
                cells.append(_cell(step, effects, question_N))
                advance(1)
            found[intervention.name] = cells
    stored_R = read.logp_N[judged_N].double().cpu().numpy()
    question_R = question_N[judged_N.cpu().numpy()]
    return {
        "effect": "direct" if rollouts is None else "total",
        "rows": int(judged_N.sum()),
        "questions": len(np.unique(question_R)),
        "steps": len(every),
        "stored": {
            "logp": _interval(stored_R, question_R),
            "probability": _interval(np.exp(stored_R), question_R),
        },
        "map": found,
        "definitions": DEFINITIONS,
    }


def _at(step_NT: Tensor, step: int) -> Tensor:
    """The thoughts of a step, or all."""
    return step_NT >= 0 if step == ALL_STEPS else step_NT == step


class _Reading:
    """Rows of sequences read with their own thoughts, and with others."""

    def __init__(self, policy: Policy, sequences: Sequences, rollouts: Rollouts | None) -> None:
        self._policy, self._sequences, self._rollouts = policy, sequences, rollouts
        self.logp_N = torch.zeros(len(sequences), device=policy.lm.device)
        self._greedy_NT = torch.full_like(sequences.token_NT, -1)

    def keep(self, rows: Tensor) -> None:
        """Read rows as they are stored: what the others are compared with."""
        logp_JT, self._greedy_NT[rows] = answer_log_probs(self._policy, self._some(rows))
        self.logp_N[rows] = logp_JT.sum(1)

    def replaced(self, rows: Tensor, x_NTD: Tensor, step: int) -> _Effects:
        """Read rows with the thoughts of a step replaced by what stands there in x."""
        part = self._some(rows)
        at_JT = _at(part.step_NT, step)
        part = part.with_inputs(torch.where(at_JT[..., None], x_NTD[rows], part.x_NTD))
        if self._rollouts is not None and step != ALL_STEPS:
            rollouts = self._rollouts.select(rows.cpu().numpy())
            part = thought_again(self._policy, part, rollouts, torch.full_like(rows, step))
        logp_JT, greedy_JT = answer_log_probs(self._policy, part)
        logp_J, stored_J = logp_JT.sum(1).double(), self.logp_N[rows].double()
        return _Effects(
            rows.cpu().numpy(),
            (logp_J - stored_J).cpu().numpy(),
            (logp_J.exp() - stored_J.exp()).cpu().numpy(),
            (greedy_JT != self._greedy_NT[rows]).any(1).cpu().numpy(),
        )

    def _some(self, rows: Tensor) -> Sequences:
        """Some of the rows, as wide as all, so that their positions are the same."""
        s = self._sequences
        return Sequences(s.token_NT[rows], s.kind_NT[rows], s.x_NTD[rows])


class _Effects(NamedTuple):
    """What a replacement does to some rows."""

    row_J: IntArray
    logp_J: Floats
    probability_J: Floats
    changed_J: BoolArray


_NONE = _Effects(np.empty(0, np.int64), np.empty(0), np.empty(0), np.empty(0, np.bool_))


def _cell(step: int, parts: Sequence[_Effects], question_N: IntArray) -> dict[str, Any]:
    """The effects of one replacement at one step, for a record."""
    found = _Effects(*map(np.concatenate, zip(*parts, strict=True))) if parts else _NONE
    question_J = question_N[found.row_J]
    return {
        "step": "all" if step == ALL_STEPS else step,
        "rows": len(question_J),
        "logp": _interval(found.logp_J, question_J),
        "probability": _interval(found.probability_J, question_J),
        "changed": int(found.changed_J.sum()),
    }


def _interval(value_J: Floats, question_J: IntArray) -> dict[str, float | None]:
    """Mean over questions of the means of their rows, with its interval; None for what is not."""
    rows_Q = np.bincount(question_J)
    sums_Q = np.bincount(question_J, value_J)
    values = sums_Q[rows_Q > 0] / rows_Q[rows_Q > 0]
    numbers = mean_interval(values) if len(values) else (nan,) * 3
    named = zip(("mean", "low", "high"), numbers, strict=True)
    return {name: number if isfinite(number) else None for name, number in named}
