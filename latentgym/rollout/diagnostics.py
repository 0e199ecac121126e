"""What the thoughts of a rollout look like as inputs of the model.

A model reads a thought where it is used to read token embeddings. Thoughts that are much longer
than these, or carried by a few of their elements, tell of a collapse before the reward does. The
metrics of outlier features (`latentgym.lm.outliers`) are taken on input embeddings, with the lower
median.

Legend: M vectors, D width, V vocabulary, k nearest embeddings.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from latentgym.lm.model import TABLE_BLOCK
from latentgym.lm.outliers import kurtosis, max_median_ratio
from latentgym.rollout.policy import Policy
from latentgym.rollout.rollouts import IntArray, Rollouts, StepKind

_MOST = 512  # thoughts looked at, evenly spaced over the rollout
_MOST_NEAREST = 64  # of them: the nearest word is a search of the whole table


def nearest_tokens(
    x_MD: Tensor, table_VD: Tensor, norm_V: Tensor, top: int = 1
) -> tuple[Tensor, Tensor]:
    """The embeddings that are nearest to some vectors in direction.

    Args:
        x_MD: vectors.
        table_VD: the embeddings.
        norm_V: their norms.
        top: how many of them.

    Returns:
        Cosines in falling order, fp32 (M, top), and the ids, int64 (M, top).
    """
    x_MD = nn.functional.normalize(x_MD.float(), dim=-1)
    best_Mk, id_Mk = x_MD.new_empty(len(x_MD), 0), x_MD.new_empty(len(x_MD), 0, dtype=torch.long)
    # In blocks, and divided by the norms afterwards: no call copies the whole table.
    blocks = torch.split(table_VD, TABLE_BLOCK), torch.split(norm_V, TABLE_BLOCK)
    for number, (block_VD, block_V) in enumerate(zip(*blocks, strict=True)):
        cosine_MV = x_MD @ block_VD.float().T / block_V.clamp_min(1e-12)
        id_MV = torch.arange(len(block_V), device=x_MD.device) + number * TABLE_BLOCK
        cosine_MV = torch.cat([best_Mk, cosine_MV], dim=-1)
        id_MV = torch.cat([id_Mk, id_MV.expand(len(x_MD), -1)], dim=-1)
        best_Mk, place_Mk = cosine_MV.topk(min(top, cosine_MV.shape[-1]), dim=-1)
        id_Mk = id_MV.gather(-1, place_Mk)
    return best_Mk, id_Mk


def nearest_cosine(x_MD: Tensor, table_VD: Tensor, norm_V: Tensor) -> Tensor:
    """Mean cosine between a vector and the embedding nearest to it; see `nearest_tokens`."""
    return nearest_tokens(x_MD, table_VD, norm_V)[0].mean()


@torch.no_grad()
def latent_statistics(policy: Policy, rollouts: Rollouts) -> dict[str, float]:
    """Numbers to log of a rollout's thoughts and, to compare, of its tokens.

    Args:
        policy: that thought them.
        rollouts: its record.

    Returns:
        `latent/...` by name (docs/metrics.md); empty for thoughts in tokens, and without thoughts.
    """
    if policy.thinks_in_tokens:
        return {}
    table_VD, device = policy.lm.table_VD, policy.lm.device
    row, step = _spread(rollouts, StepKind.THOUGHT)
    if not len(row):
        return {}
    token = torch.from_numpy(rollouts.token_NT[row, step]).to(device)
    thoughts = {name: value[row, step].to(device) for name, value in rollouts.actions.items()}
    thoughts["token"] = token
    x_MD = policy.head.embed(thoughts, table_VD)
    norm_V = policy.lm.table_norms()
    word_norm = norm_V.mean()
    found = {
        "norm": x_MD.float().norm(dim=-1).mean() / word_norm,
        "kurtosis": kurtosis(x_MD),
        "max_median": max_median_ratio(x_MD),
        "nearest": nearest_cosine(x_MD[:: -(-len(x_MD) // _MOST_NEAREST)], table_VD, norm_V),
        **{k: v.float().mean() for k, v in policy.head.statistics(thoughts, table_VD).items()},
    }
    row, step = _spread(rollouts, StepKind.TOKEN)
    if len(row):
        token_MD = policy.lm.embed(torch.from_numpy(rollouts.token_NT[row, step]).to(device))
        found["word_norm"] = token_MD.float().norm(dim=-1).mean() / word_norm
        found["word_kurtosis"] = kurtosis(token_MD)
    return {f"latent/{name}": float(value) for name, value in found.items()}


def _spread(rollouts: Rollouts, kind: StepKind) -> tuple[IntArray, IntArray]:
    """Rows and steps of that kind, at most `_MOST` of them, evenly spaced."""
    row, step = np.nonzero(rollouts.kind_NT == kind)
    every = max(1, -(-len(row) // _MOST))
    return row[::every], step[::every]
