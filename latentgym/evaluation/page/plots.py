"""Pictures of results: what they look like, and the learning curves of a run.

They are SVG that takes the colour of its text from the page, so that it is seen on light and dark.
The same results give the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from typing import Any

from latentgym.evaluation.page.answers import CURVES
from latentgym.system.pictures import figure_class, file_of

INK = "#010203"
"""Stands for the colour of the page's text."""
# Told apart by the colour-blind (Okabe and Ito), on light and on dark.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#888888")
_LOOKS: dict[str, Any] = {
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor"), INK),
    **dict.fromkeys(("xtick.color", "ytick.color"), INK),
    "svg.fonttype": "none",
    "font.size": 10.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
}
WIDTH = 6.5
"""Inches."""


@dataclass(frozen=True)
class Plot:
    """A picture.

    Attributes:
        name: of its file.
        caption: what it shows, also for those who do not see it.
        figure: of matplotlib.
    """

    name: str
    caption: str
    figure: Any

    @property
    def svg(self) -> str:
        """As part of a page."""
        text = self.file("svg").decode()
        labelled = f'<svg role="img" aria-label="{escape(self.caption)}" '
        return text[text.index("<svg") :].replace("<svg ", labelled, 1).replace(INK, "currentColor")

    def file(self, kind: str) -> bytes:
        """As a file of that kind, `svg` or `png`."""
        return file_of(self.figure, self.name, kind, transparent=kind == "svg")


@contextmanager
def style() -> Iterator[Callable[..., Any]]:
    """Within it, what is drawn is in the style of the page; yields what makes figures.

    Raises:
        UsageError: matplotlib is missing.
    """
    figure = figure_class("page")
    import matplotlib
    from cycler import cycler

    looks: Any = {**_LOOKS, "axes.prop_cycle": cycler(color=COLOURS)}
    with matplotlib.rc_context(looks):
        yield figure


def of_training(
    name: str, curves: Mapping[str, tuple[Sequence[float], Sequence[float]]]
) -> list[Plot]:
    """The learning curves of a run, one picture for all."""
    if not curves:
        return []
    with style() as figure_of:
        figure = figure_of(figsize=(3.2 * len(curves), 2.4))
        panels = figure.subplots(1, len(curves), squeeze=False)[0]
        for axes, (metric, (steps, values)) in zip(panels, curves.items(), strict=True):
            axes.plot(steps, values, lw=1.3)
            axes.set(xlabel="step")
            axes.set_title(CURVES[metric], size=9)
    ends = "; ".join(
        f"{CURVES[metric]} from {values[0]:.3g} to {values[-1]:.3g}"
        for metric, (_, values) in curves.items()
    )
    return [Plot(f"training-{name}", f"Training of {name}: {ends}.", figure)]


def log_costs(axes: Any) -> None:
    """A logarithmic axis of costs, told as 500k, 1M, 2M."""
    from matplotlib import ticker

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(ticker.LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(ticker.EngFormatter(sep=""))
    axes.xaxis.set_minor_formatter(ticker.NullFormatter())
