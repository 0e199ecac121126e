"""Latents in demonstrations: in the place of reasoning, or before an answer.

Legend: T steps, S support of a target.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from latentgym.episodes.protocol import Protocol
from latentgym.errors import UsageError


def latents_of(rules: Protocol) -> int:
    """How many latents come before an answer.

    Raises:
        UsageError: not a fixed number of them, or something between them and the answer.
    """
    if not rules.think.exact or not rules.think.steps or rules.forced_prompt:
        raise UsageError(
            "latents come in a fixed number, and the answer right after them; choose a task whose "
            "episodes do so, such as MovieLens, or set -o exact_thoughts=true, -o think and -o "
            "force_answer=false."
        )
    return rules.think.steps


def before_answer(demonstration: Any, rules: Protocol) -> Any:
    """A demonstration with the latents of an episode before its answer; see `latents_of`.

    Where an answer may be as long as it likes, the reasoning is part of it; in one of a fixed
    length there is no room, and the latents stand in its place.
    """
    steps = len(demonstration.steps) if rules.answer.exact else 0
    return with_latents(demonstration, latents_of(rules), steps)


def with_latents(demonstration: Any, latents: int, steps: int = 0) -> Any:
    """A demonstration with latents in the place of the first steps of its reasoning.

    Args:
        demonstration: `latentgym.envs.Demonstration`.
        latents: how many. They are its thoughts, and have no targets; what remains follows in
            tokens.
        steps: how many of its steps are left out; all if it has fewer.
    """
    kept = slice(sum(demonstration.steps[:steps]), None)
    blank = ((latents, 0), (0, 0))
    return replace(
        demonstration,
        ids_TS=np.pad(demonstration.ids_TS[kept], blank),
        weights_TS=np.pad(demonstration.weights_TS[kept], blank),
        thoughts=latents,
        steps=(),
    )
