"""`latentgym bench memory`: what fits, foreseen for any size and held to what small models take.

What is measured and how: `latentgym.cli.benches.settings.MemoryBench`. The formulas are those of
`latentgym.lm.footprint`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch

from latentgym.cli.benches.peak import peak_bytes
from latentgym.cli.benches.settings import MemoryBench
from latentgym.episodes.protocol import Budget, Protocol
from latentgym.errors import UsageError, did_you_mean
from latentgym.heads import TokenHead
from latentgym.lm import LatentLM, load_model
from latentgym.lm.footprint import Footprint, Layout, layout_of, planned
from latentgym.lm.memory import free_bytes
from latentgym.lm.mode import mode
from latentgym.progress import progress_bar
from latentgym.rollout import Engine, Policy, Rollouts, replay
from latentgym.text.tokenizers import ByteTokenizer

# Width, layers, heads, key-value heads, inner width, vocabulary, tied table: Qwen2.5's.
LAYOUTS: Mapping[str, tuple[int, int, int, int, int, int, bool]] = {
    "0.5B": (896, 24, 14, 2, 4864, 151_936, True),
    "1.5B": (1536, 28, 12, 2, 8960, 151_936, True),
    "3B": (2048, 36, 16, 2, 11_008, 151_936, True),
    "7B": (3584, 28, 28, 4, 18_944, 152_064, False),
    "14B": (5120, 48, 40, 8, 13_824, 152_064, False),
}
_NAMES = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "intermediate_size",
    "vocab_size",
    "tie_word_embeddings",
)

Measured = dict[str, Any]
"""Model, type, what was done, bytes measured and foreseen, and the ratio of the latter to them."""


def run(options: MemoryBench) -> dict[str, Any]:
    """Run the benchmark; all figures as plain data.

    Raises:
        UsageError: settings that cannot work, a size that is unknown, or a model with experts.
    """
    options.validate()
    layouts = {name: layout(name) for name in options.layouts}
    measured: list[Measured] = []
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    models = options.models if options.measure else ()
    with progress_bar("bench memory", len(models)) as advance:
        for name in models:
            lm = load_model(name, tokenizer=ByteTokenizer(), mixed_precision=True)
            measured += _measured(lm, options)
            advance(1)
    return {
        "bench": "memory",
        "settings": asdict(options),
        "device": str(device),
        "free_bytes": free_bytes(device),
        "foreseen": {name: _parts(sizes, options) for name, sizes in layouts.items()},
        "measured": measured,
        "scaling": {},
    }


def layout(name: str) -> Layout:
    """The layout of Qwen2.5 of that size.

    Raises:
        UsageError: there is none.
    """
    if name not in LAYOUTS:
        raise UsageError(f"no layout {name!r}; {did_you_mean(name, LAYOUTS)}")
    from transformers import Qwen2Config

    return planned(Qwen2Config(**dict(zip(_NAMES, LAYOUTS[name], strict=True))))


def _footprint(sizes: Layout, o: MemoryBench, dtype: torch.dtype, **more: Any) -> Footprint:
    return Footprint(
        sizes,
        dtype,
        prompts=o.prompts,
        group=o.group,
        prompt=o.prompt,
        steps=o.new,
        rows=o.micro_batch,
        **more,
    )


def _parts(sizes: Layout, o: MemoryBench) -> dict[str, int]:
    """Bytes of every part, and in all, by name; on a GPU, where nothing is packed."""
    dtype = getattr(torch, o.dtype)
    acting = _footprint(sizes, o, dtype, foreach=True)
    full, lora = replace(acting, trained=True), replace(acting, lora=o.lora)
    again = replace(full, recompute=True)
    narrow, eight = replace(lora, four_bits=True), replace(full, eight_bits=True)
    return {
        f"weights, {o.dtype}": acting.weights,
        "weights, trained": full.weights,
        f"weights, LoRA of rank {o.lora}": lora.weights,
        f"weights, 4 bits below LoRA of rank {o.lora}": narrow.weights,
        "gradients": full.gradients,
        "gradients, LoRA": lora.gradients,
        "AdamW": full.optimizer,
        "AdamW in 8 bits": eight.optimizer,
        "AdamW, LoRA": lora.optimizer,
        "weights as they are cast": full.casts,
        "weights packed, on a CPU": replace(acting, packed=True).casts,
        "cache, a prompt": acting.prompt_cache,
        "cache, a row": acting.own_cache,
        "cache, a row and step": acting.cache_position,
        "activations": full.activations,
        "activations, recomputed": again.activations,
        "logits, a chunk": full.logits,
        "in all: rollout": acting.acting,
        "in all: training": full.training,
        "in all: training, recomputed": again.training,
        "in all: training, AdamW in 8 bits": eight.training,
        "in all: LoRA": lora.training,
        "in all: LoRA, recomputed": replace(lora, recompute=True).training,
        "in all: LoRA above 4 bits, recomputed": replace(narrow, recompute=True).training,
    }


def _measured(lm: LatentLM, o: MemoryBench) -> list[Measured]:
    """The peaks of a rollout and of updates, beside what stood before, and what was foreseen."""
    dtype = lm.autocast or lm.dtype
    on_gpu = lm.device.type == "cuda"
    sizes = layout_of(lm.model)
    foreseen = _footprint(sizes, o, dtype, trained=True, padded=False, foreach=on_gpu)
    policy = Policy(lm, TokenHead())
    kept: list[Rollouts] = []
    peaks = {"rollout": (_peak_of_rollout(policy, o, kept), foreseen.rollout)}
    peaks["update"] = (_peak_of_update(policy, kept[0], o, recompute=False), foreseen.update)
    lm.checkpoint_gradients()
    again = replace(foreseen, recompute=True).update
    peaks["update, recomputed"] = (_peak_of_update(policy, kept[0], o, recompute=True), again)
    return [
        {
            "model": lm.name,
            "dtype": str(dtype).removeprefix("torch."),
            "what": what,
            "measured_bytes": peak,
            "foreseen_bytes": formula,
            "ratio": formula / peak,
        }
        for what, (peak, formula) in peaks.items()
    ]


def _peak_of_rollout(policy: Policy, o: MemoryBench, kept: list[Rollouts]) -> int:
    rng = np.random.default_rng(0)
    ids_QP = rng.integers(3, policy.lm.vocab_size - 3, (o.prompts, o.prompt))
    protocol = Protocol(Budget(o.new, exact=True), Budget(0))
    engine = Engine(policy)

    def roll() -> None:
        prompts: list[list[int]] = ids_QP.tolist()
        kept.append(engine.rollout(prompts, protocol, seed=0, group_size=o.group))

    return peak_bytes(roll, policy.lm.device)


def _peak_of_update(policy: Policy, rollouts: Rollouts, o: MemoryBench, *, recompute: bool) -> int:
    """Of two micro-batches, so that gradients stand, and a step by AdamW, whose state does too."""
    trained = [p for p in policy.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=0.0)
    rows = rollouts.select(np.arange(o.micro_batch))

    def update() -> None:
        for _ in range(2):
            loss = replay(policy, rows).logp_NT.mean()
            loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    for p in trained:  # the state of a first step
        p.grad = torch.zeros_like(p)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    with mode(policy, training=recompute):
        return peak_bytes(update, policy.lm.device)
