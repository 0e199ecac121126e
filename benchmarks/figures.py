"""Draws what the pages show of the records as pictures.

python -m benchmarks.figures           # after a suite has run
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from benchmarks import (
    sections_chains,
    sections_depth,
    sections_dynamics,
    sections_latents,
    sections_suites,
)
from benchmarks.sections import Cells, suite_cells
from benchmarks.sections_outliers import record
from benchmarks.sections_suites import gained
from latentgym.analysis import plots
from latentgym.evaluation.stats import wilson

LABELS = {"word": "plain tokens", "zero": "zeros", "noise": "noise"}
MARKERS = {"word": "|", "zero": "x", "noise": "+"}
PARTS = ("as it is", "supervised", "policy gradient", "ctrls")
IMAGES = Path(__file__).parents[1] / "docs" / "img"


def latentseek_curve() -> None:
    """Accuracy of the oracle's search against its iterations."""
    from matplotlib import pyplot as plt

    cell = suite_cells("latentseek")["psrm-64"]
    n, after = cell["n"], {int(k): v / 100 for k, v in cell["after_iterations"].items()}
    bounds = [wilson(round(share * n), n) for share in after.values()]
    at = [max(0.5, k) for k in after]  # zero has no place on a logarithmic axis
    figure, axes = plt.subplots(figsize=(6, 3.4), layout="constrained")
    low, high = ([100 * bound for bound in side] for side in zip(*bounds, strict=True))
    axes.fill_between(at, low, high, alpha=0.2)
    axes.plot(at, [100 * share for share in after.values()], marker="o")
    axes.set_xscale("log", base=2)
    axes.set_xticks(at, list(map(str, after)))
    axes.set(xlabel="iterations", ylabel="accuracy, %", ylim=(0, None))
    axes.set_title(f"LatentSeek with the oracle, first {n} questions of GSM8K", fontsize=10)
    _plain(axes)
    _save(figure, "latentseek.svg")


def mnns() -> None:
    """MNNS, and accuracy with other thoughts in the place of a method's own."""
    cells = suite_cells("mnns")
    rows = [name for name in sections_suites.HEADLINE if cells[name]["part"] in PARTS]
    shown = {name: (cell["mean"], *cell["ci95"]) for name, cell in cells.items()}
    _every_method("mnns", "MNNS", cells, rows, sections_suites.MNNS, shown, "accuracy, %")


def chains() -> None:
    """Generated chains: their starts differ widely, so points over them are shown."""
    cells = suite_cells("chains")
    start = cells["start"]
    rows = [name for name in sections_chains.HEADLINE if cells[name]["part"] in PARTS]
    shown = {
        name: gained(start, cell)
        for name, cell in cells.items()
        if cell["seeds"] == start["seeds"] and cell["n"] == start["n"]
    }
    what = "points over the start, paired by seed"
    _every_method("chains", "Generated chains", cells, rows, sections_chains.CHAINS, shown, what)


def _every_method(
    file: str,
    task: str,
    cells: Cells,
    rows: Sequence[str],
    labels: Mapping[str, str],
    shown: Mapping[str, tuple[float, float, float]],
    what: str,
) -> None:
    """Every method from one start, and what other thoughts in the place of its own change.

    Args:
        file: its name, without the ending.
        task: for the title.
        cells: all of the suite.
        rows: which methods.
        labels: what they are called.
        shown: a number of each cell, controls among them, with its interval.
        what: the number is.
    """
    from matplotlib import pyplot as plt

    part = {name: PARTS.index(cells[name]["part"]) for name in rows}
    rows = sorted(rows, key=lambda name: (-part[name], shown[name][0]))
    figure, axes = plt.subplots(figsize=(7.5, 4.4), layout="constrained")
    axes.axvline(shown["start"][0], color="0.6", lw=1, zorder=0, label="the start of all")
    for at, name in enumerate(rows):
        mean, low, high = shown[name]
        axes.plot([low, high], [at, at], color=f"C{part[name]}", lw=1.5)
        axes.plot(mean, at, "o", color=f"C{part[name]}", ms=6)
        for control, marker in MARKERS.items():
            if other := shown.get(f"{name}-{control}"):
                axes.plot(other[0], at, marker, color="0.25", ms=8, mew=1.5)
    for place, label in enumerate(PARTS):
        if place in part.values():
            axes.plot([], [], "o-", color=f"C{place}", label=label)
    for control, marker in MARKERS.items():
        if any(f"{name}-{control}" in shown for name in rows):
            axes.plot([], [], marker, color="0.25", ms=8, mew=1.5, label=f"with {LABELS[control]}")
    axes.set_yticks(range(len(rows)), [labels[name] for name in rows], fontsize=8)
    axes.set(xlabel=f"{what} (95 % interval)")
    axes.set_title(f"{task}, every method from one supervised start", fontsize=10)
    figure.legend(fontsize=7, loc="outside lower center", ncols=7, frameon=False)
    _plain(axes)
    _save(figure, f"{file}.svg")


