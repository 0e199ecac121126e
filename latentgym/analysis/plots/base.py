"""What the pictures of an analysis have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from latentgym.analysis.pooling import ALL
from latentgym.system.pictures import figure_class

Report = Mapping[str, Any]
COLOURS = {
    ALL: "#222222",
    "prompt": "#888888",
    "chain": "#0072b2",
    "hybrid": "#009e73",
    "latent": "#d55e00",
    "inserted": "#cc79a7",
    "answer": "#e69f00",
}
"""Of groups of positions, told apart by the colour-blind (Okabe and Ito)."""
_FLAT = 5.0  # times the median: a largest value beyond it needs a logarithmic axis
_WIDTH = 9.0  # of all pictures, so that their text is of one size on a page


def whole(axes: Any) -> None:
    """Ticks at whole numbers alone, as layers are."""
    from matplotlib.ticker import MaxNLocator

    for axis in (axes.xaxis, axes.yaxis) if axes.images else (axes.xaxis,):
        axis.set_major_locator(MaxNLocator(integer=True))


def figure_of(height: float) -> Any:
    """A figure of that height, in inches.

    Raises:
        UsageError: matplotlib is missing.
    """
    return figure_class("plots")(figsize=(_WIDTH, height), layout="constrained")


def line(axes: Any, group: str, value: Any) -> None:
    """Draw the numbers of a group over the layers; None leaves a gap."""
    values = np.array([np.nan if v is None else v for v in value])
    axes.plot(values, color=COLOURS.get(group), label=group, lw=2 if group == ALL else 1.3)
    whole(axes)


def from_zero_or_log(axes: Any) -> None:
    """An axis from 0, but a logarithmic one where a layer or two would press the others flat.

    What the first layer adds to token embeddings is often many times as large as they are. Where
    there are zeros, the lower half of the values stays on a linear axis.
    """
    values = np.concatenate([each.get_ydata() for each in axes.lines])
    values = values[np.isfinite(values)]
    middle = float(np.median(values)) if len(values) else 0.0
    if middle <= 0 or values.max() <= _FLAT * middle:
        axes.set_ylim(bottom=0)
    elif values.min() > 0:
        axes.set_yscale("log")
    else:
        axes.set_yscale("symlog", linthresh=middle)
        axes.set_ylim(bottom=0)


def tidy(axes: Any, title: str, ylabel: str = "", xlabel: str = "layer") -> None:
    """Title, labels and a light grid."""
    axes.set_title(title, fontsize=9)
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.grid(alpha=0.3)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def array_of(table: Any) -> npt.NDArray[np.float64]:
    """Nested lists with None for what is no number."""
    return np.array(table, dtype=np.float64)
