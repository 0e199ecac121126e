"""The tables of a suite: its figures beside the paper's, and its methods at equal cost."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from rich.table import Table

from latentgym.cli.tables import Row, control, table, tell_narrow
from latentgym.evaluation.columns import COSTS, Run
from latentgym.evaluation.comparison import Difference, compare
from latentgym.evaluation.equal_cost import at_cost, equal_costs
from latentgym.evaluation.fairness import cautions
from latentgym.evaluation.results import accuracy_interval
from latentgym.evaluation.suites.cells import Cell, results_of
from latentgym.evaluation.suites.costs import curves
from latentgym.system.console import Console
from latentgym.system.terminal import shown

_FIGURES = ("accuracy", "interval", "paper", "n", "flops")
_COUNTED = ("flops", "positions")


def show_figures(cells: Sequence[Cell], out: Path, console: Console) -> None:
    """A table for each part: means over seeds, the paper's figures, controls under their method."""
    found = {cell.name: results_of([cell], out) for cell in cells}
    warned = cautions([run for runs in found.values() for run in runs])
    controls: dict[str, list[Difference]] = {}
    for cell in cells:
        if cell.of is not None and found[cell.name] and found.get(cell.of):
            of, name = found[cell.of], cell.argv[-1]
            controls.setdefault(cell.of, []).append(compare(found[cell.name], of, name).difference)
    left_out = dict[str, None]()
    for part in dict.fromkeys(cell.part for cell in cells):
        shown_cells = [
            cell
            for cell in cells
            if cell.part == part and found[cell.name] and cell.of not in controls
        ]
        if not shown_cells:
            continue
        notes = list(
            dict.fromkeys(n for c in shown_cells for f, _ in found[c.name] for n in warned[f])
        )
        rows = []
        for cell in shown_cells:
            own = {note for folder, _ in found[cell.name] for note in warned[folder]}
            mark = "".join(f" [{i}]" for i, note in enumerate(notes, start=1) if note in own)
            rows.append(Row([cell.name], _numbers(cell, found[cell.name]), mark))
            rows += map(control, controls.get(cell.name, ()))
        made, narrow = table(rows, console.width, ["cell"], _FIGURES, ())
        left_out |= dict.fromkeys(narrow)
        console.print(shown(part), style="bold")
        console.print(made)
        for number, note in enumerate(notes, start=1):
            console.print(shown(f"[{number}] {note}"), style="dim")
        console.print()
    tell_narrow(left_out, console)


def _numbers(cell: Cell, runs: Sequence[Run]) -> dict[str, str]:
    """Mean and interval over seeds, which is never narrower than that over questions."""
    results = [r for _, r in runs]
    mean, low, high = accuracy_interval(results)
    seeds = f" x{len(results)}" if results[1:] else ""
    return {
        "accuracy": f"{100 * mean:.2f}",
        "interval": f"[{100 * low:.1f}, {100 * high:.1f}]",
        "paper": "" if cell.paper is None else f"{cell.paper:.2f}",
        "n": f"{results[0].n}{seeds}",
        "flops": f"{sum(r.flops_per_answer for r in results) / len(results):.3g}",
    }


def show_equal_costs(cells: Sequence[Cell], out: Path, console: Console) -> None:
    """Tables of methods at equal cost, for each task that has one with a knob."""

    def env(cell: Cell) -> str:
        return cell.argv[2].rpartition("/")[2].rpartition("-")[0]

    plain = [cell for cell in cells if "--control" not in cell.argv]
    for task, some in groupby(sorted(plain, key=env), key=env):
        own = list(some)
        if not any(cell.knob for cell in own):
            continue
        for cost in _COUNTED:
            found = curves(own, out, cost)
            costs = equal_costs(found)
            if not costs:
                continue
            read = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")
            read.add_column("", no_wrap=True)
            for each in costs:
                read.add_column(f"{each:.2g}", justify="right", no_wrap=True)
            for name, curve in found.items():
                values = [at_cost(curve, each) for each in costs]
                if any(value is not None for value in values):
                    texts = ["" if v is None else f"{100 * v:.1f}" for v in values]
                    read.add_row(shown(name, 30), *texts)
            console.print(
                shown(f"{task}: accuracy % at equal {COSTS[cost].title} an answer"), style="bold"
            )
            console.print(read)
            console.print()
    if any(cell.knob for cell in plain):
        console.print(
            "Between measured costs a curve is straight in the cost's logarithm; beyond them it is "
            "empty.",
            style="dim",
        )
