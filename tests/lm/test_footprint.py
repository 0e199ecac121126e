"""What memory is foreseen, beside what tensors take."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import MixtralConfig, Qwen2Config

from latentgym.cli.benches.peak import peak_bytes
from latentgym.episodes.protocol import Budget, Protocol
from latentgym.errors import UsageError
from latentgym.heads import TokenHead
from latentgym.lm import LatentLM, load_model
from latentgym.lm.footprint import Footprint, layout_of, planned, read_per_step
from latentgym.rollout import Engine, Policy, replay
from latentgym.text.tokenizers import ByteTokenizer

ARCHITECTURES = ("llama", "qwen2", "gpt2")
CPU = torch.device("cpu")


def model(arch: str, dtype: str = "float32", size: str = "2x4x32", **kwargs: Any) -> LatentLM:
    lm: LatentLM = load_model(
        f"tiny:{arch}:{size}", tokenizer=ByteTokenizer(), dtype=dtype, **kwargs
    )
    return lm


def prompts(number: int, length: int) -> list[list[int]]:
    return [[3 + (7 * i + q) % 200 for i in range(length)] for q in range(number)]


def exactly(steps: int) -> Protocol:
    return Protocol(Budget(steps, exact=True), Budget(0))


@pytest.mark.parametrize(
    ("size", "published"),
    [
        ((1536, 28, 12, 2, 8960, 151_936, True), 1_543_714_304),
        ((3584, 28, 28, 4, 18_944, 152_064, False), 7_615_616_512),
    ],
)
def test_sizes_are_told_of_a_configuration(size: tuple[int, ...], published: int) -> None:
    """Qwen2.5 of 1.5B and 7B: as many parameters as published, and no memory for one."""
    names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")
    names += ("intermediate_size", "vocab_size", "tie_word_embeddings")
    config: Any = Qwen2Config(**dict(zip(names, size, strict=True)))
    assert peak_bytes(lambda: planned(config), CPU) < 1 << 20
    layout = planned(config)
    assert layout.parameters == published
    table = layout.vocab * layout.width
    vectors = (2 * layout.layers + 1) * layout.width
    vectors += layout.layers * (layout.heads + 2 * layout.kv_heads) * layout.head_width
    untied = 0 if config.tie_word_embeddings else table
    assert layout.matrices == published - vectors - untied


def test_experts_are_refused() -> None:
    config = MixtralConfig(
        vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=2, num_local_experts=2,
    )  # fmt: skip
    with pytest.raises(UsageError, match="has experts"):
        planned(config)


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_caches_and_weights_are_exact(arch: str, dtype: str) -> None:
    lm = model(arch, dtype)
    engine = Engine(Policy(lm, TokenHead()), compact_every=0)
    session = engine.start(prompts(2, 11), exactly(20), seed=0, group_size=3)
    session.run()
    plan = Footprint(layout_of(lm.model), lm.dtype, prompts=2, group=3, prompt=11, steps=20)
    layers = session._batch.cache.layers
    shared = [x for layer in layers for x in (layer.prompt_keys, layer.prompt_values)]
    own = [x for layer in layers for x in (layer.own_keys, layer.own_values)]
    assert sum(x.nbytes for x in shared) == 2 * plan.prompt_cache
    assert sum(x.nbytes for x in own if x is not None) == 6 * plan.own_cache
    assert plan.weights == sum(p.nbytes for p in lm.parameters())
    assert plan.gradients == plan.optimizer == 0


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("lora", [0, 4])
@pytest.mark.parametrize("dtype", ["float32", pytest.param("bfloat16", marks=pytest.mark.thorough)])
def test_what_training_keeps_is_exact(arch: str, lora: int, dtype: str) -> None:
    lm = model(arch, dtype, mixed_precision=True)
    layout = layout_of(lm.model)
    if lora:
        lm.add_lora(lora, lora)
    plan = Footprint(layout, getattr(torch, dtype), trained=not lora, lora=lora)
    assert plan.weights == sum(p.nbytes for p in lm.parameters())
    trained = [p for p in lm.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained)
    for p in trained:
        p.grad = torch.zeros_like(p)
    optimizer.step()
    assert plan.gradients == sum(p.grad.nbytes for p in trained if p.grad is not None)
    moments = [x for state in optimizer.state.values() for x in state.values() if x.dim()]
    assert plan.optimizer == sum(x.nbytes for x in moments)


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("dtype", ["bfloat16", pytest.param("float32", marks=pytest.mark.thorough)])
@pytest.mark.parametrize("mask", [False, True])
def test_what_a_block_keeps_is_exact(arch: str, dtype: str, mask: bool) -> None:
    """Three blocks' less two's, of what autograd keeps beside weights and their casts."""

    def kept(layers: int) -> tuple[LatentLM, int]:
        lm = model(arch, dtype, f"{layers}x4x32", mixed_precision=True)
        weights = {p.numel() for p in lm.parameters()} | {p.data_ptr() for p in lm.parameters()}
        seen: dict[int, Tensor] = {}

        def pack(x: Tensor) -> Tensor:
            storage = x.untyped_storage()
            if x.numel() not in weights and storage.data_ptr() not in weights:
                seen[storage.data_ptr()] = x
            return x

        ids_BT = torch.arange(3, 3 + 2 * 23).view(2, 23)
        mask_BT = torch.ones_like(ids_BT, dtype=torch.bool)
        mask_BT[0, :5] = not mask
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            hidden_BTD = lm.hidden(lm.embed(ids_BT), mask_BT)
        assert hidden_BTD.requires_grad
        return lm, sum(x.untyped_storage().nbytes() for x in seen.values())

    (lm, three), (_, two) = kept(3), kept(2)
    plan = Footprint(layout_of(lm.model), getattr(torch, dtype), trained=True)
    assert three - two == plan.block(2, 23, mask=mask)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_the_peak_of_a_rollout_is_foreseen(arch: str) -> None:
    lm = model(arch)
    plan = Footprint(layout_of(lm.model), prompts=2, group=4, prompt=64, steps=12)
    engine = Engine(Policy(lm, TokenHead()))
    peak = peak_bytes(
        lambda: engine.rollout(prompts(2, 64), exactly(12), seed=0, group_size=4), CPU
    )
    assert 0.8 < plan.rollout / peak < 1.25


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize(
    ("group", "recompute"), [(4, False), (1, False), (4, True)], ids=["shared", "apart", "again"]
)
def test_the_peak_of_an_update_is_foreseen(arch: str, group: int, recompute: bool) -> None:
    lm = model(arch)
    if recompute:
        lm.checkpoint_gradients()
    layout = layout_of(lm.model)
    policy = Policy(lm, TokenHead())
    rows = 8
    plan = Footprint(
        layout, prompts=rows // group, group=group, prompt=64, steps=48, rows=rows, trained=True,
        recompute=recompute, padded=False,
    )  # fmt: skip
    rollouts = Engine(policy).rollout(
        prompts(plan.prompts, plan.prompt), exactly(plan.steps), seed=0, group_size=group
    )
    lm.train(recompute)

    def update() -> None:
        replay(policy, rollouts.select(np.arange(rows))).logp_NT.sum().backward()

    update()
    peak = plan.gradients + peak_bytes(update, CPU)  # gradients stand from a batch before
    assert 0.8 < plan.update / peak < 1.3


@pytest.mark.thorough
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("lora", [0, 4])
def test_the_peak_is_foreseen_in_all_ways_to_train(dtype: str, recompute: bool, lora: int) -> None:
    lm = model("llama", dtype, mixed_precision=True)
    layout = layout_of(lm.model)
    if lora:
        lm.add_lora(lora, lora)
    if recompute:
        lm.checkpoint_gradients()
    policy, rows = Policy(lm, TokenHead()), 8
    plan = Footprint(
        layout, getattr(torch, dtype), prompts=2, group=4, prompt=64, steps=48, rows=rows,
        trained=not lora, lora=lora, recompute=recompute, padded=False,
    )  # fmt: skip
    rollouts = Engine(policy).rollout(prompts(2, 64), exactly(48), seed=0, group_size=4)
    lm.train(recompute)

    def update() -> None:
        replay(policy, rollouts.select(np.arange(rows))).logp_NT.sum().backward()

    update()
    peak = plan.gradients + peak_bytes(update, CPU)
    assert 0.8 < plan.update / peak < 1.3


@pytest.mark.parametrize("chunk", [100, 1000])
def test_the_peak_of_logits_is_foreseen(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a vocabulary that is much wider than the model, with and without chunks."""
    lm = model("llama", size="1x1x4")
    for module in ("model", "footprint"):
        monkeypatch.setattr(f"latentgym.lm.{module}.MOST_LOGITS", chunk * lm.vocab_size)
    policy = Policy(lm, TokenHead())
    plan = Footprint(
        layout_of(lm.model), group=8, prompt=4, steps=48, rows=8, trained=True, padded=False
    )
    rollouts = Engine(policy).rollout(prompts(1, 4), exactly(48), seed=0, group_size=8)
    assert lm.logits_at_once == chunk

    def update() -> None:
        replay(policy, rollouts).logp_NT.sum().backward()

    assert 0.8 < plan.update / peak_bytes(update, CPU) < 1.3


