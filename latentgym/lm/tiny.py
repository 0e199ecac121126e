"""Tiny models by name: fresh weights, for a task's own tokenizer.

`tiny[:ARCH[:LxHxD]]`, for example `tiny:gpt2:2x2x32` (2 layers, 2 heads, width 32). Three are of
transformers; `op` is the outlier-protected one (`latentgym.lm.op`), `op-trainable` the same with
gains that are learnt.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from latentgym.errors import UsageError
from latentgym.text.tokenizers import Tokenizer

TINY_POSITIONS = 1024
ARCHITECTURES = ("gpt2", "llama", "qwen2", "op", "op-trainable")
_TINY = re.compile(r"tiny(?::(?P<arch>[a-z0-9-]+))?(?::(?P<l>\d+)x(?P<h>\d+)x(?P<d>\d+))?$")
_OP_SCALE = 0.02 * 768**0.5  # of weights times the root of the width, where its authors had 768


@dataclass(frozen=True)
class TinySpec:
    """A model with random weights: architecture, layers, heads, width."""

    arch: str = "gpt2"
    layers: int = 2
    heads: int = 2
    width: int = 32

    def __str__(self) -> str:
        return f"tiny:{self.arch}:{self.layers}x{self.heads}x{self.width}"


def parse_tiny(name: str) -> TinySpec | None:
    """The specification behind `tiny...`, or None if the name is not of that form.

    Raises:
        UsageError: the architecture is unknown, or heads do not divide the width.
    """
    if name != "tiny" and not name.startswith("tiny:"):
        return None
    match = _TINY.match(name)
    if match is None:
        raise UsageError(f"{name!r} is no tiny model; write tiny[:ARCH[:LxHxD]], tiny:gpt2:2x2x32.")
    default = TinySpec()
    spec = TinySpec(
        arch=match["arch"] or default.arch,
        layers=int(match["l"] or default.layers),
        heads=int(match["h"] or default.heads),
        width=int(match["d"] or default.width),
    )
    if spec.arch not in ARCHITECTURES:
        raise UsageError(
            f"no tiny architecture {spec.arch!r}; choose {', '.join(ARCHITECTURES[:-1])} or "
            f"{ARCHITECTURES[-1]}."
        )
    if min(spec.layers, spec.heads, spec.width) < 1 or spec.width % spec.heads:
        raise UsageError(f"{name!r}: heads must divide the width, and all be at least 1.")
    return spec


def vocabulary_of(model: str) -> str | None:
    """The model whose vocabulary and prompts an environment takes, as its argument `model`.

    None for a tiny one, which speaks the symbols of the task.
    """
    return None if parse_tiny(model) else model


def tiny_model(
    spec: TinySpec, tokenizer: Tokenizer, *, seed: int = 0, positions: int = TINY_POSITIONS
) -> Any:
    """A fresh model of that specification; weights are a function of the seed alone.

    Args:
        spec: architecture and size.
        tokenizer: gives the vocabulary and special ids.
        seed: of the initial weights.
        positions: the longest sequence.
    """
    import torch
    from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, Qwen2Config

    from latentgym.lm.op import OPConfig

    common: dict[str, Any] = {
        "vocab_size": tokenizer.vocab_size,
        "pad_token_id": tokenizer.pad_id,
        "eos_token_id": tokenizer.eos_id,
        "bos_token_id": None,
    }
    config: Any
    if spec.arch == "gpt2":
        config = GPT2Config(
            n_layer=spec.layers,
            n_head=spec.heads,
            n_embd=spec.width,
            n_positions=positions,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            **common,
        )
    else:
        common |= {
            "num_hidden_layers": spec.layers,
            "num_attention_heads": spec.heads,
            "num_key_value_heads": spec.heads // 2 if spec.heads % 2 == 0 else spec.heads,
            "hidden_size": spec.width,
            "intermediate_size": 4 * spec.width,
            "max_position_embeddings": positions,
            "tie_word_embeddings": True,
        }
        if spec.arch in ("llama", "qwen2"):
            config = (LlamaConfig if spec.arch == "llama" else Qwen2Config)(**common)
        else:
            config = OPConfig(
                head_dim=spec.width // spec.heads,
                initializer_range=_OP_SCALE * spec.width**-0.5,
                trainable_gain=spec.arch == "op-trainable",
                **common,
            )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        auto: Any = AutoModelForCausalLM
        return auto.from_config(config)
