"""A watch for outlier features and for latents that leave the range of token embeddings.

Every n steps some of the step's own sequences are read once more, latents in their place, and the
metrics of `latentgym.analysis.outliers` are logged for a few states of the residual stream. A
latent is read where the model is used to read token embeddings: its band is

    [low / 2, 2 high]    low, high: 1st and 99th percentile over the embedding table

of the norm, and of the Pearson kurtosis of its elements. Where more than a tenth of the latents are
outside the band of either, the alarm is on.

Legend: M latents, V vocabulary, D width.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from latentgym.analysis.outliers import outliers
from latentgym.analysis.pooling import ALL
from latentgym.analysis.residual import ResidualStream
from latentgym.analysis.sequences import THOUGHTS, PositionKind, Sequences
from latentgym.errors import UsageError
from latentgym.lm.outliers import pearson_kurtosis
from latentgym.rollout import Policy
from latentgym.system.terminal import say
from latentgym.training.stage import Metrics

FACTOR = 2.0  # how far beyond the percentiles the band reaches
TOLERATED = 0.1  # share of latents outside of it
_PERCENTILES = (0.01, 0.99)
_MOST_ROWS = 32  # sequences looked at, evenly spaced
_MOST_WORDS = 4096  # rows of the table that the band is taken of, evenly spaced
_LATENTS = (PositionKind.HYBRID, PositionKind.LATENT)


class OutlierWatch:
    """Logs `outlier/...` (docs/metrics.md), and says when the alarm goes on.

    Args:
        policy: that is trained.
        every: steps between looks; the first step is looked at too.

    Raises:
        UsageError: its model cannot be taken apart, runs in fewer bits than fp32, or `every` is no
            number of steps.
    """

    def __init__(self, policy: Policy, every: int) -> None:
        if every < 1:
            raise UsageError(f"outliers are logged every n steps, at least 1, but n is {every}.")
        try:
            self.stream, self.every = ResidualStream(policy.lm), every
        except UsageError as error:
            raise UsageError(f"outliers cannot be logged (--outliers-every): {error}") from error
        self.alarmed: bool | None = None  # None before the first look

    def due(self, number: int) -> bool:
        return number == 0 or (number + 1) % self.every == 0

    def look(self, sequences: Sequences, step: int) -> Metrics:
        every = -(-len(sequences) // _MOST_ROWS)
        some = sequences.select(slice(None, None, every))
        found = outliers(self.stream, some)["groups"]
        return {**_of_states(found), **self._of_latents(some, step)}

    def _of_latents(self, sequences: Sequences, step: int) -> Metrics:
        """Which share is outside the band, and whether that is an alarm; empty without latents."""
        latent_NT = torch.stack([sequences.kind_NT == kind for kind in _LATENTS]).any(0)
        if not latent_NT.any():
            return {}
        lm = self.stream.lm
        ids = torch.arange(lm.vocab_size, device=lm.device)[:: -(-lm.vocab_size // _MOST_WORDS)]
        outside = outside_band(sequences.x_NTD[latent_NT], lm.embed(ids))
        worst = max(outside, key=lambda name: outside[name].share)
        alarm = outside[worst].share > TOLERATED
        # Latents of an untrained policy are often outside; that tells of no collapse.
        if alarm and self.alarmed is False:
            say(
                f"alarm: at step {step} {100 * outside[worst].share:.0f} % of the latents have "
                f"{outside[worst].side} {worst} than token embeddings do (their band: "
                "docs/metrics.md); they may be collapsing"
            )
        self.alarmed = alarm and self.alarmed is not None
        shares = {f"outlier/latent_{name}_outside": x.share for name, x in outside.items()}
        return {**shares, "outlier/alarm": float(alarm)}


class Outside(NamedTuple):
    """The share of latents outside a band, and on which side of it most of these are."""

    share: float
    side: str


@torch.no_grad()
def outside_band(x_MD: Tensor, word_VD: Tensor) -> dict[str, Outside]:
    """Which latents are outside the band of token embeddings, by what is measured of them.

    Args:
        x_MD: latents, as the model reads them.
        word_VD: token embeddings.
    """
    measures = {"norm": _norm, "kurtosis": pearson_kurtosis}
    found = {}
    for name, measure in measures.items():
        of_words = measure(word_VD)
        at = torch.tensor(_PERCENTILES, dtype=of_words.dtype)
        low, high = torch.quantile(of_words, at)
        value_M = measure(x_MD)
        below_M, above_M = value_M < low / FACTOR, value_M > high * FACTOR
        outside_M = below_M | above_M | value_M.isnan()
        side = "a smaller" if int(below_M.sum()) > int(above_M.sum()) else "a larger"
        found[name] = Outside(float(outside_M.double().mean()), side)
    return found


def _norm(x: Tensor) -> Tensor:
    norm: Tensor = x.detach().cpu().double().norm(dim=-1)
    return norm


def _of_states(groups: Mapping[str, Any]) -> Metrics:
    """A few numbers of all layers, without the first position of each sequence."""
    if ALL not in groups:
        return {}
    every = groups[ALL]
    last = len(every["kurtosis"]) - 1
    found: dict[str, float | None] = {}
    for name, layer in {"first": 0, "middle": last // 2, "last": last}.items():
        found |= {
            f"{name}/norm": every["norm"]["mean"][layer],
            f"{name}/kurtosis": every["kurtosis"][layer],
            f"{name}/max_median": every["max_median_ratio"]["mean"][layer],
            f"{name}/signal": every["signal_mean"][layer],
        }
    found["most/kurtosis"] = _most(every["kurtosis"])
    found["most/max_median"] = _most(every["max_median_ratio"]["mean"])
    names = [kind.name.lower() for kind in THOUGHTS]
    found["thought/kurtosis"] = _most(
        k for n in names if n in groups for k in groups[n]["kurtosis"]
    )
    return {f"outlier/{name}": value for name, value in found.items() if value is not None}


def _most(values: Iterable[float | None]) -> float | None:
    """The largest; None where nothing is a number."""
    return max((value for value in values if value is not None), default=None)
