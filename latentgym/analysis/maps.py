"""Linear maps between the layers of two models: does a deeper model spread out a shallower one?

For layers s of one model and t of another, both behind the same tokens, the map with the least
squared error,

    min_{W, b}  |X_s W + b - Y_t|^2 + lambda |W|^2,

is fitted on some sequences and judged on others. "Do language models use their depth efficiently?"
(arXiv 2505.13898) trains such maps by AdamW on the mean squared error; the closed form here is the
optimum of the same objective, up to the ridge lambda, which only keeps singular X in check.

Legend: N rows, T positions, M of them that count, D width, C = D + 1 with a column of ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from latentgym.analysis.lens import taps_of
from latentgym.analysis.pooling import plain
from latentgym.analysis.residual import ResidualStream
from latentgym.analysis.sequences import Sequences
from latentgym.errors import UsageError

RIDGE = 1e-9
DEFINITIONS = {
    "error": "|Y - X W - b| / |Y - mean Y| over the positions of the held-out sequences "
    "(Frobenius norms; the mean is theirs): 1 is no better than a constant",
    "relative_error": "|Y - X W - b| / |Y|, the authors' relative error",
    "table": "[source layer][target layer]; layers are h_l, the inputs of blocks l, 0-based, and "
    "h_L behind the last block",
    "positions": "all real ones but the first of each sequence",
    "ridge": "lambda over the mean square of the columns of X, summed over positions",
    "band": "mean 'error' over pairs of layers at equal relative depth ('inside': l/L differ by "
    "less than half a layer of the shallower model) and over the other pairs ('outside'); 'ratio' "
    "is inside over outside, below 1 where equal depth fits better. The embeddings h_0 and h_L "
    "count as layers",
    "best_source": "for each target layer, the source layer of the least 'error'",
}


@dataclass(frozen=True)
class Reader:
    """A model, and what it reads.

    Attributes:
        stream: of the model.
        fit, held_out: sequences to fit maps on, and others to judge them on.
        layers: 0 .. L; None for all.
    """

    stream: ResidualStream
    fit: Sequences
    held_out: Sequences
    layers: Sequence[int] | None = None

    @property
    def taps(self) -> list[int]:
        """The layers in order."""
        return taps_of(self.stream, self.layers)


@torch.no_grad()
def linear_maps(
    source: Reader, target: Reader, *, ridge: float = RIDGE, positions_at_once: int = 1024
) -> dict[str, Any]:
    """How well each layer of one model is a linear image of each layer of another.

    Sums of products are kept in fp64: C x C for each source layer, and C x D for each pair; choose
    layers of large models.

    Args:
        source: X.
        target: Y; it may be the same model.
        ridge: lambda, see `DEFINITIONS`.
        positions_at_once: whose residual streams are held together.

    Returns:
        For a record: `source_layers`, `target_layers`, tables `error` and `relative_error` (None
        where the target never changes), `band`, `best_source`, `positions`, `ridge`,
        `definitions`.

    Raises:
        UsageError: the two models do not read the same tokens, or there are too few positions.
    """
    _check(source, target)
    pairs = _layers(source, target, "fit", positions_at_once)
    moments = _Moments.of(pairs, len(source.taps), len(target.taps))
    if moments.positions < moments.width:
        raise UsageError(
            f"{moments.positions} positions do not determine a map from a width of "
            f"{moments.width - 1}; give more sequences to fit it on."
        )
    maps = moments.solved(ridge)
    held = _layers(source, target, "held_out", positions_at_once)
    error, relative, positions = _judged(maps, held)
    return {
        "source_layers": source.taps,
        "target_layers": target.taps,
        "error": plain(error),
        "relative_error": plain(relative),
        "band": _band(error, source, target),
        "best_source": [source.taps[i] for i in error.argmin(0).tolist()],
        "positions": {"fit": moments.positions, "held_out": positions},
        "ridge": ridge,
        "definitions": DEFINITIONS,
    }


def _check(source: Reader, target: Reader) -> None:
    """Whether the two models read the same tokens.

    Raises:
        UsageError: they do not.
    """
    one, other = source.stream.lm.tokenizer, target.stream.lm.tokenizer
    if one is not other and one.pieces() != other.pieces():
        raise UsageError(
            f"{source.stream.lm.name} and {target.stream.lm.name} have different tokenizers, so "
            "their positions are not the same; choose two models with one tokenizer."
        )
    for name in ("fit", "held_out"):
        a, b = getattr(source, name), getattr(target, name)
        if a.kind_NT.shape != b.kind_NT.shape or not (
            torch.equal(a.mask_NT.cpu(), b.mask_NT.cpu())
            and torch.equal(a.token_NT.cpu()[a.mask_NT.cpu()], b.token_NT.cpu()[b.mask_NT.cpu()])
        ):
            raise UsageError(
                f"the two models read different tokens in the sequences to "
                f"{'fit' if name == 'fit' else 'judge'} maps on; make both of the same prompts and "
                "demonstrations."
            )


Layers = tuple[list[Tensor], list[Tensor]]
"""The residual streams of both models at the same positions: (M, C) each source layer, (M, D) each
target layer, fp64."""


def _layers(source: Reader, target: Reader, name: str, positions_at_once: int) -> Iterator[Layers]:
    """Both models' layers, some sequences at a time."""
    sequences = getattr(source, name), getattr(target, name)
    for parts in zip(*(s.chunks(positions_at_once) for s in sequences), strict=True):
        found: list[list[Tensor]] = []
        for reader, part in zip((source, target), parts, strict=True):
            counted_NT = part.mask_NT & ~part.first_NT
            states = reader.stream.trajectory(part.x_NTD, part.mask_NT).states
            found.append([states[tap][counted_NT].double() for tap in reader.taps])
        x, y = found
        yield [torch.cat([each, torch.ones_like(each[:, :1])], dim=1) for each in x], y


