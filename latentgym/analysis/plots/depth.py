"""Pictures of a depth report; None where there is nothing to draw."""

from __future__ import annotations

from typing import Any

import numpy as np

from latentgym.analysis.plots.base import COLOURS, Report, array_of, figure_of, line, tidy, whole
from latentgym.analysis.pooling import ALL, WITH_FIRST


def contributions(report: Report) -> Any:
    """What each layer adds to the residual stream, by kind of position.

    Above 0 a cosine strengthens what is there; below 0 it erases.
    """
    told = report["contributions"]
    figure = figure_of(5.2)
    for axes, (name, title) in zip(
        figure.subplots(2, 3).flat,
        (
            ("norm_h", "norm of the residual stream"),
            ("relative_attention", "attention / stream"),
            ("relative_mlp", "MLP / stream"),
            ("relative_block", "block / stream"),
            ("cosine_attention", "cosine of attention and stream"),
            ("cosine_block", "cosine of block and stream"),
        ),
        strict=True,
    ):
        for group, values in told[name].items():
            if group != WITH_FIRST:
                line(axes, group, values["mean"])
        if name.startswith("cosine"):
            axes.axhline(0, color="black", lw=0.6)
        else:
            axes.set_ylim(bottom=0)
        tidy(axes, title)
        if axes.get_subplotspec().is_first_row():
            axes.set_xlabel("")
    axes.legend(fontsize=7, frameon=False)
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
        axes.set_ylim(bottom=0)
        tidy(axes, title, unit)
    axes.legend(fontsize=7, frameon=False)
    return figure


def _heat(figure: Any, axes: Any, table: Any, title: str, xlabel: str, most: float) -> None:
    image = axes.imshow(array_of(table), origin="lower", vmin=0, vmax=most, cmap="magma_r")
    axes.set_title(title, fontsize=9)
    axes.set(xlabel=xlabel, ylabel="skipped layer")
    whole(axes)
    figure.colorbar(image, ax=axes, shrink=0.85)


def skips(report: Report) -> Any:
    """How much of what a later layer (across) adds changes where an earlier one (up) is skipped."""
    tables = {"all positions": report["skips"]["block"]["layers"]}
    if "future" in report:
        tables["future positions alone"] = report["future"]["layers"]
    if "local" in report:
        tables["local, nothing recomputed"] = report["local"]["layers"]
    tables = {title: told for title, told in tables.items() if ALL in told}
    if not tables:
        return None
    figure = figure_of(3.2)
    most = max(float(np.nanmax(array_of(told[ALL]["mean"]))) for told in tables.values())
    for axes, (title, told) in zip(
        np.atleast_1d(figure.subplots(1, len(tables))), tables.items(), strict=True
    ):
        _heat(figure, axes, told[ALL]["mean"], title, "layer", min(most, 1.0) or 1.0)
    return figure


def outputs(report: Report) -> Any:
    """How far the next-token distribution moves where a layer is skipped."""
    figure = figure_of(3.4)
    one, other = figure.subplots(1, 2, sharey=True)
    for part in ("block", "attention", "mlp"):
        values = report["skips"][part]["output"][ALL]["mean"]
        one.plot(array_of(values), label=part, lw=1.4)
    tidy(one, "change of the output by what is skipped", "L2 of the softmax difference")
    other.plot(
        array_of(report["skips"]["block"]["output"][ALL]["mean"]), label="all", color="black"
    )
    for name, title in (("future", "future positions"), ("thoughts", "thoughts, on the answer")):
        told = report.get(name, {}).get("output", {}).get(ALL)
        if told is not None:
            other.plot(array_of(told["mean"]), label=title, lw=1.4)
    tidy(other, "change of the output by where it is skipped")
    for axes in (one, other):
        whole(axes)
        axes.legend(fontsize=7, frameon=False)
        axes.set_ylim(bottom=0)
    return figure


def difficulty(report: Report) -> Any:
    """Do harder questions move the effects to deeper layers?"""
    told = {
        name: found
        for name, found in report["skips"]["depth_score_mean"]["against"].items()
        if len(found["groups"]) > 1
    }
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
