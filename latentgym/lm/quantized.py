"""Linear layers whose weights are kept in 4 bits, with adapters trained above them (QLoRA).

"QLoRA: Efficient Finetuning of Quantized LLMs" (arXiv 2305.14314): NormalFloat (NF4) in blocks of
64 with one scale each, the scales quantised again; products are computed in the model's precision.
It is bitsandbytes that does it, on GPUs and on CPUs. Embeddings, norms and the language-model head
stay as they are.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from latentgym.errors import UsageError

BITS = 4.2  # of a weight, with its share of the scales


def four_bits(dtype: torch.dtype) -> Any:
    """What transformers is told, so that it loads a model so.

    Args:
        dtype: in which products are computed.

    Raises:
        UsageError: bitsandbytes is missing.
    """
    if find_spec("bitsandbytes") is None or find_spec("accelerate") is None:
        raise UsageError(
            "weights in 4 bits need bitsandbytes; pip install 'latentgym[bitsandbytes]'."
        )
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


def elements(weight: Tensor) -> int:
    """How many numbers a weight stands for: of those in 4 bits two share a byte."""
    state: Any = getattr(weight, "quant_state", None)
    return weight.numel() if state is None else int(state.shape.numel())
