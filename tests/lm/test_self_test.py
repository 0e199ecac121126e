"""The self-test notices every kind of wrong that nothing else would notice."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial, wraps
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from latentgym.errors import UsageError
from latentgym.lm import LatentLM, attention, cache
from latentgym.lm.cache import GroupedCache
from latentgym.lm.self_test import self_test
from latentgym.lm.tiny import ARCHITECTURES, TinySpec, tiny_model
from latentgym.text.tokenizers import ByteTokenizer


@pytest.fixture(autouse=True)
def remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where what passed is remembered: nothing has."""
    monkeypatch.setenv("LATENTGYM_CACHE", str(tmp_path))
    return tmp_path / "self-tests"


def fresh(arch: str = "llama", **changes: Any) -> Any:
    """A model as it comes, whose weights are so small that a prompt changes little."""
    model = tiny_model(TinySpec(arch), ByteTokenizer())
    for name, value in changes.items():
        setattr(model.config, name, value)
    return model


def load(model: Any) -> LatentLM:
    return LatentLM(model, ByteTokenizer(), "test")


def gemma2(**options: Any) -> Any:
    from transformers import Gemma2Config, Gemma2ForCausalLM

    sizes = {"vocab_size": 259, "hidden_size": 32, "intermediate_size": 32, "head_dim": 8}
    layers = {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    ids = {"pad_token_id": 256, "bos_token_id": 257, "eos_token_id": 258}
    return Gemma2ForCausalLM(Gemma2Config(**sizes, **layers, **ids, **options))


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_models_as_they_come_pass(arch: str, dtype: torch.dtype) -> None:
    load(fresh(arch).to(dtype))


# Ways to break a model: what each changes, and what is said.


def overridden(module: Any, change: Callable[..., Any]) -> None:
    """Give a module a class whose forward pass is `change(module, forward, inputs)`."""
    kind = type(module)
    named = inspect.signature(kind.forward)

    @wraps(kind.forward)
    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        inputs = named.bind(self, *args, **kwargs).arguments
        inputs |= inputs.pop("kwargs", {})
        del inputs["self"]
        return change(self, partial(kind.forward, self), inputs)

    module.__class__ = type(kind.__name__, (kind,), {"forward": forward})


def more_of_ids(model: Any) -> None:
    """Scales what it makes of ids itself, as BART's family does."""

    def scaled(backbone: Any, forward: Any, inputs: Any) -> Any:
        ids = inputs.pop("input_ids", None)
        if ids is not None:
            inputs["inputs_embeds"] = 1.5 * backbone.get_input_embeddings()(ids)
        return forward(**inputs)

    overridden(model.base_model, scaled)


def other_logits(model: Any) -> None:
    """Caps its logits by a name that we do not know."""

    def capped(_: Any, forward: Any, inputs: Any) -> Any:
        out = forward(**inputs)
        out.logits = 0.3 * torch.tanh(out.logits / 0.3)
        return out

    overridden(model, capped)


def sees_ahead(model: Any) -> None:
    model.config.is_causal = False


def without_positions(model: Any) -> None:
    """Counts positions by itself, padding included."""
    overridden(
        model.base_model, lambda _, forward, inputs: forward(**{**inputs, "position_ids": None})
    )


def overwrites(model: Any) -> None:
    def scaled(_: Any, forward: Any, inputs: Any) -> Any:
        if inputs.get("inputs_embeds") is not None:
            inputs["inputs_embeds"] *= 1.0 + 1e-6
        return forward(**inputs)

    overridden(model.base_model, scaled)


def fails(model: Any) -> None:
    def boom(*_: Any) -> Any:
        raise RuntimeError("boom\nand more")

    overridden(model.base_model, boom)


def damaged(model: Any) -> None:
    with torch.no_grad():
        next(model.parameters())[5:] = torch.nan


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (more_of_ids, "it makes more of token ids than their embeddings"),
        (other_logits, "its logits are not its language-model head's"),
        (sees_ahead, "it sees what stands after a position"),
        # Rotary positions are relative: without a cache it does not matter where they begin.
        (without_positions, "padding changes what it computes|step by step"),
        (overwrites, "it overwrites the embeddings"),
        (fails, r"reading a few tokens fails \(RuntimeError: boom\); choose"),
        (damaged, "its logits are not finite"),
    ],
)
def test_a_model_that_is_other_than_it_seems_is_refused(
    arch: str, change: Callable[[Any], None], sentence: str
) -> None:
    model = fresh(arch)
    change(model)
    with pytest.raises(UsageError, match=sentence) as error:
        load(model)
    assert type(model).__name__ in str(error.value) and "; choose a model" in str(error.value)


