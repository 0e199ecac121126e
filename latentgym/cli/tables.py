"""Tables of results for the terminal, one for each task, that fit its width.

The best without gold is bold, with those whose interval overlaps with its own. Under a method stand
its controls, as paired differences.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from rich.table import Table
from rich.text import Text

from latentgym.evaluation.columns import BY_NAME, Column, Run
from latentgym.evaluation.columns import shown as cell
from latentgym.evaluation.comparison import Difference, controls_of, methods_of
from latentgym.evaluation.fairness import cautions
from latentgym.evaluation.results import Result
from latentgym.evaluation.rows import asked, best, in_place, names, notes
from latentgym.system.console import Console
from latentgym.system.terminal import shown

UNSAVED = Path("(not saved)")
"""In the place of the folder of a result that is in none."""

NAMES = ("run", "agent", "model")
_NEEDED = ("accuracy", "interval", "n", "hr@5", "ndcg@5", "flops")
"""Columns of numbers that come before whole names, the most needed first."""
_OTHERS = ("thoughts", "tokens", "family", "answers_per_s")
"""Columns that come after whole names."""
_SPARED = ("family", "answers_per_s")  # which a table of several runs may do without
_MAYBE = ("hr@5", "ndcg@5", "paper")  # shown where a row has them
_TITLES = {
    "accuracy": "%",
    "interval": "[95 %]",
    "hr@5": "HR@5 %",
    "ndcg@5": "NDCG@5 %",
    "paper": "paper %",
}
_LEAST = 12  # characters of each name


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes:
        names: run, agent and model; of a control its name alone.
        numbers: text of each column.
        mark: of the notes that the row has.
        style: of the row.
    """

    names: Sequence[str]
    numbers: Mapping[str, str]
    mark: str = ""
    style: str = ""


def show(found: Sequence[Run], console: Console, sort: str = "accuracy") -> None:
    """Print tables of runs, one for each task, split and source of questions.

    Args:
        found: folder and record of each run.
        console: where to; columns that it is too narrow for are left out, the last ones first, and
            named at the end. Of a single run they stand below it.
        sort: name of the column by which rows are sorted: shares from the largest, other numbers
            from the smallest.
    """
    named, warned, controls = names(found), cautions(found), controls_of(found)
    replaced = {folder for folder, of in methods_of(found).items() if of in controls}
    left_out = dict[str, None]()
    for questions, some in groupby(sorted(found, key=in_place), key=asked):
        runs = sorted(some, key=lambda run: _rank(BY_NAME[sort], run))
        models = {r.model for _, r in runs}
        top = best(runs)
        unlike = list(dict.fromkeys(note for folder, _ in runs for note in warned[folder]))
        rows = []
        for folder, r in runs:
            if folder in replaced:
                continue
            mark = "".join(f" [{unlike.index(note) + 1}]" for note in warned[folder])
            own = [named[folder], _agent(r), r.model]
            style = "bold" if folder in top else ""
            rows.append(Row(own, _numbers((folder, r)), mark, style))
            rows += map(control, controls.get(folder, ()))
        several = len(models) > 1
        heading = ", ".join(questions) if several else f"{', '.join(questions)}; {min(models)}"
        console.print(shown(heading, console.width), style="bold")
        made, narrow = table(rows, console.width, NAMES if several else NAMES[:-1])
        console.print(made)
        if len(rows) == 1:
            cells = ((name, rows[0].numbers.get(name)) for name in narrow)
            below = ", ".join(f"{_title(name)} {text}" for name, text in cells if text)
            sampled = [*_sampled(runs[0][1])]
            for line in filter(None, (below, ", ".join(sampled))):
                console.print(shown(line), style="dim")
        else:
            left_out |= dict.fromkeys(name for name in narrow if name not in _SPARED)
        said = [*(f"[{i}] {note}" for i, note in enumerate(unlike, start=1)), *notes(runs, named)]
        for note in said:
            console.print(shown(note), style="dim")
        console.print()
    tell_narrow(left_out, console)


