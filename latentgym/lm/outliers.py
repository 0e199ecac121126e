"""Outlier features: how unevenly the size of vectors is spread over their elements.

Three numbers are called kurtosis in the literature. Here `kurtosis` is the feature kurtosis of
"Understanding and Minimising Outlier Features in Transformer Training" (arXiv 2405.19279), of many
vectors together, from 1 to D; `pearson_kurtosis` is that of the elements of one vector, 3 for
Gaussian ones, and the excess kurtosis is 3 less.

All is computed in fp64, in which the fourth power of any fp32 number has its place.

Legend: M vectors, D width; (..., D) for vectors in any arrangement.
"""

from __future__ import annotations

import torch
from torch import Tensor

_TINY = torch.finfo(torch.float64).tiny  # stands for zero in a denominator
_LEAST = 1e-30  # of the largest element: what less counts as


def kurtosis(x_MD: Tensor) -> Tensor:
    """Feature kurtosis: of the elements' root mean squares s_j, mean s_j^4 / (mean s_j^2)^2.

    Nothing is subtracted from the vectors before. 1 where all elements are alike, D where one
    carries everything, 0 where there is nothing at all.

    Returns:
        One number, fp32.
    """
    return kurtosis_of_squares(_wide(x_MD).square().mean(0)).float()


def kurtosis_of_squares(square_D: Tensor) -> Tensor:
    """Feature kurtosis from the mean squares of elements, or their sums; fp64 (..., D) to (...)."""
    share_D = square_D / square_D.amax(-1, keepdim=True).clamp_min(_TINY)
    return share_D.square().mean(-1) / share_D.mean(-1).square().clamp_min(_TINY)


def max_median_ratio(x_MD: Tensor) -> Tensor:
    """Mean over vectors of the largest over the lower median absolute element, fp32.

    The lower median of an even number of elements is the smaller of the two in the middle.
    """
    return max_over_median(x_MD, midpoint=False).mean().float()


def max_over_median(x: Tensor, *, midpoint: bool) -> Tensor:
    """The largest over the median absolute element of each vector, fp64 (..., D) to (...).

    Args:
        x: vectors.
        midpoint: of an even number of elements the median is the mean of the two in the middle;
            otherwise the smaller.
    """
    size = _wide(x).abs()
    most = size.amax(-1)
    return most / median(size, midpoint=midpoint).clamp_min(_TINY).maximum(_LEAST * most)


def median(size: Tensor, *, midpoint: bool) -> Tensor:
    """The median of the last dimension; see `max_over_median`."""
    lower: Tensor = size.median(-1).values
    if not midpoint or size.shape[-1] % 2:
        return lower
    upper: Tensor = size.kthvalue(size.shape[-1] // 2 + 1, dim=-1).values
    return (lower + upper) / 2


def pearson_kurtosis(x: Tensor) -> Tensor:
    """Kurtosis of the elements of each vector about their mean, fp64 (..., D) to (...).

    mean (x_j - mean x)^4 / (mean (x_j - mean x)^2)^2, from 1 to about D; 0 where all are equal.
    """
    size = _wide(x)
    size = size / size.abs().amax(-1, keepdim=True).clamp_min(_TINY)
    square = (size - size.mean(-1, keepdim=True)).square()
    return square.square().mean(-1) / square.mean(-1).square().clamp_min(_LEAST**2)


def _wide(x: Tensor) -> Tensor:
    """In fp64; by the CPU, as some devices have none."""
    return x.detach().cpu().double()
