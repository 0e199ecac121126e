"""A picture of a run's learning curves, with intervals, in its folder.

Accuracy has the 95 % interval of each evaluation. Rewards and losses are of other questions at
every step, so neighbouring lines of the log are taken together: their mean, and Student's 95 %
interval of it, as if they had nothing to do with each other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from latentgym.evaluation.page.answers import CURVES, log_lines
from latentgym.evaluation.page.plots import COLOURS, Plot, style
from latentgym.evaluation.results import METRICS
from latentgym.evaluation.stats import mean_interval
from latentgym.storage import atomic_write, writable

PICTURE = "curves.png"
DRAWN = ("reward/score", "train/loss", "eval/accuracy")
"""The logged numbers that are drawn, those of them that a run has."""
_LEAST = 3  # points of a curve
_TOGETHER, _MOST = 4, 25  # lines that are taken together at least; of so many means at most


class Point(NamedTuple):
    """A point of a curve, with an interval if there is one."""

    step: float
    value: float
    low: float | None = None
    high: float | None = None


def draw_curves(folder: Path) -> Path | None:
    """Draw the curves of a run, where it has logged enough for one; the picture's path.

    Raises:
        UsageError: matplotlib is missing, the log is damaged or the folder cannot be written.
    """
    path = folder / METRICS
    found = curves_of(list(log_lines(path))) if path.is_file() else {}
    if not found:
        return None
    picture = _plot(found).file("png")
    with writable(folder), atomic_write(folder / PICTURE) as partial:
        partial.write_bytes(picture)
    return folder / PICTURE


def curves_of(lines: Sequence[Mapping[str, Any]]) -> dict[str, list[Point]]:
    """The curves of a log, by name; those of fewer than three points are left out."""
    found = {}
    for name in DRAWN:
        points = [
            Point(line["step"], line[name], line.get(f"{name}_low"), line.get(f"{name}_high"))
            for line in lines
            if isinstance(line.get(name), int | float) and isinstance(line.get("step"), int)
        ]
        if len(points) >= _LEAST:
            found[name] = points if points[0].low is not None else _together(points)
    return found


def _together(points: Sequence[Point]) -> list[Point]:
    """Means of neighbours, with intervals; the points themselves where they are too few."""
    if len(points) < _LEAST * _TOGETHER:
        return list(points)
    size = max(_TOGETHER, -(-len(points) // _MOST))
    starts = range(0, len(points) - size + 1, size)
    means = []
    for start in starts:
        stop = len(points) if start == starts[-1] else start + size
        some = points[start:stop]
        steps = [point.step for point in some]
        value, low, high = mean_interval([point.value for point in some])
        means.append(Point(sum(steps) / len(steps), value, low, high))
    return means


def _plot(found: Mapping[str, Sequence[Point]]) -> Plot:
    with style() as figure_of:
        figure = figure_of(figsize=(3.4 * len(found), 2.6))
        panels = figure.subplots(1, len(found), squeeze=False)[0]
        for axes, (name, points), colour in zip(panels, found.items(), COLOURS, strict=False):
            steps, values, lows, highs = zip(*points, strict=True)
            axes.plot(
                steps, values, lw=1.3, color=colour, marker="." if len(points) < _MOST else ""
            )
            if None not in (*lows, *highs):
                axes.fill_between(steps, lows, highs, color=colour, alpha=0.2, lw=0)
            axes.set(xlabel="step")
            axes.set_title(CURVES[name], size=9)
    return Plot("curves", "Learning curves, with 95 % intervals.", figure)
