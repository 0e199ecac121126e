"""Pictures of a depth report; None where there is nothing to draw."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from latentgym.analysis.plots.base import (
    COLOURS,
    Report,
    array_of,
    figure_of,
    from_zero_or_log,
    line,
    tidy,
    whole,
)
from latentgym.analysis.pooling import ALL, WITH_FIRST
from latentgym.analysis.residual import PARTS

_MOST = 98  # per cent of the cells of a heat map lie within its scale
_NUMBERED = 6  # layers up to which its cells bear their numbers


def contributions(report: Report) -> Any:
    """What each layer adds to the residual stream, by kind of position.

    Above 0 a cosine strengthens what is there; below 0 it erases.
    """
    told = report["contributions"]
    figure = figure_of(4.6)
    panels = figure.subplots(2, 4)
    for axes, (name, title) in zip(
        panels.flat,
        (
            ("norm_h", "norm of the stream"),
            ("relative_attention", "attention / stream"),
            ("relative_mlp", "MLP / stream"),
            ("relative_block", "block / stream"),
            ("norm_a", "norm of what is added"),
            ("cosine_attention", "cos(attention, stream)"),
            ("cosine_mlp", "cos(MLP, stream)"),
            ("cosine_block", "cos(block, stream)"),
        ),
        strict=True,
    ):
        for group, values in {} if name == "norm_a" else told[name].items():
            if group != WITH_FIRST:
                line(axes, group, values["mean"])
        if name.startswith("cosine"):
            axes.axhline(0, color="black", lw=0.6)
        tidy(axes, title)
        if axes.get_subplotspec().is_first_row():
            axes.set_xlabel("")
    norms = panels[1, 0]
    for name, label, style in (("norm_a", "attention", "-"), ("norm_m", "MLP", "--")):
        norms.plot(array_of(told[name][ALL]["mean"]), style, color=COLOURS[ALL], label=label)
    norms.legend(fontsize=7, frameon=False)
    whole(norms)
    for axes in (*panels[0], norms):
        from_zero_or_log(axes)
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=6, fontsize=8, frameon=False)
    return figure


def lens(report: Report) -> Any:
    """How near each layer's prediction is to the final one: KL 0 and overlap 1 are there."""
    told = report["lens"]
    figure = figure_of(3.0)
    names = (
        ("kl_final_lens", "KL(final || lens)", "nats"),
        ("kl_lens_final", "KL(lens || final)", "nats"),
        ("overlap", "top-5 overlap", "share"),
    )
    for axes, (name, title, unit) in zip(figure.subplots(1, 3), names, strict=True):
        for group, values in told[name].items():
            if group != WITH_FIRST:
                line(axes, group, values["mean"])
        if unit == "nats":
            from_zero_or_log(axes)
        else:
            axes.set_ylim(0, 1)
        tidy(axes, title, unit)
    axes.legend(fontsize=7, frameon=False)
    return figure


def _heat(axes: Any, table: Any, title: str, most: float) -> Any:
    """A table [s][l] of relative changes, with its numbers where there is room for them."""
    cells = array_of(table)
    image = axes.imshow(cells, origin="lower", vmin=0, vmax=most, cmap="magma_r")
    for at, cell in np.ndenumerate(cells) if len(cells) <= _NUMBERED else ():
        if np.isfinite(cell):
            ink = "white" if cell > most / 2 else "black"
            axes.text(*at[::-1], f"{cell:.2g}", ha="center", va="center", color=ink, fontsize=7)
    axes.set_title(title, fontsize=9)
    axes.set(xlabel="layer", ylabel="skipped layer")
    whole(axes)
    return image


def _heats(tables: Mapping[str, Report]) -> Any:
    """Tables of all positions side by side, means above maxima; None where there is none.

    Means and maxima have a scale each, as far as all but the largest cells reach.
    """
    tables = {title: told[ALL] for title, told in tables.items() if ALL in told}
    if not tables:
        return None
    figure = figure_of(5.4)
    figure.set_layout_engine("compressed")  # square panels, side by side
    panels = figure.subplots(2, len(tables), squeeze=False)
    for row, statistic in zip(panels, ("mean", "max"), strict=True):
        cells = np.concatenate([array_of(told[statistic]).ravel() for told in tables.values()])
        most = float(np.nanpercentile(cells, _MOST)) or 1.0
        for axes, (title, told) in zip(row, tables.items(), strict=True):
            image = _heat(axes, told[statistic], f"{title}: {statistic}", most)
            axes.label_outer()
        figure.colorbar(image, ax=row, shrink=0.8, extend="max")
    return figure


