"""Pictures of a depth report (extra `plots`).

Each is a matplotlib figure by name; `draw` makes files of them, the same bytes for the same report.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from latentgym.analysis.pooling import ALL, WITH_FIRST
from latentgym.errors import UsageError

Report = Mapping[str, Any]
_COLOURS = {
    ALL: "#222222",
    "prompt": "#888888",
    "chain": "#0072b2",
    "hybrid": "#009e73",
    "latent": "#d55e00",
    "inserted": "#cc79a7",
    "answer": "#e69f00",
}
_WIDTH = 9.0  # of all pictures, so that their text is of one size on a page


def _figure(height: float) -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UsageError("pictures need matplotlib; pip install 'latentgym[plots]'.") from error
    return Figure(figsize=(_WIDTH, height), layout="constrained")


def figures(report: Report) -> dict[str, Any]:
    """The pictures of what a report has, by name.

    Raises:
        UsageError: matplotlib is missing.
    """
    drawn: dict[str, tuple[str, Callable[[Report], Any]]] = {
        "contributions": ("contributions", _contributions),
        "lens": ("lens", _lens),
        "skips": ("skips", _skips),
        "outputs": ("skips", _outputs),
        "difficulty": ("skips", _difficulty),
        "gradients": ("gradients", _gradients),
        "erasure": ("erasure", _erasure),
    }
    made = {name: draw(report) for name, (part, draw) in drawn.items() if part in report}
    return {name: figure for name, figure in made.items() if figure is not None}


def draw(report: Report, *kinds: str) -> dict[str, dict[str, bytes]]:
    """All pictures as files of some kinds (`svg`, `png`), by name and kind.

    Raises:
        UsageError: matplotlib is missing.
    """
    made = figures(report).items()
    return {name: {kind: _bytes(figure, name, kind) for kind in kinds} for name, figure in made}


def _bytes(figure: Any, name: str, kind: str) -> bytes:
    import matplotlib

    buffer = io.BytesIO()
    # Ids within an SVG are random, and it bears the date, unless one says otherwise.
    metadata = {"Date": None} if kind == "svg" else {"Software": None}
    with matplotlib.rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}):
        figure.savefig(buffer, format=kind, dpi=160, metadata=metadata)
    return buffer.getvalue()


def _line(axes: Any, group: str, value: Any) -> None:
    values = np.array([np.nan if v is None else v for v in value])
    axes.plot(values, color=_COLOURS.get(group), label=group, lw=2 if group == ALL else 1.3)


def _tidy(axes: Any, title: str, ylabel: str = "", xlabel: str = "layer") -> None:
    axes.set_title(title, fontsize=9)
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.grid(alpha=0.3)
    axes.xaxis.get_major_locator().set_params(integer=True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _contributions(report: Report) -> Any:
    told = report["contributions"]
    figure = _figure(5.2)
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
                _line(axes, group, values["mean"])
        if name.startswith("cosine"):
            axes.axhline(0, color="black", lw=0.6)
        else:
            axes.set_ylim(bottom=0)
        _tidy(axes, title)
        if axes.get_subplotspec().is_first_row():
            axes.set_xlabel("")
    axes.legend(fontsize=7, frameon=False)
    return figure


def _lens(report: Report) -> Any:
    told = report["lens"]
    figure = _figure(3.0)
    names = (
        ("kl_final_lens", "KL(final || lens)", "nats"),
        ("kl_lens_final", "KL(lens || final)", "nats"),
        ("overlap", "top-5 overlap", "share"),
    )
    for axes, (name, title, unit) in zip(figure.subplots(1, 3), names, strict=True):
        for group, values in told[name].items():
            if group != WITH_FIRST:
                _line(axes, group, values["mean"])
        axes.set_ylim(bottom=0)
        _tidy(axes, title, unit)
    axes.legend(fontsize=7, frameon=False)
    return figure


def _heat(figure: Any, axes: Any, table: Any, title: str, xlabel: str, most: float) -> None:
    image = axes.imshow(_array(table), origin="lower", vmin=0, vmax=most, cmap="magma_r")
    axes.set_title(title, fontsize=9)
    axes.set(xlabel=xlabel, ylabel="skipped layer")
    figure.colorbar(image, ax=axes, shrink=0.85)


def _skips(report: Report) -> Any:
    tables = {"all positions": report["skips"]["block"]["layers"]}
    if "future" in report:
        tables["future positions alone"] = report["future"]["layers"]
    if "local" in report:
        tables["local, nothing recomputed"] = report["local"]["layers"]
    tables = {title: told for title, told in tables.items() if ALL in told}
    if not tables:
        return None
    figure = _figure(3.2)
    most = max(float(np.nanmax(_array(told[ALL]["mean"]))) for told in tables.values())
    for axes, (title, told) in zip(
        np.atleast_1d(figure.subplots(1, len(tables))), tables.items(), strict=True
    ):
        _heat(figure, axes, told[ALL]["mean"], title, "layer", min(most, 1.0) or 1.0)
    return figure


def _outputs(report: Report) -> Any:
    figure = _figure(3.4)
    one, other = figure.subplots(1, 2, sharey=True)
    for part in ("block", "attention", "mlp"):
        values = report["skips"][part]["output"][ALL]["mean"]
        one.plot(_array(values), label=part, lw=1.4)
    _tidy(one, "change of the output by what is skipped", "L2 of the softmax difference")
    other.plot(_array(report["skips"]["block"]["output"][ALL]["mean"]), label="all", color="black")
    for name, title in (("future", "future positions"), ("thoughts", "thoughts, on the answer")):
        told = report.get(name, {}).get("output", {}).get(ALL)
        if told is not None:
            other.plot(_array(told["mean"]), label=title, lw=1.4)
    _tidy(other, "change of the output by where it is skipped")
    for axes in (one, other):
        axes.legend(fontsize=7, frameon=False)
        axes.set_ylim(bottom=0)
    return figure


def _difficulty(report: Report) -> Any:
    told = {
        name: found
        for name, found in report["skips"]["depth_score_mean"]["against"].items()
        if len(found["groups"]) > 1
    }
    if not told:
        return None
    figure = _figure(3.0)
    for axes, (name, found) in zip(
        np.atleast_1d(figure.subplots(1, len(told))), told.items(), strict=True
    ):
        at = [group["difficulty"] for group in found["groups"]]
        score = np.array([group["score"] for group in found["groups"]])
        low, high = np.array([group["score_ci95"] for group in found["groups"]]).T
        axes.errorbar(at, score, (score - low, high - score), fmt="o", capsize=3)
        _tidy(axes, "depth score against difficulty", "depth score", name)
    return figure


def _gradients(report: Report) -> Any:
    layers = sorted({found["layer"] for found in report["gradients"]})
    figure = _figure(1.0 + 1.1 * len(layers))
    for axes, layer in zip(
        np.atleast_1d(figure.subplots(len(layers), 1, sharex=True)), layers, strict=True
    ):
        found = next(each for each in report["gradients"] if each["layer"] == layer)
        colours = [_COLOURS.get(kind, "black") for kind in found["kinds"]]
        axes.bar(range(len(found["value"])), found["value"], color=colours, width=1.0)
        axes.axhline(0, color="black", lw=0.6)
        title = f"before layer {layer} (error {found['completeness_error']:.1%})"
        _tidy(axes, title, xlabel="")
    axes.set_xlabel("position of the first sequence (coloured by kind)")
    return figure


def _erasure(report: Report) -> Any:
    found = report["erasure"]["by_sequence"][0]
    figure = _figure(2.6)
    axes = figure.subplots()
    image = axes.imshow(
        _array(found["effect"]), aspect="auto", origin="lower", vmin=0, cmap="magma_r"
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


def _array(table: Any) -> npt.NDArray[np.float64]:
    """Nested lists with None for what is no number."""
    return np.array(table, dtype=np.float64)
