"""Outlier metrics of vectors in closed form."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from latentgym.lm.outliers import (
    kurtosis,
    max_median_ratio,
    max_over_median,
    pearson_kurtosis,
)

SEEDS, WIDTHS = st.integers(0, 2**31), st.integers(2, 40)
# From near the least to near the largest number of fp32.
SCALES = st.integers(-40, 34).map(lambda power: 10.0**power)
METRICS = {
    "kurtosis": kurtosis,
    "max_median_ratio": max_median_ratio,
    "midpoint": lambda x: max_over_median(x, midpoint=True).mean(),
    "pearson": lambda x: pearson_kurtosis(x).mean(),
}


def gaussian(rows: int, width: int, seed: int) -> Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))


@given(SEEDS, WIDTHS, SCALES)
def test_elements_of_one_size_have_kurtosis_one(seed: int, width: int, scale: float) -> None:
    x = scale * gaussian(9, width, seed).sign()
    assert float(kurtosis(x)) == pytest.approx(1, rel=1e-6)
    assert float(max_median_ratio(x)) == pytest.approx(1, rel=1e-6)


@given(SEEDS, WIDTHS, SCALES)
def test_one_element_that_carries_all_has_kurtosis_d(seed: int, width: int, scale: float) -> None:
    x = torch.zeros(7, width)
    x[:, seed % width] = scale * gaussian(7, 1, seed)[:, 0].sign()
    assert float(kurtosis(x)) == pytest.approx(width, rel=1e-6)
    # Of one vector: its mean is x/D and its variance x^2 (D-1)/D^2.
    expected = (width**2 - 3 * width + 3) / (width - 1)
    assert_close(pearson_kurtosis(x), torch.full((7,), expected, dtype=torch.double))


@pytest.mark.parametrize("rows", [100, 1000, 10_000])
def test_gaussians_have_kurtosis_one_plus_two_over_n(rows: int) -> None:
    found = float(kurtosis(gaussian(rows, 2000, rows)))
    assert found == pytest.approx(1 + 2 / rows, abs=0.3 / rows)


def test_gaussian_elements_have_pearson_kurtosis_three_and_the_half_normal_median() -> None:
    x = gaussian(200, 4000, 0)
    assert float(pearson_kurtosis(x).mean()) == pytest.approx(3, abs=0.05)
    half_normal = 0.6744897501960817
    ratio = x.abs().amax(-1).mean() / half_normal
    assert float(max_over_median(x, midpoint=True).mean()) == pytest.approx(float(ratio), rel=0.01)


@pytest.mark.parametrize("name", METRICS)
@given(seed=SEEDS, width=WIDTHS, power=st.integers(-90, 90))
def test_neither_scale_nor_the_order_of_elements_matters(
    name: str, seed: int, width: int, power: int
) -> None:
    x = gaussian(11, width, seed)
    order = torch.randperm(width, generator=torch.Generator().manual_seed(seed))
    expected = float(METRICS[name](x))
    changed = torch.ldexp(x[:, order], torch.tensor(power))  # exactly, as it is a power of two
    assert float(METRICS[name](changed)) == pytest.approx(expected, rel=1e-6)


def test_medians_are_the_lower_or_between() -> None:
    x = torch.tensor([[1.0, -2.0, 4.0, 8.0]])
    assert float(max_median_ratio(x)) == 4
    assert float(max_over_median(x, midpoint=True)) == pytest.approx(8 / 3)
    odd = torch.tensor([[1.0, -2.0, 8.0]])
    assert float(max_median_ratio(odd)) == float(max_over_median(odd, midpoint=True)) == 4


def test_nothing_at_all_is_zero() -> None:
    for metric in METRICS.values():
        assert float(metric(torch.zeros(3, 4))) == 0
    constant = torch.full((2, 5), 0.1)
    assert_close(pearson_kurtosis(constant), torch.zeros(2, dtype=torch.double))
    assert math.isfinite(float(max_median_ratio(torch.eye(4))))
