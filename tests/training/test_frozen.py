"""Checkpoints of adapters hold these alone, and are put on the model that they were trained on."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM

import latentgym
from latentgym.errors import CheckpointError
from latentgym.training.frozen import digest_of_frozen, frozen_names
from latentgym.training.manifest import find, leaves_weights_out

ENV = "latent/GSM8K-hybrid"
OPTIONS = {"source": "sample", "think": 3, "answer": 3}
MORE: dict[str, Any] = {"steps": 2, "eval_limit": 2, "device": "cpu", "dtype": "float32"}
GRPO = {"grpo.prompts": 2, "grpo.group-size": 2, "optimisation.lr": 0.1, "grpo.kl": 0.1}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, character_model: Callable[..., Path]) -> Path:
    """A folder as of the hub, whose weights are there again whenever it is loaded."""
    return character_model(tmp_path_factory.mktemp("model") / "model", 16)


@pytest.fixture(scope="module")
def run(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "run"
    train(out, model)
    return out


def train(out: Path, model: Path, **more: Any) -> latentgym.agents.train.Outcome:  # type: ignore[name-defined]
    given = {"settings": GRPO, "options": OPTIONS, "lora_r": 2, "model": str(model), **MORE}
    return latentgym.train("hrpo", ENV, out=out, **{**given, **more})


def stored(out: Path) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = load_file(find(out) / "policy.safetensors")
    return tensors


def test_a_checkpoint_holds_what_was_trained(run: Path) -> None:
    tensors, policy = stored(run), latentgym.load(run, device="cpu")
    left_out = frozen_names(policy)
    assert left_out and not left_out & tensors.keys()
    assert tensors.keys() | left_out == policy.state_dict().keys()
    assert any("lora_B" in name and bool(x.any()) for name, x in tensors.items())
    assert any(name.startswith("head.") for name in tensors)
    for name, value in tensors.items():
        assert torch.equal(policy.state_dict()[name], value), name


def test_a_resumed_run_is_the_one_that_was_never_stopped(model: Path, tmp_path: Path) -> None:
    settings = {**GRPO, "optimisation.schedule": "constant", "optimisation.warmup": 0.0}
    train(tmp_path / "whole", model, settings=settings, steps=3)
    train(tmp_path / "parts", model, settings=settings, steps=2)
    with pytest.warns(latentgym.errors.Notice, match="now of 3"):
        train(tmp_path / "parts", model, settings=settings, steps=3, resume=True)
    one, other = stored(tmp_path / "whole"), stored(tmp_path / "parts")
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_what_begins_from_adapters_stores_adapters(run: Path, model: Path, tmp_path: Path) -> None:
    train(tmp_path / "next", model, checkpoint=run)
    assert stored(tmp_path / "next").keys() == stored(run).keys()


def test_what_begins_from_weights_that_were_trained_stores_all(model: Path, tmp_path: Path) -> None:
    train(tmp_path / "first", model, lora_r=0)
    train(tmp_path / "next", model, checkpoint=tmp_path / "first")
    before, after = stored(tmp_path / "first"), stored(tmp_path / "next")
    plain = {n.replace(".base_model.model", "", 1).replace(".base_layer", ""): n for n in after}
    assert before.keys() <= plain.keys()
    below = [name for name in before if name.startswith("lm.")]
    assert below and all(torch.equal(after[plain[name]], before[name]) for name in below)
    assert not leaves_weights_out(tmp_path / "next")
    assert not frozen_names(latentgym.load(tmp_path / "next")) - stored(tmp_path / "next").keys()


def test_adapters_are_not_put_on_another_model(run: Path, model: Path, tmp_path: Path) -> None:
    shutil.copytree(model, tmp_path / "model")
    shutil.copytree(run, tmp_path / "run")
    torch.manual_seed(4)
    config = LlamaConfig.from_pretrained(model)
    LlamaForCausalLM(config).save_pretrained(tmp_path / "model")
    other = latentgym.agents.stored.stored_run(run)
    with pytest.raises(CheckpointError, match="another model's weights"):
        replace(other, model=str(tmp_path / "model")).actor()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_digest_is_the_same_in_every_precision(run: Path, dtype: str) -> None:
    policy = latentgym.load(run, dtype=dtype, device="cpu")
    assert next(policy.lm.parameters()).dtype == getattr(torch, dtype)
    assert digest_of_frozen(policy.lm) == digest_of_frozen(latentgym.load(run, device="cpu").lm)
