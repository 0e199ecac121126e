"""How much each block adds to the residual stream, and in which direction.

"Do Language Models Use Their Depth Efficiently?" (arXiv 2505.13898), figures 2 and 3: norms,
relative contributions and cosines of attention a, MLP m and block a + m against what they read.

Legend: N rows, T positions, D width, L blocks.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from latentgym.analysis.pooling import DEFINITION, Pool, groups
from latentgym.analysis.residual import ResidualStream, Trajectory
from latentgym.analysis.sequences import Sequences

SMALLEST = 1e-6  # denominators are at least that, as the authors have it
DEFINITIONS = {
    "norm_h": "|h_l|, what block l reads",
    "norm_a": "|a_l|, what its attention adds",
    "norm_m": "|m_l|, what its MLP adds",
    "relative_attention": "|a_l| / |h_l|",
    "relative_mlp": "|m_l| / |h_l + a_l|",
    "relative_block": "|a_l + m_l| / |h_l|",
    "cosine_attention": "cos(a_l, h_l): above 0 strengthens, 0 adds something new, below 0 erases",
    "cosine_mlp": "cos(m_l, h_l + a_l)",
    "cosine_block": "cos(a_l + m_l, h_l); its last change of sign is the turning layer",
    "cosine_in_out": "cos(h_l, h_{l+1})",
    "pooled": DEFINITION,
}


@torch.no_grad()
def layer_contributions(
    stream: ResidualStream, sequences: Sequences, *, positions_at_once: int = 1024
) -> dict[str, Any]:
    """Norms, relative contributions and cosines by layer and kind of position.

    Args:
        stream: of the model.
        sequences: that it reads.
        positions_at_once: bounds the memory.

    Returns:
        By name in `DEFINITIONS`, a table over the L layers for each group of positions.
    """
    pools = {name: Pool(len(stream)) for name in DEFINITIONS if name != "pooled"}
    for chunk in sequences.chunks(positions_at_once):
        trajectory, where = stream.trajectory(chunk.x_NTD, chunk.mask_NT), groups(chunk)
        for layer in range(len(stream)):
            for name, value_NT in _of_layer(trajectory, layer):
                pools[name].add((layer,), value_NT, where)
    return {name: pool.as_dict() for name, pool in pools.items()}


def _of_layer(trajectory: Trajectory, layer: int) -> Iterator[tuple[str, Tensor]]:
    h, a, m = (x[layer] for x in (trajectory.resid_pre, trajectory.attn_out, trajectory.mlp_out))
    between, added = h + a, a + m
    yield "norm_h", h.norm(dim=-1)
    yield "norm_a", a.norm(dim=-1)
    yield "norm_m", m.norm(dim=-1)
    for part, what, read in (("attention", a, h), ("mlp", m, between), ("block", added, h)):
        yield f"relative_{part}", relative(what, read)
        yield f"cosine_{part}", nn.functional.cosine_similarity(what, read, dim=-1)
    yield "cosine_in_out", nn.functional.cosine_similarity(h, h + added, dim=-1)


def relative(x_NTD: Tensor, to_NTD: Tensor) -> Tensor:
    """The norm of a vector as a share of another's, (N, T)."""
    share: Tensor = x_NTD.norm(dim=-1) / to_NTD.norm(dim=-1).clamp_min(SMALLEST)
    return share


def turning_layer(cosine_L: list[float | None]) -> int | None:
    """The last layer at which the mean cosine turns from below 0 to 0 or above (arXiv 2512.14064).

    Args:
        cosine_L: by layer.

    Returns:
        The number l of the layer, from 0, that is the first on the upper side; None if none is.
    """
    turns = [
        layer
        for layer, (before, here) in enumerate(pairwise(cosine_L), start=1)
        if before is not None and here is not None and before < 0 <= here
    ]
    return turns[-1] if turns else None
