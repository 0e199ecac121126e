"""What a session writes down step by step, and the record that becomes of it.

Legend: N rows, B rows still in the batch, T steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from latentgym.heads import Action
from latentgym.rollout.rollouts import THOUGHTS, IntArray, StepKind

_IN_KINDS = ("token", "plain")  # of an action: tokens and kinds of steps tell them


@dataclass(frozen=True)
class _Frame:
    """One step of the batch: the rows that acted, and what they did."""

    rows: IntArray
    step_B: IntArray
    places: Tensor  # where those rows stood in the batch, to pick from `action` and `logp_B`
    token_B: IntArray
    kind_B: npt.NDArray[np.int8]
    action: Action
    logp_B: Tensor | None
    seen: Action


class Recorder:
    """The steps of N rows.

    Attributes:
        step_N: how many steps each row has made.
    """

    def __init__(self, n: int) -> None:
        self.step_N: IntArray = np.zeros(n, dtype=np.int64)
        self._frames: list[_Frame] = []

    def record(
        self,
        batch: IntArray,
        token_B: IntArray,
        kind_B: npt.NDArray[np.int_],
        action: Action,
        logp_B: Tensor | None,
        seen: Action | None = None,
    ) -> None:
        """Write down one step.

        Args:
            batch: the row behind each place of the batch.
            token_B: the token by which each is read.
            kind_B: `StepKind`; rows of kind PAD made no step.
            action: the thoughts, for all places.
            logp_B: log-probabilities, if they are kept.
            seen: what is kept of the thoughts to look at, for all places.
        """
        places = np.flatnonzero(kind_B != StepKind.PAD)
        rows = batch[places]
        self._frames.append(
            _Frame(
                rows=rows,
                step_B=self.step_N[rows].copy(),
                places=torch.from_numpy(places),
                token_B=token_B[places],
                kind_B=kind_B[places].astype(np.int8),
                action={k: v for k, v in action.items() if k not in _IN_KINDS},
                logp_B=logp_B,
                seen=seen or {},
            )
        )
        self.step_N[rows] += 1

    def arrays(self, *, log_probs: bool) -> dict[str, Any]:
        """Tokens, kinds, thoughts, log-probabilities and what is seen, as fields of `Rollouts`."""
        n, steps = len(self.step_N), int(self.step_N.max(initial=0))
        token_NT = np.zeros((n, steps), dtype=np.int64)
        kind_NT = np.zeros((n, steps), dtype=np.int8)
        stored, seen = dict[str, Tensor](), dict[str, Tensor]()
        logp_NT = torch.zeros(n, steps) if log_probs else None
        for frame in self._frames:
            rows, step = frame.rows, frame.step_B
            token_NT[rows, step], kind_NT[rows, step] = frame.token_B, frame.kind_B
            index = (torch.from_numpy(rows), torch.from_numpy(step))
            thought = torch.from_numpy(np.isin(frame.kind_B, THOUGHTS))
            at = (index[0][thought], index[1][thought])
            for kept, made in ((stored, frame.action), (seen, frame.seen)):
                for name, value in made.items():
                    if name not in kept:
                        kept[name] = value.new_zeros(n, steps, *value.shape[1:])
                    kept[name][at] = value[frame.places[thought].to(value.device)]
            if logp_NT is not None and frame.logp_B is not None:
                logp_NT[index] = frame.logp_B.cpu()[frame.places]
        arrays = {"token_NT": token_NT, "kind_NT": kind_NT, "logp_NT": logp_NT}
        return {**arrays, "actions": stored, "seen": seen}