def chain_sum() -> None:
    """Rewards of a language model that learns, by step."""
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6.5, 3.4), layout="constrained")
    for name, cell in suite_cells("chain_sum").items():
        if not cell.get("reward_by_step"):
            continue
        rows = [_smooth([100 * r for r in one]) for one in cell["reward_by_step"]]
        _seeds(axes, range(1, len(rows[0]) + 1), rows, sections_suites.CHAIN_SUM[name])
    axes.set(xlabel="steps of 32 episodes", ylabel="reward of samples, %", ylim=(0, None))
    axes.set_title("SmolLM2-135M learns sums of two numbers", fontsize=10)
    axes.legend(frameon=False, fontsize=8)
    _plain(axes)
    _save(figure, "chain-sum.svg")


def _smooth(values: list[float], steps: int = 5) -> list[float]:
    """Means over the last few steps."""
    return [float(np.mean(values[max(0, i + 1 - steps) : i + 1])) for i in range(len(values))]


def outlier_blocks() -> None:
    """Kurtosis by layer after training, and the largest in its course, by cell."""
    from matplotlib import pyplot as plt

    figure, (by_layer, in_time) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for name, cell in record("blocks")["cells"].items():
        rows = [run["all"]["kurtosis"] for run in cell["runs"]]
        _seeds(by_layer, range(len(rows[0])), rows, name)
        courses = [run["course"] for run in cell["runs"]]
        at = [step for step, _, _ in courses[0]]
        _seeds(in_time, at, [[most for _, most, _ in course] for course in courses], name)
    by_layer.set(xlabel="state h_l of the residual stream", ylabel="feature kurtosis")
    by_layer.set_xticks(range(len(rows[0])))
    by_layer.set_title("after training, test split", fontsize=10)
    in_time.set(xlabel="training step", ylabel="largest of all states")
    in_time.set_title("in training, its own batches", fontsize=10)
    for axes in (by_layer, in_time):
        _plain(axes)
    by_layer.legend(fontsize=8, frameon=False)
    _save(figure, "outlier-blocks.svg")


def outlier_collapse() -> None:
    """Latents and hidden states in a policy gradient at two learning rates."""
    from matplotlib import pyplot as plt

    data = record("collapse")
    shown = {
        "reward/correct": "right answers",
        "latent/norm": "norm of latents over that of the table",
        "latent/kurtosis": "kurtosis of latents",
        "latent/nearest": "cosine to the nearest token",
        "outlier/most/kurtosis": "largest kurtosis of states",
        "outlier/last/signal": "cosine between positions, last state",
    }
    figure, all_axes = plt.subplots(2, 3, figsize=(10, 5), layout="constrained", sharex=True)
    for axes, (key, title) in zip(all_axes.flat, shown.items(), strict=True):
        at = data["keys"].index(key)
        for name, cell in data["cells"].items():
            courses = [run["course"] for run in cell["runs"]]
            steps = [look[0] for look in courses[0]]
            label = f"learning rate {cell['lr']:g}, {name}"
            _seeds(axes, steps, [[look[at] for look in course] for course in courses], label)
        axes.set_title(title, fontsize=10)
        _plain(axes)
    all_axes[0, 0].legend(fontsize=8, frameon=False)
    for axes in all_axes[1]:
        axes.set_xlabel("training step")
    _save(figure, "outlier-collapse.svg")