def _sampled(r: Result) -> Iterator[str]:
    """What several samples of each question hold, of a result that has them."""
    for name, value in r.metrics.items():
        if name.startswith("pass@") and value is not None:
            yield f"{name} {100 * value:.2f} %"
    for kind in ("answers", "texts"):
        if (share := r.metrics.get(f"samples/different_{kind}")) is not None:
            yield f"{100 * share:.1f} % of the {kind} differ"


def tell_narrow(left_out: Iterable[str], console: Console) -> None:
    """Name the columns for which there was no room, if any."""
    if names := ", ".join(map(_title, left_out)):
        note = f"no room for {names}: set COLUMNS=120, or give --json"
        console.print(shown(note), style="dim")


def _rank(column: Column, run: Run) -> tuple[bool, float, str]:
    """Where a run stands; what has no value comes last."""
    value = column.value(run)
    if column.kind == "text":
        return value is None, 0.0, str(value)
    number = 0.0 if value is None else float(value)
    return value is None, -number if column.kind == "share" else number, ""


def _numbers(run: Run) -> dict[str, str]:
    """A run's cells by column; what it has nothing to say to is empty."""
    r = run[1]
    low, high = (100 * bound for bound in r.accuracy_ci95)
    several = f" x{len(r.seeds)}" if r.seeds[1:] else ""
    return {
        **{name: cell(BY_NAME[name], run) for name in (*_NEEDED, *_OTHERS) if name in BY_NAME},
        "interval": f"[{low:.1f}, {high:.1f}]",
        "n": f"{r.n}{several}",
    }


def control(d: Difference) -> Row:
    """A control under its method: what replacing the thoughts has added, in points."""
    low, high = 100 * d.low, 100 * d.high
    numbers = {"accuracy": f"{100 * d.mean:+.2f}", "interval": f"[{low:+.1f}, {high:+.1f}]"}
    return Row([f"  with {d.name}", "", ""], numbers, style="dim")


def table(
    rows: Sequence[Row],
    width: int,
    names: Sequence[str] = NAMES,
    needed: Sequence[str] = _NEEDED,
    others: Sequence[str] = _OTHERS,
) -> tuple[Table, list[str]]:
    """Rows as a table, and the columns for which there is no room.

    Args:
        rows: of the table.
        width: that it has, in characters.
        names: titles of the first columns, which are cut where there is no room.
        needed: columns of numbers that come before whole names, the most needed first.
        others: columns of numbers that come after whole names.
    """
    # So that there is room for the share.
    least = max(4, min(_LEAST, (width - 7) // len(names) - 1))
    chosen, left_out = list[str](), list[str]()
    left = width - len(names) * (least + 1)

    def place(column: str) -> None:
        nonlocal left
        size = max(len(_title(column)), *(len(row.numbers.get(column, "")) for row in rows))
        if left_out or size + 1 > left:
            left_out.append(column)
        else:
            left -= size + 1
            chosen.append(column)

    def given(columns: Sequence[str]) -> Iterator[str]:
        for column in columns:
            if column not in _MAYBE or any(row.numbers.get(column) for row in rows):
                yield column

    for column in given(needed):
        place(column)
    widths = []
    for i, name in enumerate(names):  # the run's first
        longest = max(len(name), *(len(row.names[i]) + len(row.mark) * (i == 0) for row in rows))
        more = min(max(0, longest - least), max(0, left))
        left -= more
        widths.append(least + more)
    for column in given(others):
        place(column)
    made = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")
    for name in names:
        made.add_column(name, no_wrap=True)
    for column in chosen:
        made.add_column(_title(column), justify="right", no_wrap=True)
    for row in rows:
        first, *cut = zip(row.names, widths, strict=False)
        run = shown(first[0], first[1] - len(row.mark))
        if row.style == "dim":
            run = Text("  ") + run
        cells = [run + Text(row.mark), *(shown(text, most) for text, most in cut)]
        numbers = [shown(row.numbers.get(column, "")) for column in chosen]
        made.add_row(*cells, *numbers, style=row.style)
    return made, left_out


def _title(column: str) -> str:
    return _TITLES.get(column) or BY_NAME[column].title


def _agent(result: Result) -> str:
    marks = [*([result.control] if result.control else []), *(["oracle"] if result.oracle else [])]
    return f"{result.agent} ({', '.join(marks)})" if marks else result.agent
