"""`latentgym compare RUN RUN [...]`: what each run has gained over the first."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import tyro
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from latentgym.cli.options import emit, output, parse
from latentgym.cli.stored import stored_results
from latentgym.errors import UsageError
from latentgym.evaluation.aggregates import Aggregate, aggregate
from latentgym.evaluation.columns import COSTS, Run
from latentgym.evaluation.comparison import Comparison, compare, passes
from latentgym.system.console import Console
from latentgym.system.options.ranges import Size
from latentgym.system.terminal import shown

Tasks = dict[tuple[str, str], list[Run]]
"""The runs of each task and split, one for each seed that they answered under."""


@dataclass(frozen=True)
class CompareOptions:
    """Options of compare."""

    runs: tyro.conf.Positional[list[Path]]
    """Folders: of a result, or of the results of one agent under several seeds and on several
    tasks, as a suite has them. All are compared with the first."""
    pass_at: Size | None = None
    """Compare pass@K of the samples of each question, not the scores of the answers."""
    json: bool = False
    """Print one JSON line on stdout, and nothing else there."""


def main(argv: Sequence[str]) -> int:
    """Compare runs with the first of them."""
    about = "What each run has gained over the first, paired by question and seed."
    options = parse(CompareOptions, argv, "compare", about)
    first, *others = options.runs
    if not others:
        raise UsageError("compare needs two folders or more; name what the first is to meet.")
    base, console = _tasks(first), output(options.json)
    k = options.pass_at
    what, read = ("accuracy", None) if k is None else (f"pass@{k}", passes(k))
    told = []
    for folder in others:
        tasks = _tasks(folder)
        common = [task for task in tasks if task in base]
        if not common:
            raise UsageError(f"{folder} and {first} have no task in common; name runs of one task.")
        compared = {task: compare(tasks[task], base[task], str(first), read) for task in common}
        console.print(Text.assemble(shown(folder), " against ", shown(first)), style="bold")
        for task, comparison in compared.items():
            _print(" ".join(task), what, comparison, console)
        scores = [[[r.accuracy for _, r in of[task]] for task in common] for of in (tasks, base)]
        over = aggregate(scores[0], scores[1]) if len(common) > 1 and k is None else None
        if over is not None:
            _print_aggregate(over, len(common), console)
        console.print()
        told.append(
            {
                "run": str(folder),
                "against": str(first),
                "compared": what,
                "tasks": {" ".join(task): asdict(c) for task, c in compared.items()},
                **({} if over is None else {"aggregate": asdict(over)}),
            }
        )
    emit({"comparisons": told}, options.json)
    return 0


def _tasks(folder: Path) -> Tasks:
    """The results in a folder, by task and split.

    Raises:
        UsageError: there are none that can be read, or those of one task are not of one agent with
            one setting.
    """
    found = stored_results([folder])
    tasks: Tasks = {}
    for run in found:
        tasks.setdefault((run[1].task, run[1].split), []).append(run)
    for runs in tasks.values():
        kinds = {(r.agent, r.env, r.model, r.control) for _, r in runs}
        if len(kinds) > 1:
            several = " and ".join(
                " ".join(map(str, filter(None, kind))) for kind in sorted(kinds, key=str)
            )
            raise UsageError(f"{folder} has runs of several kinds ({several}); name one of them.")
    return tasks


def _print(task: str, what: str, c: Comparison, console: Console) -> None:
    console.print(shown(task), style="bold")
    console.print(_grid(_lines(what, c)))
    for caution in c.cautions:
        console.print(shown(f"warning: {caution}"), style="yellow")


def _lines(what: str, c: Comparison) -> Iterator[tuple[str, str]]:
    d, own, other = c.difference, 100 * c.accuracy, 100 * c.other_accuracy
    paired = f"{c.seeds} seed{'s' if c.seeds > 1 else ''}" if c.seeds else "seeds that differ"
    yield what, f"{own:.2f} %, against {other:.2f} %"
    interval = f"[{100 * d.low:+.2f}, {100 * d.high:+.2f}]"
    yield "difference", f"{100 * d.mean:+.2f} points {interval}, {c.n} shared questions, {paired}"
    yield "questions", f"{c.won} won, {c.lost} lost, {c.tied} tied; sign test p = {c.sign_p:.2g}"
    better = "answer" if what == "accuracy" else what
    yield "improvement", f"{c.improvement:.3f}: chance of the better {better}, a tie counts half"
    ratios = [
        f"{ratio:.3g} times the {COSTS[name].title}"
        for name, ratio in c.cost.items()
        if ratio is not None
    ]
    every = "" if what == "accuracy" else "; of all samples that were drawn"
    yield "cost", (", ".join(ratios) or "the other costs nothing") + every


def _print_aggregate(a: Aggregate, tasks: int, console: Console) -> None:
    def share(x: Sequence[float]) -> str:
        return f"{100 * x[0]:.2f} [{100 * x[1]:.2f}, {100 * x[2]:.2f}] %"

    chance, low, high = a.improvement
    profile = (f"{100 * t:.0f} %: {own:.2f}, {other:.2f}" for t, own, other in a.profile)
    rows = [
        ("IQM", f"{share(a.iqm)}, against {share(a.other_iqm)}"),
        ("mean", f"{share(a.mean)}, against {share(a.other_mean)}"),
        ("improvement", f"{chance:.3f} [{low:.3f}, {high:.3f}]: chance of the better run"),
        ("profile", f"share of runs above {'; '.join(profile)}"),
    ]
    console.print(shown(f"over {tasks} tasks"), style="bold")
    console.print(_grid(rows))


def _grid(rows: Iterable[tuple[str, str]]) -> Padding:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    for name, text in rows:
        table.add_row(name, shown(text))
    return Padding(table, (0, 0, 0, 2))
