"""Outlier features of the residual stream: a few neurons that are far larger than the others.

Metrics of "Understanding and Minimising Outlier Features in Transformer Training" (arXiv
2405.19279), of massive activations (arXiv 2402.17762) and of the token Gram matrix, for the input
h_l of every block and for h_L, what the last leaves, before the last norm. Each has its definition
beside it, as others mean other numbers by the same names.

Legend: N rows, T positions, D width, L blocks, K groups of positions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from latentgym.analysis.pooling import DEFINITION, Pool, groups, plain
from latentgym.analysis.residual import ResidualStream
from latentgym.analysis.sequences import Sequences
from latentgym.lm.outliers import (
    kurtosis_of_squares,
    max_over_median,
    median,
    pearson_kurtosis,
)

_TOP = 3
DEFINITIONS: Mapping[str, str] = {
    "layers": "h_l is what block l reads, l = 0 .. L-1; h_L is what the last block leaves, before "
    "the last norm",
    "groups": DEFINITION,
    "positions": "positions of the group",
    "sequences": "sequences with at least two positions of the group",
    "norm": "Euclidean norm of a position",
    "kurtosis": "feature kurtosis: mean over features of s_j^4 over (mean over features of "
    "s_j^2)^2, where s_j is the root mean square of feature j over the positions of the group, "
    "all sequences pooled; nothing is centred; 1 if all features are alike, D if one carries "
    "everything, 1 + O(1/n) for n Gaussian positions. (The authors' code centres positions and "
    "logs about this minus 1.)",
    "pearson_kurtosis": "of a position: fourth central moment of its D elements over the square of "
    "the second; 3 for Gaussian elements",
    "excess_kurtosis": "pearson_kurtosis minus 3; 0 for Gaussian elements",
    "max_median_ratio": "of a position: largest over midpoint median of the magnitudes of its D "
    "elements (of an even number, the mean of the two in the middle; 0 counts as 1e-30 of the "
    "largest)",
    "top": "the three largest magnitudes of single elements in the group, and `feature`, which "
    "neurons they are of",
    "median": "mean over positions of the midpoint median magnitude of the D elements",
    "top_over_median": "each of `top` over `median`",
    "signal_mean": "signal propagation: of the Gram matrix X X^T / D of the group's positions in "
    "a sequence, each scaled to root mean square 1 (so these are cosines), the mean off the "
    "diagonal; mean over sequences",
    "signal_rms": "as signal_mean, but the root mean square off the diagonal",
    "feature_correlation_rms": "of the Gram matrix X^T X / n of the features over the group's n "
    "positions in a sequence, each feature scaled to root mean square 1 and not centred, the root "
    "mean square off the diagonal; about 1 / sqrt(n) where features are independent; mean over "
    "sequences",
}


@torch.no_grad()
def outliers(
    stream: ResidualStream, sequences: Sequences, *, positions_at_once: int = 2048
) -> dict[str, Any]:
    """Outlier metrics by layer and group of positions, ready for JSON.

    Numbers depend on neither the padding nor how sequences are put together in chunks.

    Args:
        stream: of the model.
        sequences: N rows.
        positions_at_once: most positions of a chunk; its states are all that is held, and a Gram
            matrix per row and group of one layer.

    Returns:
        `definitions`, `layers` (names of the L + 1 states), and by group of positions one number
        for each of these by name of the metric; `mean` and `max` where it is of single positions.
    """
    found = Outliers(len(stream) + 1, stream.lm.hidden_size)
    for chunk in sequences.chunks(positions_at_once):
        states = stream.trajectory(chunk.x_NTD, chunk.mask_NT).states
        where = groups(chunk)
        for layer, h_NTD in enumerate(states):
            found.add(layer, h_NTD, where)
    return found.as_dict()


class Outliers:
    """Sums over positions and sequences from which the metrics follow.

    Args:
        layers: how many states.
        width: of each.
    """

    def __init__(self, layers: int, width: int) -> None:
        self.layers, self.width = layers, width
        of_positions = ("norm", "pearson_kurtosis", "max_median_ratio", "median")
        self._of_positions = {name: Pool(layers) for name in of_positions}
        of_sequences = ("signal_mean", "signal_rms", "feature_correlation_rms")
        self._of_sequences = {name: Pool(layers) for name in of_sequences}
        self._square: dict[str, Tensor] = {}
        self._top: dict[str, tuple[Tensor, Tensor]] = {}

    def add(self, layer: int, h_NTD: Tensor, where: Mapping[str, Tensor]) -> None:
        """Count one state of some sequences.

        Args:
            layer: its number.
            h_NTD: the state; what stands at padding has no meaning.
            where: the groups that positions belong to, see `pooling.groups`.
        """
        where = {name: where_NT.cpu() for name, where_NT in where.items() if where_NT.any()}
        real_NT = torch.stack(list(where.values())).any(0)
        x_NTD = h_NTD.detach().cpu().double().masked_fill(~real_NT[..., None], 0.0)
        for name, value_NT in {
            "norm": x_NTD.norm(dim=-1),
            "pearson_kurtosis": pearson_kurtosis(x_NTD),
            "max_median_ratio": max_over_median(x_NTD, midpoint=True),
            "median": median(x_NTD.abs(), midpoint=True),
        }.items():
            self._of_positions[name].add((layer,), value_NT, where)
        for name, where_NT in where.items():
            self._add_features(name, layer, x_NTD[where_NT])
        for name, value_by_group in self._grams(x_NTD, where).items():
            for group, (value_N, counts_N) in value_by_group.items():
                self._of_sequences[name].add((layer,), value_N, {group: counts_N})

    def _add_features(self, group: str, layer: int, x_MD: Tensor) -> None:
        """Sums of squares by feature, and the largest elements."""
        if group not in self._square:
            self._square[group] = torch.zeros(self.layers, self.width, dtype=torch.double)
            self._top[group] = (
                torch.zeros(self.layers, _TOP, dtype=torch.double),
                torch.full((self.layers, _TOP), -1),
            )
        self._square[group][layer] += x_MD.square().sum(0)
        value, feature = self._top[group]
        size, at = x_MD.abs().flatten().topk(min(_TOP, x_MD.numel()))
        sizes = torch.cat([value[layer], size])
        features = torch.cat([feature[layer], at % self.width])
        value[layer], best = sizes.topk(_TOP)
        feature[layer] = features[best]

    def _grams(
        self, x_NTD: Tensor, where: Mapping[str, Tensor]
    ) -> dict[str, dict[str, tuple[Tensor, Tensor]]]:
        """Metrics of each sequence and group, and which sequences have enough positions."""
        found: dict[str, dict[str, tuple[Tensor, Tensor]]] = {n: {} for n in self._of_sequences}
        unit_NTD = _scaled(x_NTD, x_NTD.square().sum(-1, keepdim=True))
        gram_NTT = unit_NTD @ unit_NTD.mT
        own_NT = gram_NTT.diagonal(dim1=1, dim2=2)
        for group, where_NT in where.items():
            member_NT = where_NT.double()
            n_N = member_NT.sum(1)
            enough_N = n_N >= 2
            pairs_N = (n_N * (n_N - 1)).clamp_min(1)
            sum_N = _pairs(gram_NTT, own_NT, member_NT)
            squares_N = _pairs(gram_NTT.square(), own_NT.square(), member_NT).clamp_min(0)
            found["signal_mean"][group] = sum_N / pairs_N, enough_N
            found["signal_rms"][group] = (squares_N / pairs_N).sqrt(), enough_N
            found["feature_correlation_rms"][group] = (
                self._feature_correlation(x_NTD * member_NT[..., None], n_N),
                enough_N if self.width > 1 else torch.zeros_like(enough_N),
            )
        return found

    def _feature_correlation(self, x_NTD: Tensor, n_N: Tensor) -> Tensor:
        """Root mean square off the diagonal of Y^T Y / n, from Y Y^T, which is smaller: (N,)."""
        square_N1D = x_NTD.square().sum(1, keepdim=True)
        y_NTD = _scaled(x_NTD, square_N1D)  # features of norm 1: their Gram is Y^T Y / n already
        all_N = (y_NTD @ y_NTD.mT).square().sum((1, 2))
        own_N = (square_N1D > 0).sum((1, 2))
        pairs = max(1, self.width * (self.width - 1))
        return ((all_N - own_N).clamp_min(0) / pairs).sqrt().where(n_N > 0, 0.0)

    def as_dict(self) -> dict[str, Any]:
        """The metrics, see `outliers`."""
        pools = {
            name: pool.as_dict() for name, pool in (self._of_positions | self._of_sequences).items()
        }
        by_group = {}
        for group, square_LD in self._square.items():
            median_L = self._of_positions["median"].mean(group)
            value, feature = self._top[group]
            single = {name: _bounds(pools[name][group]) for name in self._of_positions}
            pairs = {name: pools[name].get(group) for name in self._of_sequences}
            none = [None] * self.layers
            by_group[group] = {
                "positions": pools["norm"][group]["positions"],
                "sequences": pairs["signal_mean"]["positions"] if pairs["signal_mean"] else 0,
                "kurtosis": plain(kurtosis_of_squares(square_LD)),
                "norm": single["norm"],
                "pearson_kurtosis": single["pearson_kurtosis"],
                "excess_kurtosis": {
                    how: [None if x is None else x - 3 for x in values]
                    for how, values in single["pearson_kurtosis"].items()
                },
                "max_median_ratio": single["max_median_ratio"],
                "median": single["median"]["mean"],
                "top": plain(value),
                "feature": feature.tolist(),
                "top_over_median": plain(value / median_L[:, None]),
                **{n: pool["mean"] if pool is not None else none for n, pool in pairs.items()},
            }
        layers = [f"h_{layer}" for layer in range(self.layers)]
        return {"definitions": dict(DEFINITIONS), "layers": layers, "groups": by_group}


def _scaled(x: Tensor, square: Tensor) -> Tensor:
    """Over the root of a sum of squares, 0 where that is 0."""
    return x / square.sqrt().where(square > 0, 1.0)


def _pairs(gram_NTT: Tensor, own_NT: Tensor, member_NT: Tensor) -> Tensor:
    """Sums over the pairs of different members, (N,)."""
    whole_N = torch.einsum("nts,nt,ns->n", gram_NTT, member_NT, member_NT)
    return whole_N - (own_NT * member_NT).sum(1)


def _bounds(pool: Mapping[str, Any]) -> dict[str, list[float | None]]:
    return {how: pool[how] for how in ("mean", "max")}
