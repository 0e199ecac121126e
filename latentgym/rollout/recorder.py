"""What a session writes down step by step, and the record that becomes of it.

Legend: N rows, B rows still in the batch, T steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from latentgym.heads import Action
from latentgym.rollout.rollouts import THOUGHTS, IntArray, StepKind

_IN_KINDS = ("token", "plain")  # of an action: tokens and kinds of steps tell them


@dataclass(frozen=True)
class _Frame:
    """One step of the batch: which rows were in it, and what they did. All are tensors (B, ...)."""

    rows: Tensor
    step_B: Tensor
    token_B: Tensor
    kind_B: Tensor
    action: Action
    logp_B: Tensor | None
    seen: Action


class Recorder:
    """The steps of N rows. Writing down waits for nothing; `arrays` looks at all of it at once.

    Args:
        n: N.
        device: where the tensors are that are written down.

    Attributes:
        step_N: how many steps each row has made, int64.
    """

    def __init__(self, n: int, device: torch.device) -> None:
        self.step_N = torch.zeros(n, dtype=torch.int64, device=device)
        self._frames: list[_Frame] = []

    def record(
        self,
        rows: Tensor,
        token_B: Tensor,
        kind_B: Tensor,
        action: Action,
        logp_B: Tensor | None,
        seen: Action | None = None,
    ) -> None:
        """Write down one step.

        Args:
            rows: the row behind each place of the batch.
            token_B: the token by which each is read.
            kind_B: `StepKind`, int8; rows of kind PAD made no step.
            action: the thoughts, for all places.
            logp_B: log-probabilities, if they are kept.
            seen: what is kept of the thoughts to look at, for all places.
        """
        kept = {name: value for name, value in action.items() if name not in _IN_KINDS}
        step_B = self.step_N[rows]
        self._frames.append(_Frame(rows, step_B, token_B, kind_B, kept, logp_B, seen or {}))
        self.step_N = self.step_N.index_copy(0, rows, step_B + (kind_B != StepKind.PAD))

    def arrays(self, *, log_probs: bool) -> dict[str, Any]:
        """Tokens, kinds, thoughts, log-probabilities and what is seen, as fields of `Rollouts`."""
        n, steps, frames = len(self.step_N), int(self.step_N.max()), self._frames
        token_NT = np.zeros((n, steps), dtype=np.int64)
        kind_NT = np.zeros((n, steps), dtype=np.int8)
        logp_NT = torch.zeros(n, steps) if log_probs else None
        stored, seen = dict[str, Tensor](), dict[str, Tensor]()
        if frames:
            row, step, token, kind = (
                torch.cat([getattr(frame, name) for frame in frames]).cpu().numpy()
                for name in ("rows", "step_B", "token_B", "kind_B")
            )
            acted = kind != StepKind.PAD
            token_NT[row[acted], step[acted]] = token[acted]
            kind_NT[row[acted], step[acted]] = kind[acted]
            ends = np.cumsum([len(frame.rows) for frame in frames])
            for frame, end in zip(frames, ends.tolist(), strict=True):
                mine = slice(end - len(frame.rows), end)
                places = np.flatnonzero(np.isin(kind[mine], THOUGHTS))
                at = row[mine][places], step[mine][places]
                for kept, made in ((stored, frame.action), (seen, frame.seen)):
                    _put(kept, made, at, places, (n, steps))
                if logp_NT is not None and frame.logp_B is not None:
                    some = acted[mine]
                    index = (torch.from_numpy(x[mine][some]) for x in (row, step))
                    logp_NT[tuple(index)] = frame.logp_B.cpu()[torch.from_numpy(some)]
        arrays = {"token_NT": token_NT, "kind_NT": kind_NT, "logp_NT": logp_NT}
        return {**arrays, "actions": stored, "seen": seen}


def _put(
    kept: dict[str, Tensor],
    made: Action,
    at: tuple[IntArray, IntArray],
    places: IntArray,
    shape: tuple[int, int],
) -> None:
    """Add what some places of a batch made, to where their rows and steps have it."""
    for name, value in made.items():
        if name not in kept:
            kept[name] = value.new_zeros(*shape, *value.shape[1:])
        row, step, place = (torch.from_numpy(x).to(value.device) for x in (*at, places))
        kept[name][row, step] = value[place]
