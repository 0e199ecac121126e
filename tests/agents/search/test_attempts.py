"""Attempts as they are read off finished episodes, with what they cost."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from latentgym.agents.search import attempts_of
from latentgym.rollout import Episodes, Rollouts, StepKind

T, S, I = StepKind.THOUGHT, StepKind.TOKEN, StepKind.INSERTED  # noqa: E741


def episodes(*rows: list[StepKind]) -> Episodes:
    """Rows of those kinds; token t is t, and its log-probability -t."""
    n, steps = len(rows), max(map(len, rows))
    kind_NT = np.zeros((n, steps), dtype=np.int8)
    for kind_T, row in zip(kind_NT, rows, strict=True):
        kind_T[: len(row)] = row
    step_NT = np.tile(np.arange(steps), (n, 1))
    rollouts = Rollouts(
        prompts=[[1] * 5] * n,
        prompt_N=np.arange(n),
        question_N=np.arange(n) + 20,
        sample_N=np.zeros(n, dtype=np.int64),
        token_NT=step_NT,
        kind_NT=kind_NT,
        actions={},
        logp_NT=-torch.from_numpy(step_NT).float(),
        terminated_N=np.ones(n, dtype=bool),
        truncated_N=np.zeros(n, dtype=bool),
        seed=0,
        discarded=6,
    )
    infos: list[dict[str, Any]] = [{"score": float(row)} for row in range(n)]
    return Episodes(rollouts, np.zeros(n), infos)


def test_an_attempt_says_what_happened() -> None:
    one, two = attempts_of(episodes([T, T, I, T, S, S], [T, S]), [3, 0], read_N=[5, 2])
    assert (one.index, one.number, one.right, one.context) == (20, 3, False, 11)
    assert (two.index, two.number, two.right, two.context) == (21, 0, True, 7)
    assert one.token_T.tolist() == [0, 1, 2, 3, 4, 5] and two.token_T.tolist() == [0, 1]
    assert one.own_T.tolist() == [True, True, False, True, True, True]
    assert one.thought_T.tolist() == [True, True, False, True, False, False]
    assert (one.free(), two.free()) == (2, 2)
    assert one.log_prob == pytest.approx(-(0 + 1 + 3 + 4 + 5) / 5)
    found = one.positions
    assert (found.prompt, found.thought, found.answer, found.discarded) == (5, 3, 2, 3)
    assert found.inserted == 1


@pytest.mark.parametrize(
    ("kinds", "prefix", "thought", "answer", "drawn"),
    [
        ([T, T, T, S, S], 2, 1, 2, [2, 3, 4]),
        ([T, T, T, S, S], 5, 0, 0, []),
        ([T, S], 9, 0, 0, []),  # what stood behind the end was left out
        # What was given behind the point where the environment spoke was left out, too.
        ([T, T, I, I, S, S], 5, 0, 2, [4, 5]),
        ([T, I, T, T, S], 4, 2, 1, [2, 3, 4]),
    ],
)
def test_given_tokens_cost_nothing_but_what_was_read(
    kinds: list[StepKind], prefix: int, thought: int, answer: int, drawn: list[int]
) -> None:
    [found] = attempts_of(episodes(kinds), [1], read_N=[3], prefix_N=[prefix])
    cost = found.positions
    assert (cost.prompt, cost.thought, cost.answer) == (3, thought, answer)
    assert found.log_prob == (pytest.approx(-np.mean(drawn)) if drawn else -math.inf)
    assert len(found.token_T) == len(kinds)
