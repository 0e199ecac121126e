"""What docs/analysis-outliers.md shows of the record: blocks and optimisers, and a collapse."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

from benchmarks.sections import RECORDS, table
from latentgym.analysis.outliers import DEFINITIONS

Run = dict[str, Any]


def record(part: str) -> dict[str, Any]:
    """A part of the record."""
    found: dict[str, Any] = json.loads((RECORDS / "outliers.json").read_text())[part]
    return found


def spread(values: Iterable[float], digits: int = 2) -> str:
    """Mean over seeds, least and greatest."""
    numbers = list(values)
    mean = sum(numbers) / len(numbers)
    return f"{mean:.{digits}f} [{min(numbers):.{digits}f}, {max(numbers):.{digits}f}]"


def definitions() -> str:
    """The definitions as every record of an analysis has them."""
    return table(["name", "meaning"], [[f"`{k}`", v] for k, v in DEFINITIONS.items()])


def blocks() -> str:
    """Loss, kurtosis, and what rounding costs, by cell."""
    columns: dict[str, Callable[[Run], float]] = {
        "largest kurtosis": lambda run: max(run["all"]["kurtosis"]),
        "with first positions": lambda run: max(run["with_first"]["kurtosis"]),
        "max over median": lambda run: max(run["all"]["max_median_ratio"]),
        "signal, last": lambda run: run["all"]["signal_mean"][-1],
    }
    data = record("blocks")
    rows = []
    for name, cell in data["cells"].items():
        runs = cell["runs"]
        rows.append(
            [
                name,
                spread((run["loss"] for run in runs), 4),
                *(spread(map(column, runs)) for column in columns.values()),
                *(
                    spread((run[f"loss_int{bits}"] - run["loss"] for run in runs), 4)
                    for bits in (8, 6, 4)
                ),
            ]
        )
    sizes = {cell["model"]: cell["runs"][0]["parameters"] for cell in data["cells"].values()}
    about = ", ".join(f"`{model}` ({count:,} parameters)" for model, count in sizes.items())
    seeds = len(data["cells"]["pre-norm, AdamW"]["runs"])
    header = ["cell", "loss", *columns, "int8: + loss", "int6: + loss", "int4: + loss"]
    return (
        f"{about}; {data['steps']} steps, {seeds} seeds: mean [least, greatest]. Loss in nats per "
        f"token over {data['questions']} questions of the test split, the rest over the first "
        f"{data['sequences']} of them.\n\n" + table(header, rows)
    )


def collapse() -> str:
    """First and last look, by rate."""
    data = record("collapse")
    shown = {
        "reward/correct": "right",
        "train/entropy": "entropy",
        "latent/norm": "norm",
        "latent/kurtosis": "kurtosis",
        "latent/nearest": "nearest",
        "outlier/most/kurtosis": "kurtosis of states",
        "outlier/last/signal": "signal, last",
    }
    keys = data["keys"]
    rows = []
    for name, cell in data["cells"].items():
        for when, at in (("first", 0), ("last", -1)):
            looks = [run["course"][at] for run in cell["runs"]]
            numbers = [spread(look[keys.index(key)] for look in looks) for key in shown]
            rows.append([f"{name} ({cell['lr']:g}), {when} look", *numbers])
    return table(["learning rate", *shown.values()], rows)


SECTIONS = {
    "outlier-definitions": definitions,
    "outlier-blocks": blocks,
    "outlier-collapse": collapse,
}