# Ways to break the library itself.


def loses_the_prompt(patch: pytest.MonkeyPatch) -> None:
    """What happened to models that do not hand arguments on to their attention."""
    patch.setattr("latentgym.lm.model.behind", lambda cache: nullcontext())


def loses_half_of_the_prompt(patch: pytest.MonkeyPatch) -> None:
    made = GroupedCache.__init__

    def halved(self: GroupedCache, prefill: Any, mask_QP: Tensor, group_size: int) -> None:
        mask_QP = mask_QP.clone()
        mask_QP[:, : mask_QP.shape[1] // 2] = False
        made(self, prefill, mask_QP, group_size)

    patch.setattr(GroupedCache, "__init__", halved)


def mixes_up_rows(patch: pytest.MonkeyPatch) -> None:
    of_rows = GroupedCache.from_grid
    patch.setattr(GroupedCache, "from_grid", lambda self, *x: of_rows(self, *x).roll(1, dims=0))


def sees_its_own_future(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(GroupedCache, "_own_allowed", lambda *_: None)


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize(
    "fault", [loses_the_prompt, loses_half_of_the_prompt, mixes_up_rows, sees_its_own_future]
)
def test_decoding_that_is_no_forward_pass_is_noticed(
    arch: str, fault: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    fault(monkeypatch)
    with pytest.raises(UsageError, match="step by step with a cache"):
        load(fresh(arch))


def test_a_cap_that_is_forgotten_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"attn_logit_softcapping": 0.2, "final_logit_softcapping": 1.0}
    load(gemma2(**options))
    with monkeypatch.context() as patch:
        for module in (cache, attention):
            patch.setattr(module, "capped", lambda scores, softcap: scores)
        with pytest.raises(UsageError, match="its attention is not"):
            load(gemma2(attn_logit_softcapping=0.21))


def test_a_window_that_is_forgotten_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """However wide it is: a few tokens would not exceed it."""
    load(gemma2(sliding_window=4096))
    monkeypatch.setattr(GroupedCache, "_near", lambda *_: (None, None))
    with pytest.raises(UsageError, match="its sliding window is not known"):
        load(gemma2(sliding_window=2048))


def test_windows_are_as_wide_as_before() -> None:
    lm = load(gemma2(sliding_window=64))
    layers = lm.backbone.layers
    assert lm.model.config.sliding_window == 64
    assert [layer.self_attn.sliding_window for layer in layers] == [64, None]
    assert lm.model.config._attn_implementation == attention.ATTENTION


def test_the_test_leaves_weights_and_mode_as_they_were() -> None:
    model = fresh("gpt2").train()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    state = torch.get_rng_state()
    lm = load(model)
    assert lm.model.training and torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The models that took the test, rather than being remembered."""
    names: list[str] = []

    def problem(lm: LatentLM) -> None:
        names.append(str(lm.model.config.hidden_size))

    monkeypatch.setattr("latentgym.lm.self_test._problem", problem)
    return names


def test_what_passed_is_remembered(
    taken: list[str], remembered: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        load(tiny_model(TinySpec("llama", width=32), ByteTokenizer()))
    load(tiny_model(TinySpec("llama", width=64), ByteTokenizer()))
    assert taken == ["32", "64"]
    assert len(list(remembered.iterdir())) == 2
    monkeypatch.setattr("latentgym.lm.self_test._sources", lambda: "other code")
    load(tiny_model(TinySpec("llama", width=32), ByteTokenizer()))
    assert taken == ["32", "64", "32"]


def test_what_failed_is_not_remembered(remembered: Path) -> None:
    model = fresh()
    more_of_ids(model)
    for _ in range(2):
        with pytest.raises(UsageError):
            load(model)
    assert not remembered.exists()


def test_a_cache_that_cannot_be_written_costs_the_test_again(
    taken: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("LATENTGYM_CACHE", str(tmp_path / "file"))
    lm = load(fresh())
    self_test(lm)
    assert len(taken) == 2