def _seeds(axes: Any, at: Sequence[int], rows: Sequence[Sequence[float]], label: str) -> None:
    """The mean over seeds as a line, from the least to the greatest as a band."""
    columns = list(zip(*rows, strict=True))
    (line,) = axes.plot(at, [sum(c) / len(c) for c in columns], label=label)
    band = [[extreme(c) for c in columns] for extreme in (min, max)]
    axes.fill_between(at, *band, alpha=0.2, color=line.get_color())


def _plain(axes: Any) -> None:
    """A light grid, and no frame where there is no axis."""
    axes.grid(alpha=0.3)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def dynamics() -> None:
    """Rewards of controllers over a frozen model, by environment steps."""
    from matplotlib import pyplot as plt

    data = sections_dynamics.record()
    figure, (ours, words) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for name, label in sections_dynamics.CURVES.items():
        curves = data["mnns"]["runs"][name]
        at = [steps / 1000 for steps, _ in curves[0]]
        _seeds(ours, at, [[100 * mean for _, mean in curve] for curve in curves], label)
    ours.set_title("MNNS, five frozen models", fontsize=10)
    ours.legend(frameon=False, fontsize=8)
    curve = data["smollm2"]["curve"]
    words.plot(
        [steps / 1000 for steps, _ in curve], [100 * mean for _, mean in curve], color="tab:gray"
    )
    words.set_title("SmolLM2-135M, sums of two digits", fontsize=10)
    for axes in (ours, words):
        axes.set(xlabel="thousand environment steps", ylabel="right in training, %", ylim=(0, None))
        _plain(axes)
    _save(figure, "dynamics.svg")


def causal_map() -> None:
    """What replaced thoughts do to the right answer, by step: CoT2's and the discrete chain's."""
    from matplotlib import pyplot as plt

    effects = {"direct": "later thoughts stay", "total": "later thoughts made again"}
    grid = {"figsize": (8, 5.4), "layout": "constrained", "sharex": True, "sharey": True}
    figure, axes = plt.subplots(len(effects), len(sections_latents.AGENTS), **grid)
    for column, (name, (label, _)) in enumerate(sections_latents.AGENTS.items()):
        for row, (effect, about) in enumerate(effects.items()):
            told = sections_latents.agents()[name]["maps"][f"right answer, {effect}"]
            panel = axes[row, column]
            names = [f"{cell['step'] + 1}" for cell in told["zero"][:-1]] + ["all"]
            for i, (key, replaced) in enumerate(sections_latents.REPLACED.items()):
                numbers = [cell["probability"] for cell in told[key]]
                mean, low, high = zip(*numbers, strict=True)
                bars = [[m - b for m, b in zip(mean, low, strict=True)],
                        [b - m for m, b in zip(mean, high, strict=True)]]  # fmt: skip
                at = [step + 0.09 * (i - 2.5) for step in range(len(names))]
                panel.errorbar(at, mean, bars, fmt="o", markersize=3.5, capsize=2, label=replaced)
            panel.axhline(0, color="black", linewidth=0.6)
            panel.set_xticks(range(len(names)), names)
            panel.set_title(f"{label}: {about}", fontsize=10)
            panel.grid(alpha=0.3, axis="y")
    for panel in axes[-1]:
        panel.set_xlabel("replaced thought")
    figure.supylabel("change of the right answer's probability")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    _save(figure, "causal-map.svg")


def depth() -> None:
    """SmolLM2 on GSM8K's solutions as `latentgym analyze depth` draws it, and depth scores."""
    told, hard = sections_depth.record("gsm8k"), sections_depth.record("difficulty")
    scores = {
        "level of a problem of MATH": hard["MATH"]["mean"],
        "operations of a generated chain": hard["generated chains"]["mean"],
        "steps of a solution of GSM8K": told["skips"]["depth_score_mean"]["against"]["steps"],
    }
    against = {"skips": {**told["skips"], "depth_score_mean": {"against": scores}}}
    for name, files in plots.draw({**told, **against}, "svg").items():
        (IMAGES / f"depth-{name}.svg").write_bytes(files["svg"])


def _save(figure: Any, name: str) -> None:
    """Write a picture that is the same whenever its data are."""
    with matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(IMAGES / name, metadata={"Date": None})


if __name__ == "__main__":
    matplotlib.use("svg")
    latentseek_curve()
    mnns()
    chains()
    chain_sum()
    causal_map()
    depth()
    dynamics()
    outlier_blocks()
    outlier_collapse()
