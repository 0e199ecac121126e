"""Decoding behind the grouped cache is an ordinary forward pass, and bad models are refused."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from latentgym.errors import UsageError
from latentgym.lm import LatentLM
from latentgym.lm.cache import GroupedCache
from latentgym.lm.model import left_pad, positions
from latentgym.tokenizers import ByteTokenizer

ARCHITECTURES = ("llama", "gpt2", "qwen2")
PROMPTS = [[5, 6, 7, 8, 9, 10], [11, 12], [13, 14, 15, 16]]  # unequal: two are padded

MakeLM = Callable[..., LatentLM]


class Decoding:
    """Rows that read the same vectors twice: behind a cache, and remembered for a plain pass."""

    def __init__(self, lm: LatentLM, group: int) -> None:
        self.lm = lm
        ids, mask = left_pad(PROMPTS, 0, torch.device("cpu"))
        prefill = lm.prefill(ids, mask, group, memory=True)
        self.cache: GroupedCache = prefill.cache
        self.prefill = prefill
        rows = [lm.embed(torch.tensor(prompt)) for prompt in PROMPTS]
        self.read = [x for x in rows for _ in range(group)]
        self.generator = torch.Generator().manual_seed(0)

    def step(self, n: int = 1, mask_Nn: Tensor | None = None) -> Tensor:
        """n random vectors per row; the hidden states behind the last."""
        x = torch.randn(len(self.read), n, self.lm.hidden_size, generator=self.generator)
        real = torch.ones(x.shape[:2], dtype=torch.bool) if mask_Nn is None else mask_Nn
        start = torch.tensor([len(row) for row in self.read])[:, None]
        position = (start + real.long().cumsum(1) - 1).clamp_min(0)
        hidden = self.lm.extend(x, position, self.cache, mask_Nn)
        self.read = [
            torch.cat([old, new[m]]) for old, new, m in zip(self.read, x, real, strict=True)
        ]
        return hidden[:, -1]

    def keep(self, rows: list[int]) -> None:
        self.cache.keep(torch.tensor(rows))
        self.read = [self.read[i] for i in rows]

    def plain(self) -> Tensor:
        """The last hidden states by one plain pass per row, without padding or cache."""
        return torch.cat(
            [self.lm.backbone(inputs_embeds=x[None]).last_hidden_state[:, -1] for x in self.read]
        )


@pytest.mark.parametrize("arch", ARCHITECTURES)
@torch.no_grad()
def test_decoding_behind_a_shared_prompt_is_a_plain_forward_pass(
    arch: str, random_lm: MakeLM
) -> None:
    decoding = Decoding(random_lm(arch), group=3)
    assert_close(decoding.prefill.hidden_ND, decoding.plain(), rtol=1e-4, atol=1e-4)
    for _ in range(70):  # beyond the first capacity of the buffers
        hidden = decoding.step()
    assert_close(hidden, decoding.plain(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("arch", ARCHITECTURES)
@torch.no_grad()
def test_rows_that_stay_go_on_as_before(arch: str, random_lm: MakeLM) -> None:
    """Unequal groups, then a prompt without rows, then equal groups again."""
    decoding = Decoding(random_lm(arch), group=3)
    for rows in ([0, 2, 3, 6, 7, 8], [1, 3, 4, 5], [0, 3], [1]):
        decoding.step()
        decoding.keep(rows)
        assert_close(decoding.step(), decoding.plain(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("arch", ARCHITECTURES)
@torch.no_grad()
def test_several_positions_at_once_some_of_them_padding(arch: str, random_lm: MakeLM) -> None:
    decoding = Decoding(random_lm(arch), group=2)
    decoding.step()
    mask = torch.ones(6, 4, dtype=torch.bool)
    mask[0, :3] = mask[3, :1] = False
    assert_close(decoding.step(4, mask), decoding.plain(), rtol=1e-4, atol=1e-4)
    decoding.keep([0, 1, 3, 5])
    assert_close(decoding.step(), decoding.plain(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("arch", ARCHITECTURES)
@torch.no_grad()
def test_parallel_pass_with_padding_on_either_side(arch: str, random_lm: MakeLM) -> None:
    lm = random_lm(arch)
    x = torch.randn(2, 6, lm.hidden_size, generator=torch.Generator().manual_seed(1))
    mask = torch.tensor([[0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 1, 0]]).bool()
    hidden = lm.hidden(x, mask)
    for row in range(2):
        alone = lm.backbone(inputs_embeds=x[row, mask[row]][None]).last_hidden_state[0]
        assert_close(hidden[row, mask[row]], alone, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_memory_is_the_hidden_states_of_the_prompt(random_lm: MakeLM) -> None:
    decoding = Decoding(random_lm("llama"), group=2)
    memory, mask = decoding.prefill.memory_QPD, decoding.prefill.memory_mask_QP
    assert memory is not None
    lengths = [len(prompt) for prompt in PROMPTS]
    assert mask.sum(1).tolist() == lengths
    assert_close(memory[:, -1].repeat_interleave(2, 0), decoding.prefill.hidden_ND)


@torch.no_grad()
def test_logits_are_those_of_the_model(random_lm: MakeLM) -> None:
    lm = random_lm("qwen2")
    ids = torch.tensor([[1, 2, 3]])
    ours = lm.logits(lm.hidden(lm.embed(ids), torch.ones(1, 3, dtype=torch.bool)))
    assert ours.dtype == torch.float32
    assert_close(ours, lm.model(input_ids=ids).logits, rtol=1e-4, atol=1e-4)


def test_positions_count_real_tokens() -> None:
    mask = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 0]]).bool()
    assert positions(mask).tolist() == [[0, 0, 0, 1], [0, 1, 2, 2]]


def test_decoding_restores_the_mode(random_lm: MakeLM) -> None:
    lm = random_lm("gpt2").train()
    with lm.decoding():
        assert not lm.training and torch.is_inference_mode_enabled()
    assert lm.training and not torch.is_inference_mode_enabled()
    lm.eval()


def wrap(model: Any) -> LatentLM:
    return LatentLM(model, ByteTokenizer(), "test")


SIZES: dict[str, Any] = {
    "vocab_size": 259,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def test_an_encoder_decoder_is_refused() -> None:
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config(vocab_size=32, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    with pytest.raises(UsageError, match="T5ForConditionalGeneration is no decoder-only"):
        wrap(T5ForConditionalGeneration(config))


def test_a_model_without_a_language_model_head_is_refused() -> None:
    from transformers import LlamaConfig, LlamaModel

    with pytest.raises(UsageError, match="LlamaModel is no decoder-only"):
        wrap(LlamaModel(LlamaConfig(**SIZES)))


def test_a_sliding_window_limits_the_positions() -> None:
    """Whether the configuration lists its layers (Qwen2) or has one window for all (Mistral)."""
    from transformers import MistralConfig, MistralForCausalLM, Qwen2Config, Qwen2ForCausalLM

    mistral = MistralForCausalLM(MistralConfig(sliding_window=24, **SIZES))
    assert wrap(mistral).max_positions == 24
    options = {"use_sliding_window": True, "sliding_window": 20, "max_window_layers": 1}
    assert wrap(Qwen2ForCausalLM(Qwen2Config(**options, **SIZES))).max_positions == 20
    plain = Qwen2ForCausalLM(Qwen2Config(max_position_embeddings=99, **SIZES))
    assert wrap(plain).max_positions == 99


def test_logits_changed_after_the_head_are_refused() -> None:
    from transformers import Gemma2Config, Gemma2ForCausalLM

    model = Gemma2ForCausalLM(Gemma2Config(head_dim=8, **SIZES))
    with pytest.raises(UsageError, match="final_logit_softcapping"):
        wrap(model)


def test_attention_with_a_cap_is_refused() -> None:
    from transformers import Gemma2Config, Gemma2ForCausalLM

    config = Gemma2Config(head_dim=8, final_logit_softcapping=None, **SIZES)
    lm = wrap(Gemma2ForCausalLM(config))
    with pytest.raises(UsageError, match="softcap"):
        lm.hidden(torch.zeros(1, 2, 16), torch.ones(1, 2, dtype=torch.bool))


def test_adapters_are_a_function_of_the_seed(random_lm: Callable) -> None:
    pytest.importorskip("peft")

    def adapters(seed: int) -> list[torch.Tensor]:
        lm = copy.deepcopy(random_lm("llama"))
        lm.add_lora(r=2, alpha=4, seed=seed)
        return [p.detach() for name, p in lm.named_parameters() if "lora_A" in name]

    one, other = adapters(0), adapters(0)
    assert one and all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(one, adapters(1), strict=True))