@dataclass
class _Moments:
    """Sums of products over positions.

    Attributes:
        xx: X^T X of each source layer, (C, C).
        xy: X^T Y of each pair, (C, D) by source and target layer.
        positions: how many were summed.
    """

    xx: list[Tensor]
    xy: list[list[Tensor]]
    positions: int

    @classmethod
    def of(cls, pairs: Iterator[Layers], sources: int, targets: int) -> _Moments:
        """Summed up."""
        xx: list[Any] = [0.0] * sources
        xy: list[list[Any]] = [[0.0] * targets for _ in range(sources)]
        positions = 0
        for x, y in pairs:
            positions += len(x[0])
            for s, x_MC in enumerate(x):
                xx[s] += x_MC.T @ x_MC
                for t, y_MD in enumerate(y):
                    xy[s][t] += x_MC.T @ y_MD
        return cls(xx, xy, positions)

    @property
    def width(self) -> int:
        """C."""
        return len(self.xx[0])

    def solved(self, ridge: float) -> list[list[Tensor]]:
        """The maps, (C, D) by source and target layer; the last row is b, without a ridge."""
        maps = []
        for xx_CC, xy in zip(self.xx, self.xy, strict=True):
            added_C = torch.full_like(xx_CC[0], ridge * float(xx_CC.diagonal()[:-1].mean()))
            added_C[-1] = 0.0
            factor_CC = torch.linalg.cholesky(xx_CC + added_C.diag())
            maps.append([torch.cholesky_solve(xy_CD, factor_CC) for xy_CD in xy])
        return maps


def _judged(maps: list[list[Tensor]], held: Iterator[Layers]) -> tuple[Tensor, Tensor, int]:
    """Both errors of all maps, fp64 (source, target), and at how many positions."""
    left_ST = torch.zeros(len(maps), len(maps[0]), dtype=torch.double)
    squares_T, positions = torch.zeros(len(maps[0]), dtype=torch.double), 0
    sums: list[Any] = [0.0] * len(maps[0])
    for x, y in held:
        positions += len(y[0])
        for t, y_MD in enumerate(y):
            squares_T[t] += y_MD.square().sum().cpu()
            sums[t] += y_MD.sum(0)
            for s, x_MC in enumerate(x):
                left_ST[s, t] += (y_MD - x_MC @ maps[s][t]).square().sum().cpu()
    mean_T = torch.stack([(total_D / positions).square().sum().cpu() for total_D in sums])
    around_T = (squares_T - positions * mean_T).clamp_min(0.0)
    return (left_ST / around_T).sqrt(), (left_ST / squares_T).sqrt(), positions


def _band(error_ST: Tensor, source: Reader, target: Reader) -> dict[str, float | None]:
    """The statistic of the diagonal band, see `DEFINITIONS`."""
    depths = len(source.stream), len(target.stream)
    at_S, at_T = (
        torch.tensor(reader.taps, dtype=torch.double) / depth
        for reader, depth in zip((source, target), depths, strict=True)
    )
    near_ST = (at_S[:, None] - at_T).abs() < 0.5 / min(depths)
    inside, outside = (error_ST[where].mean() for where in (near_ST, ~near_ST))
    numbers = torch.stack([inside, outside, inside / outside])
    return dict(zip(("inside", "outside", "ratio"), plain(numbers), strict=True))
