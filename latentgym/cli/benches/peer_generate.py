"""transformers' `generate`, on the same weights and with its own attention."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from latentgym.cli.benches.clock import now
from latentgym.lm import LatentLM


def generate_ms(
    lm: LatentLM, prompt: Sequence[int], group: int, new: int, *, static: bool = False
) -> float:
    """Milliseconds per step of a whole rollout.

    Args:
        lm: the model.
        prompt: token ids.
        group: rows, which the peer reads one by one.
        new: tokens of each.
        static: keep keys and values in buffers of fixed size, which the peer compiles for on a GPU.
    """
    model: Any = lm.model
    ours, model.config._attn_implementation = model.config._attn_implementation, "sdpa"
    try:
        ids = torch.tensor([prompt], device=lm.device)
        started = now(lm.device)
        model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            num_return_sequences=group,
            min_new_tokens=new,
            max_new_tokens=new,
            pad_token_id=lm.tokenizer.pad_id,
            cache_implementation="static" if static else None,
        )
        return (now(lm.device) - started) / new
    finally:
        model.config._attn_implementation = ours