def skips(report: Report) -> Any:
    """How much of what a later layer (across) adds changes where an earlier one (up) is skipped."""
    found = {
        "all positions": report.get("skips", {}).get("block"),
        "future positions": report.get("future"),
        "local, nothing recomputed": report.get("local"),
    }
    return _heats({title: told["layers"] for title, told in found.items() if told is not None})


def parts(report: Report) -> Any:
    """How much of what a later layer (across) adds changes where a part of an earlier one (up) is.

    That is, where its attention alone or its MLP alone is skipped, at all positions.
    """
    skipped = report["skips"]
    titles = {"attention": "attention skipped", "mlp": "MLP skipped"}
    return _heats({t: skipped[part]["layers"] for part, t in titles.items() if part in skipped})


def outputs(report: Report) -> Any:
    """How far the next-token distribution moves where a layer is skipped."""
    by_part = report.get("skips", {})
    by_place = {
        "all": by_part.get("block"),
        "future positions": report.get("future"),
        "thoughts, on the answer": report.get("thoughts"),
    }
    panels: dict[str, Mapping[str, Any]] = {
        "change of the output by what is skipped": {part: by_part.get(part) for part in PARTS},
        "change of the output by where it is skipped": by_place,
    }
    told = {
        title: {
            label: effects["output"][ALL]["mean"]
            for label, effects in by_what.items()
            if effects is not None and ALL in effects["output"]
        }
        for title, by_what in panels.items()
    }
    told = {title: by_what for title, by_what in told.items() if by_what}
    if not told:
        return None
    figure = figure_of(3.4)
    panel = figure.subplots(1, len(told), sharey=True, squeeze=False)[0]
    for axes, (title, by_what) in zip(panel, told.items(), strict=True):
        for label, means in by_what.items():
            axes.plot(array_of(means), label=label, lw=1.4, color=COLOURS.get(label))
        tidy(axes, title, "L2 of the softmax difference" if axes is panel[0] else "")
        whole(axes)
        axes.legend(fontsize=7, frameon=False)
    panel[0].set_ylim(bottom=0)  # of both, when all is drawn
    return figure


def difficulty(report: Report) -> Any:
    """Do harder questions move the effects to deeper layers?"""
    scores = report["skips"].get("depth_score_mean", {"against": {}})
    told = {name: found for name, found in scores["against"].items() if len(found["groups"]) > 1}
    if not told:
        return None
    figure = figure_of(3.0)
    for axes, (name, found) in zip(
        np.atleast_1d(figure.subplots(1, len(told))), told.items(), strict=True
    ):
        at = [group["difficulty"] for group in found["groups"]]
        score = np.array([group["score"] for group in found["groups"]])
        low, high = np.array([group["score_ci95"] for group in found["groups"]]).T
        axes.errorbar(at, score, (score - low, high - score), fmt="o", capsize=3)
        tidy(axes, "depth score against difficulty", "depth score", name)
    return figure


def gradients(report: Report) -> Any:
    """Integrated gradients of the answer tokens' probability."""
    from matplotlib.patches import Patch

    layers = sorted({found["layer"] for found in report["gradients"]})
    figure = figure_of(1.2 + 1.1 * len(layers))
    for axes, layer in zip(
        np.atleast_1d(figure.subplots(len(layers), 1, sharex=True)), layers, strict=True
    ):
        found = next(each for each in report["gradients"] if each["layer"] == layer)
        colours = [COLOURS.get(kind, "black") for kind in found["kinds"]]
        axes.bar(range(len(found["value"])), found["value"], color=colours, width=1.0)
        axes.axhline(0, color="black", lw=0.6)
        title = f"before layer {layer} (error {found['completeness_error']:.1%})"
        tidy(axes, title, xlabel="")
    axes.set_xlabel("position of the first sequence")
    shown = [kind for kind in COLOURS if kind in found["kinds"]]
    patches = [Patch(color=COLOURS[kind], label=kind) for kind in shown]
    figure.legend(handles=patches, loc="outside upper right", ncols=6, fontsize=8, frameon=False)
    return figure


def erasure(report: Report) -> Any:
    """How far the answer moves where one position is erased before a layer."""
    found = report["erasure"]["by_sequence"][0]
    figure = figure_of(2.6)
    axes = figure.subplots()
    image = axes.imshow(
        array_of(found["effect"]), aspect="auto", origin="lower", vmin=0, cmap="magma_r"
    )
    axes.set_yticks(range(len(report["erasure"]["layers"])), report["erasure"]["layers"])
    places = [
        f"{place}\n{kind}" for place, kind in zip(found["positions"], found["kinds"], strict=True)
    ]
    axes.set_xticks(range(len(places)), places, fontsize=6)
    axes.set(xlabel="erased position", ylabel="before layer")
    axes.set_title("largest change of the answer's distributions, first sequence", fontsize=9)
    figure.colorbar(image, ax=axes)
    return figure
