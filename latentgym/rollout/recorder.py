"""What a session writes down step by step, and the record that becomes of it.

Legend: N rows, B rows still in the batch, T steps.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from latentgym.errors import UsageError
from latentgym.heads import Action
from latentgym.rollout.rollouts import THOUGHTS, IntArray, StepKind

_IN_KINDS = ("token", "plain")  # of an action: tokens and kinds of steps tell them


@dataclass(frozen=True)
class Frame:
    """One step of the batch: tensors (B, ...).

    Attributes:
        rows: the row behind each place of the batch.
        step_B: how many steps each has made before.
        token_B: the token by which each is read.
        kind_B: `StepKind`, int8; rows of kind PAD made no step.
        action: the thoughts, for all places; empty for none.
        logp_B: log-probabilities, if they are kept.
        seen: what is kept of the thoughts to look at, for all places.
    """

    rows: Tensor
    step_B: Tensor
    token_B: Tensor
    kind_B: Tensor
    action: Action = field(default_factory=dict)
    logp_B: Tensor | None = None
    seen: Action = field(default_factory=dict)


class Recorder:
    """The steps of N rows. Writing down waits for nothing; `arrays` looks at all of it at once.

    Args:
        n: N.
    """

    def __init__(self, n: int) -> None:
        self._n = n
        self._frames: list[Frame] = []

    def record(self, frame: Frame) -> None:
        """Write down one step."""
        kept = {name: value for name, value in frame.action.items() if name not in _IN_KINDS}
        self._frames.append(replace(frame, action=kept))

    def select(self, rows: IntArray) -> Recorder:
        """What is written down of some rows, numbered anew in that order.

        Args:
            rows: their numbers.
        """
        if np.array_equal(rows, np.arange(self._n)):
            return self
        other, number_N = Recorder(len(rows)), np.full(self._n, -1)
        number_N[rows] = np.arange(len(rows))
        for frame in self._frames:
            number_B = number_N[frame.rows.cpu().numpy()]
            places = np.flatnonzero(number_B >= 0)
            if places.size:
                other._frames.append(_some(frame, places, number_B[places]))
        return other

    def join(self, other: Recorder) -> None:
        """Take along what another has written down of other rows, which come behind these."""
        self._frames += [replace(f, rows=f.rows + self._n) for f in other._frames]
        self._n += other._n

    def arrays(self, *, log_probs: bool) -> dict[str, Any]:
        """Tokens, kinds, thoughts, log-probabilities and what is seen, as fields of `Rollouts`."""
        n, frames, steps = self._n, self._frames, 0
        if frames:
            row, step, token, kind = (
                torch.cat([getattr(frame, name) for frame in frames]).cpu().numpy()
                for name in ("rows", "step_B", "token_B", "kind_B")
            )
            acted = kind != StepKind.PAD
            steps = int(step[acted].max(initial=-1)) + 1
        token_NT = np.zeros((n, steps), dtype=np.int64)
        kind_NT = np.zeros((n, steps), dtype=np.int8)
        logp_NT = torch.zeros(n, steps) if log_probs else None
        stored, seen = dict[str, Tensor](), dict[str, Tensor]()
        if frames:
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


def _some(frame: Frame, places: IntArray, rows: IntArray) -> Frame:
    """Some places of a frame, whose rows have these numbers."""
    at = torch.from_numpy(places).to(frame.rows.device)
    action, seen = (
        {name: x[at.to(x.device)] for name, x in named.items()}
        for named in (frame.action, frame.seen)
    )
    logp_B = None if frame.logp_B is None else frame.logp_B[at]
    numbers = torch.from_numpy(rows).to(at.device)
    return Frame(
        *(numbers, frame.step_B[at], frame.token_B[at], frame.kind_B[at]), action, logp_B, seen
    )


def _put(
    kept: dict[str, Tensor],
    made: Action,
    at: tuple[IntArray, IntArray],
    places: IntArray,
    shape: tuple[int, int],
) -> None:
    """Add what some places of a batch made, to where their rows and steps have it.

    Raises:
        UsageError: it has other names, types or shapes than what was made before.
    """
    before = {name: (x.dtype, *x.shape[2:]) for name, x in kept.items()}
    now = {name: (x.dtype, *x.shape[1:]) for name, x in made.items()}
    if before and now and before != now:
        name = next(name for name in {**before, **now} if before.get(name) != now.get(name))
        raise UsageError(
            f"{name!r} is not in all thoughts, or not of one type and shape; `sample` of a head "
            "gives the same tensors at every step: mend it."
        )
    for name, value in made.items():
        if name not in kept:
            kept[name] = value.new_zeros(*shape, *value.shape[1:])
        row, step, place = (torch.from_numpy(x).to(value.device) for x in (*at, places))
        kept[name][row, step] = value[place]
