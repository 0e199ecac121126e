"""Pictures of outlier features and of what latents do; None where there is nothing to draw."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from latentgym.analysis.interventions import title_of
from latentgym.analysis.plots.base import Report, array_of, figure_of, line, tidy
from latentgym.analysis.pooling import WITH_FIRST
from latentgym.analysis.tables import step_of


def outliers(report: Report) -> Any:
    """Outlier features by layer and kind of position."""
    told = report["outliers"]["groups"]
    figure = figure_of(5.2)
    drawn = {
        "norm": "norm, mean",
        "kurtosis": "feature kurtosis, 1 to D",
        "top_over_median": "largest magnitude / median",
        "max_median_ratio": "max-median ratio, mean",
        "signal_mean": "signal propagation, mean cosine",
        "excess_kurtosis": "excess kurtosis of a position, mean",
    }
    panels = figure.subplots(2, 3).flat
    for axes, (metric, title) in zip(panels, drawn.items(), strict=True):
        for name, group in told.items():
            if name != WITH_FIRST:
                line(axes, name, _numbers(group[metric]))
        tidy(axes, title, xlabel="layer input")
    axes.legend(fontsize=7, frameon=False)
    return figure


def causal_map(report: Report) -> Any:
    """How the probability of the given answer changes where the thought of a step is replaced."""
    told = [found for e in ("direct", "total") if (found := report["latents"].get(e))]
    figure = figure_of(3.4)
    panels = np.atleast_1d(figure.subplots(1, len(told), sharey=True))
    for axes, found in zip(panels, told, strict=True):
        names = list(found["map"])
        for number, name in enumerate(names):
            cells = found["map"][name]
            numbers = [[cell["probability"][k] for k in ("mean", "low", "high")] for cell in cells]
            mean, low, high = array_of(numbers).T
            at = np.arange(len(cells)) + 0.1 * (number - len(names) / 2)
            bars = (mean - low, high - mean)
            axes.errorbar(at, mean, bars, fmt="o", ms=3.5, capsize=2, label=title_of(name))
        steps = [step_of(cell) for cell in cells]
        axes.axhline(0, color="black", lw=0.6)
        tidy(axes, f"{found['effect']} effect", "change of probability", "replaced step")
        axes.set_xticks(range(len(steps)), steps)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=6, fontsize=8, frameon=False)
    return figure


def _numbers(value: Any) -> Any:
    """One number for each layer: the mean over positions, or the first of several."""
    if isinstance(value, Mapping):
        return value["mean"]
    return [each[0] if isinstance(each, list) else each for each in value]
