"""Layers that pack their weights at each call have the results and gradients of plain ones."""

from __future__ import annotations

import gc
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close
from torch.utils.checkpoint import checkpoint

from latentgym.lm import packed as decoding
from latentgym.lm import packed_training as module
from latentgym.lm.packed import Worth, available, packed
from latentgym.lm.packed_training import packed_training

pytestmark = pytest.mark.skipif(not available(), reason="this torch has no prepacked linear")


@pytest.fixture(autouse=True)
def everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever would pay here."""
    monkeypatch.setattr(decoding, "LEAST", 1000)
    for each in (module, decoding):
        monkeypatch.setattr(each, "worth", lambda *_: Worth(range(1, 1 << 30), 1000))


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(48, 96), nn.GELU(), nn.Linear(96, 64, bias=False), nn.Linear(64, 8)
    )


def results(model: nn.Module, x: Tensor, run: Callable[[Tensor], Tensor]) -> list[Tensor]:
    """Outputs, and the gradients of all that has some."""
    model.zero_grad()
    x = x.detach().requires_grad_()
    out = run(x)
    (out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum().backward()
    return [out.detach(), x.grad, *(p.grad for p in model.parameters() if p.grad is not None)]


INPUTS = {
    "rows": torch.randn(40, 48),
    "sequences": torch.randn(3, 7, 48),
    "one": torch.randn(48),
    "views": torch.randn(48, 5, 9).transpose(0, 2),
}


@pytest.mark.parametrize("name", INPUTS)
@pytest.mark.parametrize("frozen", [False, True])
def test_results_and_gradients_are_those_of_plain_layers(
    name: str, frozen: bool, model: nn.Module
) -> None:
    model[2].weight.requires_grad_(not frozen)
    plain = results(model, INPUTS[name], model)
    with packed_training(model):
        found = results(model, INPUTS[name], model)
    assert len(found) == len(plain) == 6 - frozen + 1
    assert_close(found, plain, rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("ignore:Input .* requires gradient and is not a double")
@pytest.mark.parametrize("bias", [True, False])
def test_gradients_are_those_of_finite_differences(bias: bool) -> None:
    torch.manual_seed(0)
    x, weight, offset = torch.randn(3, 4), torch.randn(5, 4), torch.randn(5) if bias else None
    inputs = [t.requires_grad_() for t in (x, weight, offset) if t is not None]

    def product(*given: Tensor) -> Tensor:
        y: Tensor = module._Linear.apply(*given, *([] if bias else [None]))
        return y

    # It is linear in each, so that a difference is exact however wide it is.
    assert torch.autograd.gradcheck(product, inputs, eps=0.5, atol=1e-4, rtol=1e-4)


def test_second_derivatives_are_refused(model: nn.Module) -> None:
    x = torch.randn(4, 48, requires_grad=True)
    with packed_training(model):
        (first,) = torch.autograd.grad(model(x).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


def test_a_weight_that_an_optimiser_has_moved_counts_at_once(model: nn.Module) -> None:
    x = INPUTS["rows"]
    with packed_training(model):
        results(model, x, model)
        torch.optim.SGD(model.parameters(), lr=0.1).step()
        found = results(model, x, model)
    assert_close(found, results(model, x, model), rtol=1e-5, atol=1e-5)


def test_nothing_is_held_afterwards(model: nn.Module) -> None:
    with packed_training(model):
        results(model, INPUTS["rows"], model)
        gc.collect()
        assert not [t for t in gc.get_objects() if type(t) is Tensor and t.is_mkldnn]
    assert not any("forward" in vars(layer) for layer in model)


def test_hooks_see_what_they_saw(model: nn.Module) -> None:
    seen: list[Tensor] = []
    model[0].register_forward_hook(lambda layer, args, out: seen.append(out))
    model[0].register_forward_pre_hook(lambda layer, args: (2 * args[0],))
    plain = results(model, INPUTS["rows"], model)
    with packed_training(model):
        found = results(model, INPUTS["rows"], model)
    assert len(seen) == 2
    assert_close([seen[1], *found], [seen[0], *plain], rtol=1e-5, atol=1e-5)


def test_activations_can_be_recomputed(model: nn.Module) -> None:
    plain = results(model, INPUTS["rows"], model)
    with packed_training(model):
        found = results(model, INPUTS["rows"], lambda x: checkpoint(model, x, use_reentrant=False))
    assert_close(found, plain, rtol=1e-5, atol=1e-5)


def test_what_is_autocast_stays_plain(model: nn.Module) -> None:
    def run(x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return model(x)

    plain = results(model, INPUTS["rows"], run)
    with packed_training(model):
        found = results(model, INPUTS["rows"], run)
    assert all(torch.equal(a, b) for a, b in zip(found, plain, strict=True))


def test_decoding_within_a_step_leaves_it_as_it_was(model: nn.Module) -> None:
    with packed_training(model):
        before = [vars(layer).get("forward") for layer in model]
        with packed(model), packed(model):
            pass
        assert [vars(layer).get("forward") for layer in model] == before
    assert sum(forward is not None for forward in before) == 2


def test_adapters_train_over_a_base_without_gradients() -> None:
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(48, 96), nn.Linear(96, 8))
    model = peft.inject_adapter_in_model(peft.LoraConfig(r=2, target_modules=["0"]), plain)
    nn.init.normal_(model[0].lora_B["default"].weight)
    expected = results(model, INPUTS["rows"], model)
    with packed_training(model):
        assert "forward" in vars(model[0].base_layer)
        found = results(model, INPUTS["rows"], model)
    assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert model[0].base_layer.weight.grad is None


@pytest.mark.parametrize(
    ("wider", "rows", "pays"), [(True, 255, False), (True, 256, True), (False, 4096, False)]
)
def test_the_kernels_decide_which_rows_are_packed(
    wider: bool, rows: int, pays: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(module, "wider", lambda: wider)
    layer = nn.Linear(256, 256)
    with packed_training(layer):
        out = layer(torch.randn(rows, 256))
    assert ("_Linear" in type(out.grad_fn).__name__) == pays
