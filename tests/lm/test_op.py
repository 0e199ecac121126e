"""The outlier-protected transformer is what its paper describes, and works as any other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from latentgym.analysis.residual import ResidualStream
from latentgym.lm import LatentLM, load_model
from latentgym.lm.op import OPAttention, OPConfig, OPForCausalLM
from latentgym.lm.tiny import TinySpec, tiny_model
from latentgym.lm.zoo import describe
from latentgym.text.tokenizers import ByteTokenizer

IDS = torch.arange(3, 15)[None]
REAL = torch.ones_like(IDS, dtype=torch.bool)


def model(arch: str, beta: float | None = None) -> Any:
    fresh = tiny_model(TinySpec(arch, 3, 4, 32), ByteTokenizer(), seed=1)
    for part in fresh.modules():
        if beta is not None and hasattr(part, "gain"):
            part.gain = beta
    return fresh


def test_it_has_no_norms_but_three_kinds() -> None:
    norms = {
        name: type(part).__name__
        for name, part in model("op").named_modules()
        if "Norm" in type(part).__name__
    }
    queries_and_keys = {f"model.layers.{i}.self_attn.{x}_norm" for i in range(3) for x in "qk"}
    assert {n for n, kind in norms.items() if kind != "LayerNorm"} == {
        "model.norm",
        *queries_and_keys,
    }
    assert [n for n, kind in norms.items() if kind == "LayerNorm"] == [
        "model.layers.0.input_layernorm"
    ]


@torch.no_grad()
def test_branches_are_multiplied_with_the_gain() -> None:
    blocks = [block for part in (model("op"), model("op", 1.0)) for block in part.model.layers[1:2]]
    h = torch.randn(1, 5, 32, generator=torch.Generator().manual_seed(0))
    small, whole = (block.mlp(h) for block in blocks)
    assert_close(small, 0.2 * whole)
    rotation = torch.ones(1, 5, 8), torch.zeros(1, 5, 8)
    small, whole = (
        b.self_attn(h, position_embeddings=rotation, attention_mask=None)[0] for b in blocks
    )
    assert_close(small, 0.2 * whole)
    silent = model("op", 0.0)
    hidden = silent.model(input_ids=IDS).last_hidden_state
    assert_close(hidden, silent.model.norm(silent.model.embed_tokens(IDS)))


def test_gains_are_learnt_where_they_should_be() -> None:
    fixed, trainable = model("op"), model("op-trainable")
    gains = {n: p for n, p in trainable.named_parameters() if n.endswith(".gain")}
    assert len(gains) == 6 and not [n for n, _ in fixed.named_parameters() if "gain" in n]
    same = {n: p for n, p in trainable.named_parameters() if n not in gains}
    for name, weight in fixed.named_parameters():
        assert torch.equal(weight, same[name]), name
    logits = [m(input_ids=IDS).logits for m in (fixed, trainable)]
    assert torch.equal(*logits)
    logits[1].square().sum().backward()
    assert all(float(p.grad.abs()) > 0 for p in gains.values())


@torch.no_grad()
def test_scores_are_bounded_however_large_the_input() -> None:
    attention: OPAttention = model("op").model.layers[1].self_attn
    x = 1e4 * torch.randn(1, 7, 32, generator=torch.Generator().manual_seed(0))
    q = attention.q_norm(attention.q_proj(x).view(1, 7, 4, 8))
    assert float(q.square().mean(-1).max()) < 1 + 1e-4


def test_saved_weights_come_back_through_transformers(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({str(i): i for i in range(259)}, unk_token="0"))
    PreTrainedTokenizerFast(tokenizer_object=words, eos_token="258").save_pretrained(tmp_path)
    fresh = model("op-trainable")
    with torch.no_grad():
        fresh.model.layers[1].mlp.gain.fill_(0.7)
    fresh.save_pretrained(tmp_path)
    assert describe(str(tmp_path)).hidden_size == 32
    lm = load_model(str(tmp_path), device="cpu", dtype="float32")
    assert isinstance(lm.model, OPForCausalLM) and isinstance(lm.model.config, OPConfig)
    assert_close(lm.model(input_ids=IDS).logits, fresh(input_ids=IDS).logits, rtol=0, atol=1e-6)


@pytest.mark.parametrize("arch", ["op", "op-trainable"])
def test_its_residual_stream_can_be_taken_apart(arch: str, random_lm: Any) -> None:
    lm: LatentLM = random_lm(arch)
    with torch.no_grad():
        stream = ResidualStream(lm).trajectory(lm.embed(IDS), REAL)
    total = stream.resid_pre[0] + sum(
        a + m for a, m in zip(stream.attn_out, stream.mlp_out, strict=True)
    )
    assert_close(total, stream.final)
    states = lm.model(input_ids=IDS, output_hidden_states=True).hidden_states
    for ours, theirs in zip(stream.resid_pre, states[:-1], strict=True):
        assert_close(ours, theirs)
