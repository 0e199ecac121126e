"""Until which layer a position's own information is needed: erase its residual stream, and look.

"Do Language Models Use Their Depth Efficiently?" (arXiv 2505.13898), figure 7. Before layer l the
residual stream of one position is replaced by the mean residual stream there, and the effect is the
largest L2 norm of the change of the next-token distributions before the answer tokens.

Legend: N rows, T positions, E erased positions, D width, M answer tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from latentgym.analysis.gradients import answer_places
from latentgym.analysis.residual import ResidualStream
from latentgym.analysis.sequences import PositionKind, Sequences

DEFINITION = (
    "[layer][position]: largest L2 norm of the change of the next-token distributions before the "
    "answer tokens where h_l of that position is the mean of h_l over the positions of all these "
    "sequences, first positions left out"
)


@torch.no_grad()
def residual_erasure(
    stream: ResidualStream,
    sequences: Sequences,
    *,
    layers: Sequence[int] | None = None,
    positions: int = 16,
    positions_at_once: int = 1024,
) -> list[dict[str, Any]]:
    """Effects of erasing single positions of each sequence.

    Args:
        stream: of the model.
        sequences: that have answer tokens.
        layers: before which is erased; all L by default.
        positions: how many of each sequence are erased at most, evenly spaced, its last ones before
            the answer among them; the first position and the answer's own are not.
        positions_at_once: bounds the memory.

    Returns:
        For each sequence `positions` (places counted from its first), their `kinds`, and `effect`,
        a table [layer][position].

    Raises:
        UsageError: a sequence has no answer token.
    """
    chosen = list(range(len(stream))) if layers is None else list(layers)
    mean_LD = _mean_states(stream, sequences, chosen, positions_at_once)
    found = []
    for row in range(len(sequences)):
        one = sequences.select([row])
        at_M, _ = answer_places(one)
        candidates = (one.mask_NT[0] & ~one.first_NT[0]).nonzero()[:, 0]
        candidates = candidates[candidates <= at_M[0]]
        place = (
            torch.linspace(0, len(candidates) - 1, min(positions, len(candidates))).round().long()
        )
        erased_E = candidates[torch.unique(place).to(candidates.device)]
        first = int(one.first_NT[0].nonzero()[0])
        kinds = [PositionKind(int(k)).name.lower() for k in one.kind_NT[0, erased_E]]
        found.append(
            {
                "positions": (erased_E - first).tolist(),
                "kinds": kinds,
                "effect": _effects(stream, one, chosen, mean_LD, erased_E, at_M, positions_at_once),
            }
        )
    return found


def _effects(
    stream: ResidualStream,
    one: Sequences,
    layers: Sequence[int],
    mean_LD: Tensor,
    erased_E: Tensor,
    at_M: Tensor,
    positions_at_once: int,
) -> list[list[float]]:
    rows = max(1, min(len(erased_E), positions_at_once // one.token_NT.shape[1]))
    copies = one.select([0] * rows)
    trajectory = stream.trajectory(copies.x_NTD, copies.mask_NT)
    before = stream.logits(trajectory.final[:1, at_M]).softmax(-1)
    table = []
    for layer, mean_D in zip(layers, mean_LD, strict=True):
        effects: list[float] = []
        for part_E in torch.split(erased_E, rows):
            h = trajectory.states[layer].clone()
            row_E = torch.arange(len(part_E), device=h.device)
            h[row_E, part_E] = mean_D
            *_, final = stream.onward(trajectory, h, layer)
            after = stream.logits(final[: len(part_E), at_M]).softmax(-1)
            effects += (after - before).norm(dim=-1).amax(-1).tolist()
        table.append(effects)
    return table


def _mean_states(
    stream: ResidualStream, sequences: Sequences, layers: Sequence[int], positions_at_once: int
) -> Tensor:
    """Mean residual streams, (L, D), of all positions but the first."""
    total, count = torch.zeros(()), 0
    for chunk in sequences.chunks(positions_at_once):
        trajectory = stream.trajectory(chunk.x_NTD, chunk.mask_NT)
        where = chunk.mask_NT & ~chunk.first_NT
        states_LMD = torch.stack([trajectory.states[layer][where] for layer in layers])
        total, count = total + states_LMD.double().sum(1).cpu(), count + states_LMD.shape[1]
    return (total / count).to(sequences.x_NTD)
