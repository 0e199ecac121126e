"""Reading step by step without the modules' own code: bit for bit what these compute."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.models import loaded
from latentgym.lm import LatentLM, load_model
from latentgym.lm.lean import LeanBlocks, is_lean
from latentgym.text.tokenizers import ByteTokenizer


def read(lm: LatentLM) -> Tensor:
    """What is read after prompts of unequal length, one position and several at once."""
    ids = torch.tensor([[256, 256, 7, 8], [9, 10, 11, 12]])
    with lm.decoding():
        cache = lm.prefill(ids, ids < 256, 2).cache
        x = lm.embed(torch.arange(20).view(4, 5))
        position = torch.tensor([2, 2, 4, 4])[:, None] + torch.arange(5)
        return torch.cat(
            [
                lm.extend(x[:, some], position[:, some], cache)
                for some in (slice(0, 1), slice(1, 4), slice(4, 5))
            ],
            dim=1,
        ).clone()


@pytest.mark.parametrize("arch", ["llama", "qwen2"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_they_read_alike(arch: str, dtype: str) -> None:
    lm = load_model(f"tiny:{arch}:3x4x32", tokenizer=ByteTokenizer(), dtype=dtype)
    assert lm.lean
    lean = read(lm)
    lm.lean = False
    assert torch.equal(read(lm), lean)


def test_adapters_and_hooks_count(monkeypatch: pytest.MonkeyPatch) -> None:
    lm: LatentLM = load_model("tiny:llama:2x2x32", tokenizer=ByteTokenizer())
    lm.add_lora(4, 8)
    for name, p in lm.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(p)
    used = []
    call = LeanBlocks.__call__

    def counted(self: LeanBlocks, *given: Any) -> Tensor:
        used.append(given)
        return call(self, *given)

    monkeypatch.setattr(LeanBlocks, "__call__", counted)
    lean = read(lm)
    assert len(used) == 3
    seen = []
    hook = lm.backbone.layers[1].register_forward_hook(lambda *given: seen.append(given))
    assert torch.equal(read(lm), lean)
    assert len(used) == 3 and len(seen) == 4  # the prompts, and three steps
    hook.remove()
    assert torch.equal(read(lm), lean) and len(used) == 6


@pytest.mark.parametrize("arch", ["gpt2", "gemma2", "mistral", "qwen3", "gpt_oss"])
def test_other_blocks_are_left_to_their_modules(arch: str) -> None:
    lm = loaded(arch)
    assert isinstance(lm, LatentLM)
    assert not is_lean(lm.backbone) and not lm.lean


def test_blocks_that_only_look_alike_are_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    call = LeanBlocks.__call__
    monkeypatch.setattr(LeanBlocks, "__call__", lambda *given: 1.01 * call(*given))
    assert not load_model("tiny:llama:2x2x32", tokenizer=ByteTokenizer()).lean
