"""The logit lens: what the model would say if a layer were its last.

The lens of h_l is softmax(lm_head(norm(h_l))), with the last norm and the head of the model
(nostalgebraist, 2020; arXiv 2505.13898). Taps are the inputs of blocks, h_0 .. h_{L-1}, and behind
the last block h_L as a check, where the lens is the model's own prediction.

A latent has no token that stood there to be compared with. All positions are compared alike: with
the model's own final distribution at that position, from which it would go on there.

Legend: N rows, T positions, M of them that are real, V vocabulary, D width, L blocks, k tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from latentgym.analysis.pooling import DEFINITION, Pool, groups
from latentgym.analysis.residual import ResidualStream
from latentgym.analysis.sequences import PositionKind, Sequences
from latentgym.errors import UsageError
from latentgym.rollout.diagnostics import nearest_tokens
from latentgym.text.tokenizers import Tokenizer

TOP = 5  # tokens whose overlap is counted
KL_SHARE, OVERLAP_ABOVE = 0.5, 0.3  # of the follow-up's scalars
KL_FINAL_LENS, KL_LENS_FINAL, OVERLAP = "kl_final_lens", "kl_lens_final", "overlap"
DEFINITIONS = {
    "lens": "softmax(lm_head(norm(h_l))), h_l the input of block l, 0-based; 'layers' says which; "
    "l = L is behind the last block, a check",
    "final": "the model's own next-token distribution at the same position, at temperature 1; for "
    "a latent too, which has no token of its own: what the model would sample there",
    KL_FINAL_LENS: "KL(final || lens) = sum p_final (log p_final - log p_lens), nats",
    KL_LENS_FINAL: "KL(lens || final) = sum p_lens (log p_lens - log p_final), nats; the one that "
    "the authors plot",
    OVERLAP: f"share of the {TOP} heaviest tokens of the final distribution that are among the "
    f"{TOP} heaviest of the lens",
    "pooled": DEFINITION,
    "first_kl_below_half": f"least l whose mean KL is below {KL_SHARE} of the largest mean KL of "
    "the taps, of each KL by its name (arXiv 2512.14064 with 'kl_lens_final'); h_l is the *input* "
    "of block l",
    "first_overlap_above": f"least l whose mean overlap is above {OVERLAP_ABOVE}; likewise",
    "depth": "(l + 1) / L, as that paper divides; l and depth are null where no block's input is "
    "such, the check behind the last block does not count",
}


@torch.no_grad()
def logit_lens(
    stream: ResidualStream,
    sequences: Sequences,
    *,
    layers: Sequence[int] | None = None,
    positions_at_once: int = 1024,
) -> dict[str, Any]:
    """How far each layer's prediction is from the final one, by kind of position.

    Args:
        stream: of the model.
        sequences: what it reads.
        layers: taps, 0 .. L; all by default.
        positions_at_once: whose residual streams are held together.

    Returns:
        For a record: `layers`, the three numbers by group of positions, `scalars` by group, and
        `definitions`.

    Raises:
        UsageError: there is no such layer.
    """
    taps = taps_of(stream, layers)
    pools = {name: Pool(len(taps)) for name in (KL_FINAL_LENS, KL_LENS_FINAL, OVERLAP)}
    for part in sequences.chunks(positions_at_once):
        states = stream.trajectory(part.x_NTD, part.mask_NT).states
        mask_NT, where = part.mask_NT, groups(part)
        found = [{name: torch.zeros(mask_NT.shape) for name in pools} for _ in taps]
        places = mask_NT.cpu().nonzero()
        for chosen in torch.split(places, max(1, stream.lm.logits_at_once // 2)):
            at = tuple(chosen.T)
            final_MV = stream.logits(states[-1][at]).log_softmax(-1)
            for tap, values in zip(taps, found, strict=True):
                lens_MV = stream.logits(states[tap][at]).log_softmax(-1)
                for name, value_M in compared(final_MV, lens_MV).items():
                    values[name][at] = value_M.cpu()
        where = {name: group_NT.cpu() for name, group_NT in where.items()}
        for cell, values in enumerate(found):
            for name, pool in pools.items():
                pool.add((cell,), values[name], where)
    return {
        "layers": taps,
        **{name: pool.as_dict() for name, pool in pools.items()},
        "scalars": {
            group: _scalars(taps, len(stream), {n: pool.mean(group) for n, pool in pools.items()})
            for group in pools[OVERLAP].as_dict()
        },
        "definitions": DEFINITIONS,
    }


def compared(final_MV: Tensor, lens_MV: Tensor) -> dict[str, Tensor]:
    """The three numbers of some positions, each fp32 (M,).

    Args:
        final_MV: log-probabilities of the model.
        lens_MV: of the lens.
    """
    difference_MV = final_MV - lens_MV
    k = min(TOP, final_MV.shape[-1])
    final_Mk, lens_Mk = (logp.topk(k, dim=-1).indices for logp in (final_MV, lens_MV))
    shared_M = (final_Mk[:, :, None] == lens_Mk[:, None, :]).any(-1).float().mean(-1)
    return {
        # What is nearly 0 may round to below it.
        KL_FINAL_LENS: (final_MV.exp() * difference_MV).sum(-1).clamp_min(0.0),
        KL_LENS_FINAL: (lens_MV.exp() * -difference_MV).sum(-1).clamp_min(0.0),
        OVERLAP: shared_M,
    }


def taps_of(stream: ResidualStream, layers: Sequence[int] | None) -> list[int]:
    """Taps in order: 0 .. L, or those that are asked for.

    Raises:
        UsageError: there is no such layer.
    """
    every = range(len(stream) + 1)
    taps = sorted(set(every if layers is None else layers))
    if not taps or not set(taps) <= set(every):
        raise UsageError(
            f"{stream.lm.name} has the layers 0 to {len(stream)}, where the last is behind its "
            f"last block; choose some of them instead of {list(layers or ())}."
        )
    return taps


def _scalars(taps: list[int], depth: int, means: dict[str, Tensor]) -> dict[str, Any]:
    """Where the lens comes near to the final prediction, as DEFINITIONS say."""

    def first(holds: Tensor) -> dict[str, float | None]:
        found = [tap for tap, held in zip(taps, holds.tolist(), strict=True) if held]
        layer = found[0] if found and found[0] < depth else None
        return {"l": layer, "depth": None if layer is None else (layer + 1) / depth}

    below = {
        name: first(means[name] < KL_SHARE * means[name].max())
        for name in (KL_FINAL_LENS, KL_LENS_FINAL)
    }
    above = first(means[OVERLAP] > OVERLAP_ABOVE)
    return {"first_kl_below_half": below, "first_overlap_above": above}


@torch.no_grad()
def decode_latents(
    stream: ResidualStream,
    sequences: Sequences,
    tokenizer: Tokenizer,
    *,
    top: int = 5,
    layers: Sequence[int] | None = None,
    positions_at_once: int = 1024,
) -> list[dict[str, Any]]:
    """Every thought in tokens: what it is near to as an input, and what each layer makes of it.

    Args:
        stream: of the model.
        sequences: what it reads.
        tokenizer: of the model.
        top: how many tokens are told.
        layers: taps, 0 .. L; all by default.
        positions_at_once: whose residual streams are held together.

    Returns:
        A row for each position of the chain of thought, in order: `row` of the sequences,
        `position` from the first real one, `step` among the thoughts of the row from 0, `kind`,
        `nearest`: the token embeddings that are nearest to the input by cosine, and `lens`: by
        layer, the heaviest tokens of the lens there, that is, for what comes *next*.

    Raises:
        UsageError: there is no such layer.
    """
    taps, lm, pieces = taps_of(stream, layers), stream.lm, tokenizer.pieces()
    k, table_VD, norm_V = min(top, lm.vocab_size), lm.table_VD, lm.table_norms()

    def told(name: str, weight_Mk: Tensor, id_Mk: Tensor) -> list[list[dict[str, Any]]]:
        pairs = zip(weight_Mk.tolist(), id_Mk.tolist(), strict=True)
        return [
            [{"id": i, "text": pieces[i], name: w} for w, i in zip(*each, strict=True)]
            for each in pairs
        ]

    rows: list[dict[str, Any]] = []
    before = 0  # rows of the parts that are done
    for part in sequences.chunks(positions_at_once):
        states = stream.trajectory(part.x_NTD, part.mask_NT).states
        position_NT, step_NT = part.mask_NT.cumsum(1) - 1, part.step_NT
        for chosen in torch.split((step_NT >= 0).nonzero(), lm.logits_at_once):
            at = tuple(chosen.T)
            near = told("cosine", *nearest_tokens(part.x_NTD[at], table_VD, norm_V, k))
            lenses = [
                told("probability", *stream.logits(states[tap][at]).softmax(-1).topk(k, dim=-1))
                for tap in taps
            ]
            numbers = torch.stack([at[0] + before, position_NT[at], step_NT[at], part.kind_NT[at]])
            for m, (row, position, step, kind) in enumerate(numbers.T.tolist()):
                rows.append(
                    {
                        "row": row,
                        "position": position,
                        "step": step,
                        "kind": PositionKind(kind).name.lower(),
                        "nearest": near[m],
                        "lens": {str(tap): lens[m] for tap, lens in zip(taps, lenses, strict=True)},
                    }
                )
        before += len(part)
    return rows
