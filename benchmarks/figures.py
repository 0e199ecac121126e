"""Draws what the pages show of the records as pictures.

python -m benchmarks.figures           # after a suite has run
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

from benchmarks.sections import suite_cells
from latentgym.evaluation.stats import wilson

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
    axes.grid(alpha=0.3)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    _save(figure, "latentseek.svg")


def _save(figure: Any, name: str) -> None:
    """Write a picture that is the same whenever its data are."""
    with matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(IMAGES / name, metadata={"Date": None})


if __name__ == "__main__":
    matplotlib.use("svg")
    latentseek_curve()
