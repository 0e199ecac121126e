"""Decoding behind the grouped cache is an ordinary forward pass, and bad models are refused."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from benchmarks.models import loaded
from latentgym.errors import UsageError
from latentgym.lm import LatentLM
from latentgym.lm.cache import GroupedCache
from latentgym.lm.model import left_pad, positions, right_pad
from latentgym.lm.self_test import _own_attention
from latentgym.text.tokenizers import ByteTokenizer

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
        with _own_attention(self.lm.model):
            return torch.cat([self.alone(x) for x in self.read])

    def alone(self, x_TD: Tensor) -> Tensor:
        hidden: Tensor = self.lm.backbone(inputs_embeds=x_TD[None]).last_hidden_state
        return hidden[:, -1]


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


def test_padding_on_either_side() -> None:
    device = torch.device("cpu")
    ids, mask = left_pad([[1, 2, 3], [4]], 9, device)
    assert ids.tolist() == [[1, 2, 3], [9, 9, 4]]
    assert mask.tolist() == [[True] * 3, [False, False, True]]
    ids, mask = right_pad([[1, 2, 3], [4], []], 9, device)
    assert ids.tolist() == [[1, 2, 3], [4, 9, 9], [9, 9, 9]]
    assert mask.tolist() == [[True] * 3, [True, False, False], [False] * 3]


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


def test_positions_are_limited_by_the_model_and_not_by_its_windows() -> None:
    from transformers import MistralConfig, MistralForCausalLM

    config = MistralConfig(sliding_window=24, max_position_embeddings=99, **SIZES)
    assert wrap(MistralForCausalLM(config)).max_positions == 99


@pytest.mark.parametrize("arch", ["gemma2", "gemma3_text", "mistral", "gpt_oss"])
@torch.no_grad()
def test_windows_slide_over_groups_of_any_shape(arch: str) -> None:
    """Windows of 8 positions; rows and prompts go, and rows are padded in the middle."""
    lm = loaded(arch)
    assert isinstance(lm, LatentLM)
    decoding = Decoding(lm, group=3)
    mask = torch.ones(9, 4, dtype=torch.bool)
    mask[0, :3] = mask[4, :1] = mask[8, :2] = False
    decoding.step(4, mask)
    for rows in ([0, 2, 3, 6, 7, 8], [1, 3, 4, 5], [0, 3], [1]):
        decoding.step(2)
        decoding.keep(rows)
        assert_close(decoding.step(3), decoding.plain(), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_a_fork_of_a_cache_slides_by_itself() -> None:
    lm = loaded("gemma3_text")
    assert isinstance(lm, LatentLM)
    decoding = Decoding(lm, group=2)
    decoding.step(7)
    other = copy.copy(decoding)
    other.cache, other.read = decoding.cache.fork(torch.tensor([0, 1, 4])), list(decoding.read)
    other.read = [other.read[i] for i in (0, 1, 4)]
    for each in (other, decoding, other):
        assert_close(each.step(2), each.plain(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("arch", ["gemma", "gemma2", "gemma3_text"])
def test_scaled_embeddings_are_the_models_own_and_learn(arch: str) -> None:
    lm = loaded(arch)
    assert isinstance(lm, LatentLM)
    ids, embedding = torch.tensor([[3, 7], [250, 3]]), lm.model.get_input_embeddings()
    scale = float(embedding.embed_scale)
    assert scale > 1.5
    assert_close(lm.embed(ids), embedding(ids), rtol=0, atol=0)
    assert_close(lm.table_VD, scale * embedding.weight)
    assert (lm.vocab_size, lm.hidden_size, lm.dtype) == (*lm.table_VD.shape, lm.table_VD.dtype)
    gradients = [
        torch.autograd.grad(x.square().sum(), embedding.weight)[0]
        for x in (lm.embed(ids), nn.functional.embedding(ids, lm.table_VD), embedding(ids))
    ]
    assert gradients[0].any()
    assert_close(gradients[0], gradients[2])
    assert_close(gradients[1], gradients[2])


def test_the_table_of_a_model_that_does_not_scale_is_no_copy(random_lm: MakeLM) -> None:
    lm = random_lm("llama")
    assert lm.table_VD is lm.model.get_input_embeddings().weight


def test_the_end_that_also_pads_learns_as_it_is_read() -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    lm = wrap(LlamaForCausalLM(LlamaConfig(**{**SIZES, "pad_token_id": 2})))
    lm.embed(torch.tensor([2, 3])).sum().backward()
    gradient = lm.table_VD.grad
    assert gradient is not None and gradient[2].all() and gradient[3].all()


def test_adapters_are_a_function_of_the_seed(random_lm: Callable) -> None:
    pytest.importorskip("peft")

    def adapters(seed: int) -> list[torch.Tensor]:
        lm = copy.deepcopy(random_lm("llama"))
        lm.add_lora(r=2, alpha=4, seed=seed)
        return [p.detach() for name, p in lm.named_parameters() if "lora_A" in name]

    one, other = adapters(0), adapters(0)
    assert one and all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(one, adapters(1), strict=True))
