"""Episodes whose answer is chosen: the policy thinks, then the entries of a catalogue are ranked.

Legend: Q questions, K ranked entries.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from latentgym.rollout.acting import actor
from latentgym.rollout.beams import Ranked, rank
from latentgym.rollout.collect import Episodes, in_batches
from latentgym.rollout.engine import Engine
from latentgym.rollout.rollouts import IntArray


def choose(
    engine: Engine, env: Any, questions: Sequence[int] | IntArray, *, seed: int
) -> tuple[Episodes, Ranked]:
    """Think about each question, rank the task's choices, and answer with the likeliest.

    Args:
        engine: with the policy.
        env: a vector environment of ours with at least Q rows, whose task has choices.
        questions: numbers of the questions.
        seed: of the thoughts' random numbers.

    Returns:
        Graded episodes, whose rollouts hold the thoughts alone; and the rankings.

    Raises:
        UsageError: thinking may end without an answer, or wait for the environment.
    """
    base = env.unwrapped
    index, choices = np.asarray(questions, dtype=np.int64), base.task.choices
    playing = actor(env)
    playing.reset(index)
    prompts = [base.prompt(int(i)) for i in index]
    session = engine.start(prompts, base.protocol, seed=seed, question_Q=index)
    session.run(answers=False)
    ranked = rank(engine.policy.lm, session.decode_state, choices.trie, choices.beams)
    rollouts = session.finish()
    segments = [
        np.concatenate([rollouts.action_tokens(row), choices.tokens(entry)])
        for row, entry in enumerate(ranked.entry_QK[:, 0].tolist())
    ]
    taken = playing.take(segments, session.waiting)
    return Episodes.played(engine, env, rollouts, taken.reward_N, taken.finals), ranked


def choose_in_batches(
    engine: Engine, env: Any, questions: IntArray, *, seed: int
) -> Iterator[tuple[IntArray, Episodes, Ranked]]:
    """`choose` for many questions; yields their positions in `questions` too."""
    for places in in_batches(env, questions):
        yield places, *choose(engine, env, questions[places], seed=seed)
