"""Packed weights compute what plain ones do, and never what they were before."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from latentgym.lm import packed as module
from latentgym.lm.packed import Worth, available, packed

pytestmark = pytest.mark.skipif(not available(), reason="this torch has no prepacked linear")
EVERYWHERE = Worth(range(1, 1 << 30), 1 << 16)


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(256, 384), nn.Linear(384, 256, bias=False), nn.Linear(256, 8))


@pytest.fixture(autouse=True)
def everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever would pay here."""
    monkeypatch.setattr(module, "worth", lambda: EVERYWHERE)


def both(model: nn.Module, rows: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(2, rows, 256, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        plain = model(x)
        with packed(model):
            return model(x), plain


@pytest.mark.parametrize("rows", [1, 32, 500])
def test_packed_layers_compute_the_same(model: nn.Module, rows: int) -> None:
    found, plain = both(model, rows)
    assert_close(found, plain, rtol=1e-5, atol=1e-5)
    assert set(module._copies) >= {model[0], model[1]}


@pytest.mark.skipif(not available(torch.bfloat16), reason="this processor multiplies no bf16")
@pytest.mark.parametrize("rows", [1, 8, 300])
def test_in_bf16_packed_layers_compute_the_same_to_the_bit(model: nn.Module, rows: int) -> None:
    x = torch.randn(rows, 256).bfloat16()
    model.bfloat16()
    with torch.inference_mode():
        plain = model(x)
        with packed(model):
            assert torch.equal(model(x), plain)
    assert model[0] in module._copies


@pytest.mark.parametrize("narrow", [True, False])
def test_bf16_is_packed_where_the_processor_multiplies_it(
    narrow: bool, model: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: narrow)
    with packed(model.bfloat16()):
        assert ["forward" in vars(layer) for layer in model] == [narrow, narrow, False]
    with packed(model.half()):
        assert not any("forward" in vars(layer) for layer in model)


@pytest.mark.parametrize(
    ("capability", "rows", "pays"),
    [
        ("AVX512", 1, True),
        ("AVX512", 4096, True),
        ("AVX2", 1, False),
        ("AVX2", 2, True),
        ("AVX2", 32, True),
        ("AVX2", 33, False),
    ],
)
def test_the_instruction_set_decides_which_rows_are_packed(
    capability: str, rows: int, pays: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    layer = nn.Linear(512, 512)
    with torch.inference_mode(), packed(layer):
        layer(torch.randn(rows, 512))
    assert (layer in module._copies) == pays


def test_only_large_layers_are_packed_and_only_inside(model: nn.Module) -> None:
    with torch.inference_mode(), packed(model):
        assert ["forward" in vars(layer) for layer in model] == [True, True, False]
    assert not any("forward" in vars(layer) for layer in model)


def test_a_layer_is_packed_once_and_not_before_it_is_needed(model: nn.Module) -> None:
    with torch.inference_mode(), packed(model):
        assert model[0] not in module._copies
    both(model)
    copy = module._copies[model[0]][1]
    both(model)
    assert module._copies[model[0]][1] is copy


def step(weight: nn.Parameter) -> None:
    with torch.no_grad():
        weight.add_(0.1)


def write_through_data(weight: nn.Parameter) -> None:
    weight.data.mul_(2.0)


def replace_data(weight: nn.Parameter) -> None:
    weight.data = torch.randn_like(weight)


@pytest.mark.parametrize("change", [step, write_through_data, replace_data])
def test_a_changed_weight_is_packed_again(
    model: nn.Module, change: Callable[[nn.Parameter], None]
) -> None:
    both(model)
    change(model[0].weight)
    found, plain = both(model)
    assert_close(found, plain, rtol=1e-5, atol=1e-5)


def test_the_forward_method_comes_back_after_an_error(model: nn.Module) -> None:
    with pytest.raises(RuntimeError, match="boom"), packed(model):
        raise RuntimeError("boom")
    assert not any("forward" in vars(layer) for layer in model)
