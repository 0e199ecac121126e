"""Losses of policy gradients: closed forms, and what holds for all of them."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from latentgym.errors import UsageError
from latentgym.training import GRPOConfig
from latentgym.training.grpo_config import LOSSES
from latentgym.training.surrogates import surrogate

LOW, HIGH = 0.2, 0.3


def of(kind: str, ratio: list[list[float]], advantage: list[float]) -> tuple[Any, Tensor]:
    """The surrogate of rows with these ratios, and the gradient with respect to log p."""
    old = -torch.rand(len(ratio), len(ratio[0]), generator=torch.Generator().manual_seed(0))
    logp = (old + torch.tensor(ratio).log()).requires_grad_()
    mask = torch.ones_like(old, dtype=torch.bool)
    found = surrogate(kind, logp, old, torch.tensor(advantage)[:, None], mask, LOW, HIGH)
    (gradient,) = torch.autograd.grad(found.loss_NT.sum(), logp)
    return found, gradient


# kind, ratio, advantage; loss, gradient of it by log p, whether a bound holds
CASES = [
    ("dual_clip", 1.1, 1.0, -1.1, -1.1, False),
    ("dual_clip", 1.5, 1.0, -1.3, 0.0, True),
    ("dual_clip", 2.0, -1.0, 2.0, 2.0, False),
    ("dual_clip", 4.0, -1.0, 3.0, 0.0, True),
    ("dual_clip", 0.5, -1.0, 0.8, 0.0, True),
]


@pytest.mark.parametrize(("kind", "ratio", "advantage", "loss", "gradient", "held"), CASES)
def test_closed_forms(
    kind: str, ratio: float, advantage: float, loss: float, gradient: float, held: bool
) -> None:
    found, slope = of(kind, [[ratio]], [advantage])
    assert float(found.loss_NT.detach()) == pytest.approx(loss, abs=1e-6)
    assert float(slope) == pytest.approx(gradient, abs=1e-6)
    assert bool(found.clipped_NT) == held


def test_gspo_has_the_geometric_mean_of_a_rows_ratios() -> None:
    found, slope = of("gspo", [[1.2, 1.0], [2.0, 2.0]], [1.0, 1.0])
    mean = math.sqrt(1.2)
    assert_close(found.ratio_NT, torch.tensor([[mean, mean], [2.0, 2.0]]))
    assert_close(found.loss_NT.detach(), -torch.tensor([[mean, mean], [1.3, 1.3]]))
    # Each action has a share of the row's gradient, whatever its own ratio.
    assert_close(slope, torch.tensor([[-mean, -mean], [0.0, 0.0]]))
    assert found.clipped_NT.tolist() == [[False, False], [True, True]]


def test_cispo_cuts_off_weights_and_leaves_no_action_out() -> None:
    found, slope = of("cispo", [[1.1, 5.0, 0.1]], [2.0])
    assert_close(slope, torch.tensor([[-2.2, -2.6, -0.2]]))
    assert found.clipped_NT.tolist() == [[False, True, False]]


@pytest.mark.parametrize("kind", LOSSES)
@given(advantage=st.floats(-3, 3), seed=st.integers(0, 99))
def test_the_first_gradient_is_reinforce(kind: str, advantage: float, seed: int) -> None:
    """With ratios of one it is -A grad log p, and what stands behind the mask does not matter."""
    generator = torch.Generator().manual_seed(seed)
    old = -torch.rand(3, 4, 2, generator=generator)
    mask = torch.rand(3, 4, 2, generator=generator) < 0.6
    mask[:, 0] = True
    logp = torch.where(mask, old, torch.nan).requires_grad_()
    given_N = torch.full((3, 1, 1), advantage)
    found = surrogate(kind, logp, old, given_N, mask, LOW, HIGH)
    (slope,) = torch.autograd.grad(found.loss_NT.masked_fill(~mask, 0.0).sum(), logp)
    assert_close(slope, torch.where(mask, -advantage, 0.0), atol=1e-5, rtol=1e-5)
    assert_close(found.ratio_NT, torch.ones(3, 4, 2))
    assert not found.clipped_NT.any()


def test_unknown_names_are_refused() -> None:
    with pytest.raises(UsageError, match="no loss 'gpso'; did you mean 'gspo'"):
        GRPOConfig(loss="gpso").validate()
    with pytest.raises(UsageError, match="no loss"):
        surrogate("ppo", *(torch.zeros(1, 1),) * 3, torch.ones(1, 1) > 0, LOW, HIGH)
