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
    monkeypatch.setattr(module, "worth", lambda dtype: EVERYWHERE)


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
    ("wider", "rows", "pays"),
    [
        (True, 1, True),
        (True, 4096, True),
        (False, 1, False),
        (False, 2, True),
        (False, 64, True),
        (False, 65, False),
    ],
)
def test_the_kernels_decide_which_rows_are_packed(
    wider: bool, rows: int, pays: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(module, "wider", lambda: wider)
    layer = nn.Linear(512, 512)
    with torch.inference_mode(), packed(layer):
        layer(torch.randn(rows, 512))
    assert (layer in module._copies) == pays


@pytest.mark.parametrize(("times", "wider"), [(2.0, True), (1.1, False), (0.9, False)])
def test_which_kernel_is_wider_is_measured_once_and_against_noise(
    times: float, wider: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a clock that says of plain layers so many times as much, and now and then far more."""
    threads = torch.get_num_threads()
    linear, told, calls, asked = nn.functional.linear, [0.0], list[int](), list[int]()

    def slow(*args: torch.Tensor) -> torch.Tensor:
        calls.append(len(calls))
        told[0] += times * (10 if len(calls) % 3 else 1)
        return linear(*args)

    def clock() -> float:
        asked.append(len(asked))
        told[0] += len(asked) % 3 == 0  # behind the packed kernel
        return told[0]

    monkeypatch.setattr(nn.functional, "linear", slow)
    monkeypatch.setattr(module, "thread_time", clock)
    module.wider.cache_clear()
    try:
        assert [module.wider(), module.wider()] == [wider, wider]
    finally:
        module.wider.cache_clear()
    assert len(calls) == module._ROUNDS
    assert torch.get_num_threads() == threads


def test_small_models_are_not_measured_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(module, "wider", lambda: pytest.fail("measured"))
    with packed(nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 256))):
        pass


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


@pytest.mark.parametrize(
    ("elements", "rows"),
    [(99, range(0)), (100, range(2, 5)), (module.HUGE, range(1, 9))],
)
def test_a_weight_that_no_cache_holds_pays_with_other_numbers_of_rows(
    elements: int, rows: range
) -> None:
    weight = torch.empty(1).expand(elements)
    assert Worth(range(2, 5), 100, range(1, 9)).rows_for(weight) == rows
    assert Worth(range(2, 5), 100).rows_for(weight) == (range(2, 5) if elements > 99 else range(0))
