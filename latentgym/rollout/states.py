"""How far in the rules of an episode each row of a rollout was, step by step."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from latentgym.episodes.protocol import EpisodeState, Phase, Protocol
from latentgym.rollout.rollouts import Rollouts, StepKind


def states(protocol: Protocol, rollouts: Rollouts) -> Iterator[EpisodeState]:
    """The state of all rows before each of the T steps, and after the last; one object that moves.

    Args:
        protocol: that the rows kept to.
        rollouts: N rows.
    """
    state = EpisodeState(protocol, len(rollouts))
    for token_N, kind_N in zip(rollouts.token_NT.T, rollouts.kind_NT.T, strict=True):
        inserted_N = kind_N == StepKind.INSERTED
        waited_N = (state.phase == Phase.TOOL_CALL) & ~inserted_N & (kind_N != StepKind.PAD)
        state.resume(np.flatnonzero(waited_N))
        yield state
        state.advance(token_N, kind_N != StepKind.PAD)
    yield state
