"""Reading the prompts of a replay once each, however many rows continue them.

The G rows of a group begin with the same prompt. Read row by row it costs G times over, forward and
backward; here it is read once, and its keys and values serve all its rows, to which gradients flow
back as a sum. The result is that of one plain pass over whole rows, up to rounding.

Legend: B rows, T positions, P positions of the prompts, Q distinct prompts, D width.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache

from latentgym.lm.model import LatentLM
from latentgym.rollout.rollouts import StepKind


class SharedPrompts(NamedTuple):
    """Which rows begin alike.

    Attributes:
        width: P; the prompts are the first P positions of their rows, padding included.
        first_Q: a row that begins with each prompt.
        prompt_B: which prompt each row begins with.
    """

    width: int
    first_Q: Tensor
    prompt_B: Tensor


def shared_prompts(token_BT: Tensor, kind_BT: Tensor) -> SharedPrompts | None:
    """The prompts of the rows, or None where reading them once would not pay.

    That is where fewer than two rows share a prompt on average, or prompts end in different columns
    (rows that are padded on the right).
    """
    prompt_BT = kind_BT == StepKind.PROMPT
    where = prompt_BT.any(0).nonzero()
    if not len(where):
        return None
    width = int(where.max()) + 1
    begin_BP = kind_BT[:, :width]
    if bool((begin_BP[:, -1] != StepKind.PROMPT).any()) or bool(
        ((begin_BP != StepKind.PROMPT) & (begin_BP != StepKind.PAD)).any()
    ):
        return None
    key_BP = torch.stack([token_BT[:, :width], begin_BP.to(token_BT.dtype)], dim=-1)
    distinct, prompt_B = torch.unique(key_BP, dim=0, return_inverse=True)
    rows, prompts = len(token_BT), len(distinct)
    if rows < 2 * prompts:
        return None
    row_B = torch.arange(rows, device=token_BT.device)
    first_Q = row_B.new_full((prompts,), rows).scatter_reduce(0, prompt_B, row_B, "amin")
    return SharedPrompts(width, first_Q, prompt_B)


def hidden_states(
    lm: LatentLM, x_BTD: Tensor, mask_BT: Tensor, token_BT: Tensor, kind_BT: Tensor
) -> Tensor:
    """Last hidden states of whole rows, as `LatentLM.hidden` tells them.

    Args:
        lm: the model.
        x_BTD: input embeddings; rows whose prompts have the same tokens have the same there.
        mask_BT: True where a position is read.
        token_BT: tokens.
        kind_BT: `StepKind` of each position.

    Returns:
        (B, T, D); what stands at padded positions has no meaning.
    """
    # A model that recomputes its activations keeps no cache meanwhile.
    recomputes = lm.recomputes and torch.is_grad_enabled()
    shared = None if recomputes else shared_prompts(token_BT, kind_BT)
    if shared is None:
        return lm.hidden(x_BTD, mask_BT)
    cache = DynamicCache()
    width = shared.width
    prompt_BPD = read_prompts(lm, x_BTD[:, :width], mask_BT[:, :width], shared, cache)
    if x_BTD.shape[1] == width:
        return prompt_BPD
    return torch.cat([prompt_BPD, lm.hidden(x_BTD[:, width:], mask_BT, cache)], dim=1)


def read_prompts(
    lm: LatentLM, x_BPD: Tensor, mask_BP: Tensor, shared: SharedPrompts, cache: DynamicCache
) -> Tensor:
    """Last hidden states of the rows' prompts, (B, P, D), each prompt read once.

    Args:
        lm: the model.
        x_BPD: input embeddings of the prompts; of rows that share one, the first row's are read.
        mask_BP: True where a position is read.
        shared: which rows begin alike.
        cache: an empty one, which is that of B rows then.
    """
    first_Q, prompt_B = shared.first_Q, shared.prompt_B
    if len(first_Q) == len(prompt_B):
        return lm.hidden(x_BPD, mask_BP, cache)
    hidden_QPD = lm.hidden(x_BPD[first_Q], mask_BP[first_Q], cache)
    cache.batch_select_indices(prompt_B)
    return hidden_QPD[prompt_B]
