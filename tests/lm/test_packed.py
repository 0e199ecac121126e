"""Packed weights compute what plain ones do, and never what they were before."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from latentgym.lm import packed as module
from latentgym.lm.packed import available, packed

pytestmark = pytest.mark.skipif(not available(), reason="this torch has no prepacked linear")


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(256, 384), nn.Linear(384, 256, bias=False), nn.Linear(256, 8))


def both(model: nn.Module, rows: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(2, rows, 256, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        plain = model(x)
        with packed(model):
            return model(x), plain


@pytest.mark.parametrize("rows", [1, 32, 33])
def test_packed_layers_compute_the_same(model: nn.Module, rows: int) -> None:
    found, plain = both(model, rows)
    assert_close(found, plain, rtol=1e-5, atol=1e-5)


def test_only_large_layers_are_packed_and_only_inside(model: nn.Module) -> None:
    with torch.inference_mode(), packed(model):
        assert ["forward" in vars(layer) for layer in model] == [True, True, False]
    assert not any("forward" in vars(layer) for layer in model)


def test_a_layer_is_packed_once(model: nn.Module) -> None:
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