def test_a_step_of_all_weights_together_takes_them_once_more() -> None:
    lm = model("llama")
    plan = Footprint(layout_of(lm.model), trained=True, foreach=True, rows=1, prompt=1, steps=1)
    parameters = list(lm.parameters())
    optimizer = torch.optim.AdamW(parameters, foreach=True)

    def step() -> None:
        for p in parameters:
            p.grad = torch.ones_like(p)
        optimizer.step()

    step()
    optimizer.zero_grad(set_to_none=True)
    assert plan.update == pytest.approx(peak_bytes(step, CPU), rel=0.01)


def test_choices_move_what_they_should() -> None:
    layout = layout_of(model("llama").model)
    sizes: dict[str, Any] = {"layout": layout, "prompt": 512, "steps": 512, "rows": 8}
    full = Footprint(**sizes, trained=True)
    again = Footprint(**sizes, trained=True, recompute=True)
    lora = Footprint(**sizes, lora=2)
    assert again.activations < full.activations / 4 and again.update < full.update
    assert lora.gradients < full.gradients / 10 and lora.activations == full.activations
    assert full.training == full.weights + full.optimizer + max(full.rollout, full.update)
    packed = Footprint(**sizes, packed=True)
    assert packed.rollout - Footprint(**sizes).rollout == layout.matrices * 4


def test_a_step_reads_matrices_and_caches_once() -> None:
    layout = layout_of(model("llama").model)
    read = read_per_step(layout, torch.bfloat16, rows=3, prompts=10, held=4)
    assert read == 2 * (layout.matrices + (10 + 3 * 4) * layout.cached)
