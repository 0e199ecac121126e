"""Weights in 4 bits: loaded, trained above, resumed, evaluated as they were trained, exported."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.testing import assert_close
from transformers import AutoModelForCausalLM

import latentgym
from latentgym.cli.main import main
from latentgym.errors import Notice, UsageError
from latentgym.evaluation.accounting import ModelSizes
from latentgym.evaluation.results import load_result
from latentgym.lm import load_model
from latentgym.lm import quantized as module
from latentgym.lm.footprint import Footprint, layout_of
from latentgym.training.frozen import digest_of_frozen
from latentgym.training.manifest import find

ENV, OPTIONS = "latent/GSM8K-token", {"source": "sample", "think": 3, "answer": 3}
SETTINGS = {
    "grpo.prompts": 2, "grpo.group-size": 2, "grpo.kl": 0.1, "optimisation.lr": 0.1,
    "optimisation.schedule": "constant", "optimisation.warmup": 0.0,
    "optimisation.optimizer": "adamw-8bit",
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def installed() -> None:
    """bitsandbytes, which takes seconds to import: not where tests are merely collected."""
    pytest.importorskip("bitsandbytes", reason="pip install 'latentgym[bitsandbytes]'")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, character_model: Callable[..., Path]) -> Path:
    return character_model(tmp_path_factory.mktemp("model") / "model", 64)


def train(out: Path, folder: Path, **more: Any) -> Any:
    given: dict[str, Any] = {"model": str(folder), "lora_r": 2, "load_in_4bit": True, "steps": 2}
    given |= {"eval_limit": 2, "settings": SETTINGS, "options": OPTIONS, "preset": "grpo-lm"}
    return latentgym.train("cot", ENV, out=out, **{**given, **more})


def test_it_is_the_same_model_in_an_eighth_of_the_bytes(folder: Path) -> None:
    whole = load_model(str(folder), dtype="float32", device="cpu")
    narrow = load_model(str(folder), dtype="float32", device="cpu", load_in_4bit=True)
    assert narrow.n_parameters() == whole.n_parameters()
    assert ModelSizes.of(narrow) == ModelSizes.of(whole)
    for name, layer in narrow.model.named_modules():
        if isinstance(layer, nn.Linear) and layer is not narrow.lm_head:
            weight = whole.model.get_submodule(name).weight
            assert 7 < weight.nbytes / layer.weight.nbytes <= 8
            of_it = layer.weight.quant_state
            from bitsandbytes.functional import dequantize_4bit

            # NF4's levels are at most .15 of a block's largest apart from what they stand for.
            error = (dequantize_4bit(layer.weight.data.clone(), of_it) - weight).abs().max()
            assert 0 < error < 0.17 * weight.abs().max()
    sizes = layout_of(whole.model)
    whole.add_lora(2, 4)
    narrow.add_lora(2, 4)
    plan = Footprint(sizes, torch.float32, lora=2, four_bits=True)
    kept = sum(p.nbytes for p in narrow.parameters())
    assert plan.weights == pytest.approx(kept, rel=0.02)
    assert digest_of_frozen(narrow) == digest_of_frozen(whole)


def test_it_learns_resumes_answers_and_is_exported(folder: Path, tmp_path: Path) -> None:
    run = train(tmp_path / "whole", folder, steps=3)
    train(tmp_path / "parts", folder)
    with pytest.warns(Notice, match="now of 3"):
        train(tmp_path / "parts", folder, steps=3, resume=True, load_in_4bit=False)
    stored = [load_file(find(tmp_path / n) / "policy.safetensors") for n in ("whole", "parts")]
    assert stored[0].keys() == stored[1].keys()
    assert all(torch.equal(x, stored[1][name]) for name, x in stored[0].items())
    assert all(".lora_" in name or name.startswith("head") for name in stored[0])
    assert any("lora_B" in name and bool(x.any()) for name, x in stored[0].items())
    # Whoever loads it has the precision that it was trained above.
    policy = latentgym.load(run.out, device="cpu")
    assert any(p.dtype == torch.uint8 for p in policy.lm.parameters())
    argv = ["eval", "cot", ENV, "--checkpoint", str(run.out), "--out", str(tmp_path / "eval")]
    assert main([*argv, "--limit", "2"]) == 0
    assert load_result(tmp_path / "eval").config["load_in_4bit"] is True
    assert load_result(tmp_path / "eval").accuracy == run.result.accuracy
    # What is exported is the whole model with the adapters in it.
    assert main(["export", str(run.out), "--out", str(tmp_path / "out")]) == 0
    exported = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    base = AutoModelForCausalLM.from_pretrained(folder)
    name = "model.layers.0.self_attn.q_proj"
    moved = exported.get_submodule(name).weight - base.get_submodule(name).weight
    prefix = f"lm.model.base_model.model.{name}.lora_"
    a, b = (stored[0][f"{prefix}{part}.default.weight"] for part in "AB")
    assert_close(moved, 2 * b @ a, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"lora_r": 0}, "add --lora-r"),
        ({"model": "tiny"}, "leave 4 bits out"),
        ({"backend": "openrlhf"}, "--load-in-4bit"),
        (
            {"settings": {**SETTINGS, "optimisation.optimizer": "paged-adamw-8bit"}},
            "use adamw-8bit",
        ),
    ],
)
def test_what_cannot_be_is_said(
    given: dict[str, Any], sentence: str, folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=sentence):
        train(tmp_path / "run", folder, **given)


def test_what_is_missing_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'latentgym\[bitsandbytes\]'"):
        load_model(str(folder), load_in_4bit=True)
