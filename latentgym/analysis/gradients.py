"""Integrated gradients of the answer in the residual stream.

"Do Language Models Use Their Depth Efficiently?" (arXiv 2505.13898), figure 6. How much each
position of the residual stream before a layer has to do with the answer:

    IG_t = (h_t - b) . integral over alpha of dF/dh_t at b + alpha (h - b),

F is the sum of the answer tokens' probabilities and b the mean of h over the sequence's positions.
The sum over t is F(h) - F(b), exactly, so how well the integral is computed can be told. With equal
steps it often is not: F of a trained model bends sharply at a small alpha. Here [0, 1] is cut where
Gauss-Legendre sums of a piece miss the difference of F at its ends most.

Legend: T positions, A nodes of quadrature, D width, M answer tokens.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from latentgym.analysis.residual import ResidualStream, Trajectory
from latentgym.analysis.sequences import PositionKind, Sequences
from latentgym.errors import UsageError

DEFINITION = (
    "(h_t - b) . integral of the gradient of the summed probability of the answer tokens along the "
    "line from b to h, summed over width; b: mean of h over the sequence's positions, the first "
    "one among them; Gauss-Legendre sums refined until completeness is within the tolerance"
)
_NODES = 4  # of a piece
_FIRST = 4  # pieces to begin with
_ROWS = 16  # points of the line that are computed together at most
_PIECES = 5  # tolerances that the pieces may miss together, those that cancel included


@dataclass(frozen=True)
class Attribution:
    """Integrated gradients of one sequence at one layer.

    Attributes:
        value_T: by position of the sequence without the padding around it, fp64.
        change: F(h) - F(b), which they should add up to.
        error: |sum - change| / |change|, completeness.
        steps: gradients computed.
        complete: whether the error is within the tolerance.
    """

    value_T: Tensor
    change: float
    error: float
    steps: int
    complete: bool


def integrated_gradients(
    stream: ResidualStream,
    sequences: Sequences,
    layer: int,
    *,
    tolerance: float = 0.01,
    most_steps: int = 2048,
    positions_at_once: int = 1024,
) -> list[Attribution]:
    """Integrated gradients at h_layer of each sequence.

    Args:
        stream: of the model.
        sequences: that have answer tokens.
        layer: l of h_l, 0 to L - 1.
        tolerance: of the completeness error, as a share of |F(h) - F(b)|.
        most_steps: gradients after which a sequence is left as it is.
        positions_at_once: bounds the memory: of so many positions at most, and of the answer's
            logits that may be held at once, but for at least one point of the line.

    Raises:
        UsageError: a sequence has no answer token behind its first position.
    """
    return [
        _Line(stream, sequences.select([row]), layer, positions_at_once).attribution(
            tolerance, most_steps
        )
        for row in range(len(sequences))
    ]


def answer_places(sequence: Sequences) -> tuple[Tensor, Tensor]:
    """The positions before each answer token of one sequence, and the tokens, both (M,).

    Raises:
        UsageError: there is none.
    """
    answer_T = sequence.kind_NT[0] == PositionKind.ANSWER
    answer_T = answer_T & ~sequence.first_NT[0]
    at_M = answer_T.nonzero()[:, 0]
    if not len(at_M):
        raise UsageError(
            "a sequence has no answer token whose probability could be told; analyse episodes that "
            "reach their answer, with larger budgets or demonstrations."
        )
    return at_M - 1, sequence.token_NT[0, at_M]


def _total(integral: Mapping[tuple[float, float], Tensor]) -> float:
    """The sum of all pieces at all positions."""
    return sum(float(part_T.sum()) for part_T in integral.values())


class _Line:
    """The straight line from the baseline to the residual stream of one sequence at a layer."""

    def __init__(
        self, stream: ResidualStream, sequence: Sequences, layer: int, positions_at_once: int
    ) -> None:
        self.stream, self.layer = stream, layer
        self.at_M, self.token_M = answer_places(sequence)
        logits, positions = stream.lm.logits_at_once, sequence.token_NT.shape[1]
        self.rows = max(1, min(_ROWS, positions_at_once // positions, logits // len(self.at_M)))
        mask_T = sequence.mask_NT[0]
        # As many copies as points are computed together: blocks are called as for a batch.
        copies = sequence.select([0] * self.rows)
        self.trajectory: Trajectory = stream.trajectory(copies.x_NTD, copies.mask_NT)
        self.end_TD = self.trajectory.states[layer][0]
        mean_D = self.end_TD[mask_T].mean(0)
        self.begin_TD = torch.where(mask_T[:, None], mean_D, self.end_TD)

    def attribution(self, tolerance: float, most_steps: int) -> Attribution:
        """Refine the integral until the sum is right."""
        ends = np.linspace(0.0, 1.0, _FIRST + 1)
        value = dict(zip(ends.tolist(), self._values(ends), strict=True))
        change = value[1.0] - value[0.0]
        pieces: list[tuple[float, float, float]] = []
        integral: dict[tuple[float, float], Tensor] = {}

        def add(cuts: Sequence[tuple[float, float]]) -> None:
            for (a, b), part_T in zip(cuts, self._pieces(cuts), strict=True):
                integral[a, b] = part_T
                missed = abs(float(part_T.sum()) - (value[b] - value[a]))
                heapq.heappush(pieces, (-missed, a, b))

        add(list(zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True)))
        steps = _FIRST * _NODES
        # What pieces miss may cancel: all of it counts, though less than what the sum misses.
        while steps < most_steps and (
            -sum(piece[0] for piece in pieces) > _PIECES * tolerance * abs(change)
            or abs(_total(integral) - change) > tolerance * abs(change)
        ):
            # The worst pieces, as many as are computed together, are cut in half.
            worst = [
                heapq.heappop(pieces)
                for _ in range(min(len(pieces), max(1, self.rows // (2 * _NODES))))
            ]
            middles = [(a + b) / 2 for _, a, b in worst]
            value |= dict(zip(middles, self._values(np.array(middles)), strict=True))
            for _, a, b in worst:
                del integral[a, b]
            add(
                [
                    cut
                    for (_, a, b), m in zip(worst, middles, strict=True)
                    for cut in ((a, m), (m, b))
                ]
            )
            steps += 2 * _NODES * len(worst)
        value_T = torch.stack(list(integral.values())).sum(0)
        missed = abs(_total(integral) - change)
        error = missed / abs(change) if change else float(missed > 0)
        return Attribution(value_T, change, error, steps, error <= tolerance)

    def _pieces(self, cuts: Sequence[tuple[float, float]]) -> list[Tensor]:
        """Integrals over pieces of the line, each fp64 (T,)."""
        node_A, weight_A = np.polynomial.legendre.leggauss(_NODES)
        alpha = np.concatenate([a + (b - a) * (node_A + 1) / 2 for a, b in cuts])
        density_AT = torch.cat(self._in_batches(alpha, self._density)).double()
        weight = torch.from_numpy(weight_A / 2)
        return [
            (b - a) * (part_AT * weight[:, None]).sum(0)
            for (a, b), part_AT in zip(cuts, torch.split(density_AT, _NODES), strict=True)
        ]

    def _values(self, alpha: np.ndarray[tuple[int], np.dtype[np.float64]]) -> list[float]:
        """F at points of the line."""
        with torch.no_grad():
            return torch.cat(self._in_batches(alpha, self._probability)).tolist()

    def _in_batches(
        self,
        alpha: np.ndarray[tuple[int], np.dtype[np.float64]],
        compute: Callable[[Tensor], Tensor],
    ) -> list[Tensor]:
        """What is computed at points of the line, always as many together, so some twice."""
        found = []
        for start in range(0, len(alpha), self.rows):
            part = alpha[start : start + self.rows]
            at_A = torch.from_numpy(np.resize(part, self.rows)).to(self.end_TD)
            found.append(compute(at_A)[: len(part)].cpu())
        return found

    def _points(self, at_A: Tensor) -> Tensor:
        return self.begin_TD + at_A[:, None, None] * (self.end_TD - self.begin_TD)

    def _probability(self, at_A: Tensor) -> Tensor:
        return self._answer(self._points(at_A)).double()

    def _density(self, at_A: Tensor) -> Tensor:
        """The integrand at each position, (A, T)."""
        h_ATD = self._points(at_A).requires_grad_()
        with torch.enable_grad():
            (gradient_ATD,) = torch.autograd.grad(self._answer(h_ATD).sum(), h_ATD)
        return (gradient_ATD * (self.end_TD - self.begin_TD)).sum(-1)

    def _answer(self, h_ATD: Tensor) -> Tensor:
        """F, the sum of the answer tokens' probabilities, (A,)."""
        *_, final_ATD = self.stream.onward(self.trajectory, h_ATD, self.layer)
        probs_AMV = self.stream.logits(final_ATD[:, self.at_M]).softmax(-1)
        index_AM1 = self.token_M[None, :, None].expand(len(h_ATD), -1, 1)
        return probs_AMV.gather(-1, index_AM1)[..., 0].sum(-1)
