"""Pictures of results: accuracy against cost, controls, learning curves.

They are SVG that takes the colour of its text from the page, so that it is seen on light and dark.
The same results give the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from latentgym.evaluation.columns import Run
from latentgym.evaluation.comparison import Difference
from latentgym.evaluation.page.answers import CURVES
from latentgym.system.pictures import figure_class, file_of

_INK = "#010203"  # stands for the colour of the page's text
# Told apart by the colour-blind (Okabe and Ito), on light and on dark.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#888888")
_MARKERS = "osD^vP*X<>"
_STYLE: dict[str, Any] = {
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor"), _INK),
    **dict.fromkeys(("xtick.color", "ytick.color"), _INK),
    "svg.fonttype": "none",
    "font.size": 10.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
}
_WIDTH = 6.5  # inches
_LOG = 3  # times the least cost: from there on the axis is logarithmic
_MOST_LABELS = 12  # of points; more would cover each other


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
        return (
            text[text.index("<svg") :].replace("<svg ", labelled, 1).replace(_INK, "currentColor")
        )

    def file(self, kind: str) -> bytes:
        """As a file of that kind, `svg` or `png`."""
        return file_of(self.figure, self.name, kind, transparent=kind == "svg")


@contextmanager
def _style() -> Iterator[Callable[..., Any]]:
    """Within it, what is drawn is in the style of the page; yields what makes figures.

    Raises:
        UsageError: matplotlib is missing.
    """
    figure = figure_class("page")
    import matplotlib
    from cycler import cycler

    style: Any = {**_STYLE, "axes.prop_cycle": cycler(color=COLOURS)}
    with matplotlib.rc_context(style):
        yield figure


def of_task(
    task: str,
    runs: Sequence[Run],
    names: Mapping[Path, str],
    controls: Mapping[Path, Sequence[Difference]],
) -> list[Plot]:
    """The pictures of the runs on one task.

    Args:
        task: what they answered, for captions.
        runs: these.
        names: of the runs, by folder.
        controls: of runs, by folder: what was lost or gained.
    """
    with _style() as figure:
        made = [
            _against_cost(figure, task, runs, names),
            _controls(figure, task, runs, names, controls),
        ]
    return [plot for plot in made if plot is not None]


def _against_cost(
    figure_of: Any, task: str, runs: Sequence[Run], names: Mapping[Path, str]
) -> Plot | None:
    """Accuracy against operations an answer, with the runs that none beats at less."""
    own = [run for run in runs if run[1].flops_per_answer > 0 and run[1].control is None]
    if len(own) < 2:
        return None
    figure = figure_of(figsize=(_WIDTH, 4.0))
    axes = figure.subplots()
    agents = sorted({r.agent for _, r in own})
    for number, agent in enumerate(agents):
        some = [r for _, r in own if r.agent == agent]
        flops = [r.flops_per_answer for r in some]
        shares = [100 * r.accuracy for r in some]
        low = [max(0.0, 100 * (r.accuracy - r.accuracy_ci95[0])) for r in some]
        high = [max(0.0, 100 * (r.accuracy_ci95[1] - r.accuracy)) for r in some]
        colour = COLOURS[number % len(COLOURS)]
        marker = _MARKERS[number % len(_MARKERS)]
        axes.errorbar(
            flops, shares, (low, high), fmt=marker, color=colour, ms=6, capsize=2, lw=1, label=agent
        )
    front = pareto([(r.flops_per_answer, r.accuracy) for _, r in own])
    axes.step(
        [x for x, _ in front],
        [100 * y for _, y in front],
        where="post",
        color=_INK,
        lw=0.8,
        ls="--",
    )
    if len(own) <= _MOST_LABELS:
        for folder, r in own:
            at = (r.flops_per_answer, 100 * r.accuracy)
            axes.annotate(names[folder], at, xytext=(5, 4), textcoords="offset points", size=7.5)
    costs = [r.flops_per_answer for _, r in own]
    if max(costs) > _LOG * min(costs):
        axes.set_xscale("log")
    axes.set(xlabel="floating-point operations an answer", ylabel="accuracy, %")
    axes.legend(fontsize=8, loc="best")
    best = ", ".join(
        f"{names[folder]} {100 * r.accuracy:.1f} %"
        for folder, r in sorted(own, key=lambda run: -run[1].accuracy)[:3]
    )
    caption = (
        f"{task}: accuracy against operations an answer, with 95 % intervals; the dashed line "
        f"joins runs that no cheaper one equals. Best: {best}."
    )
    return Plot(f"cost-{task}", caption, figure)


def pareto(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Of points (cost, gain) those that no point of at most their cost equals, by cost."""
    front: list[tuple[float, float]] = []
    for cost, gain in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or gain > front[-1][1]:
            front.append((cost, gain))
    return front


def _controls(
    figure_of: Any,
    task: str,
    runs: Sequence[Run],
    names: Mapping[Path, str],
    controls: Mapping[Path, Sequence[Difference]],
) -> Plot | None:
    """What is lost where thoughts are replaced."""
    bars = [
        (names[folder], c.name, 100 * c.mean, 100 * (c.mean - c.low), 100 * (c.high - c.mean))
        for folder, _ in runs
        for c in controls.get(folder, ())
    ]
    if not bars:
        return None
    figure = figure_of(figsize=(_WIDTH, 0.8 + 0.32 * len(bars)))
    axes = figure.subplots()
    kinds = sorted({control for _, control, *_ in bars})
    at = list(range(len(bars)))[::-1]
    colours = [COLOURS[kinds.index(control) % len(COLOURS)] for _, control, *_ in bars]
    means, lows, highs = ([bar[i] for bar in bars] for i in (2, 3, 4))
    axes.barh(at, means, color=colours, alpha=0.7, height=0.6)
    axes.errorbar(means, at, xerr=(lows, highs), fmt="none", ecolor=_INK, capsize=2, lw=1)
    axes.axvline(0, color=_INK, lw=0.8)
    axes.set_yticks(at, [f"{run}, {control}" for run, control, *_ in bars], fontsize=8)
    axes.set(xlabel="accuracy with the control less without, percentage points")
    told = "; ".join(f"{run} with {control} {mean:+.1f}" for run, control, mean, *_ in bars)
    caption = (
        f"{task}: what replacing the thoughts does, paired by question, 95 % intervals. {told}."
    )
    return Plot(f"controls-{task}", caption, figure)


def of_training(
    name: str, curves: Mapping[str, tuple[Sequence[float], Sequence[float]]]
) -> list[Plot]:
    """The learning curves of a run, one picture for all."""
    if not curves:
        return []
    with _style() as figure_of:
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
