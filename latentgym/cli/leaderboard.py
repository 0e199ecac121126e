"""`latentgym leaderboard`: results as a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Annotated, NamedTuple

import tyro
from rich.table import Table

from latentgym.cli.check import check
from latentgym.cli.exports import ExportOptions, write_exports
from latentgym.cli.options import emit, output, parse, say
from latentgym.cli.page import PageOptions
from latentgym.errors import UsageError
from latentgym.evaluation.results import Result, find_results
from latentgym.system.console import Console
from latentgym.system.terminal import shown

_RANKING = ("hr@5", "ndcg@5")  # shown where answers are rankings; accuracy is HR@1
_LEAST = 12  # characters of each name

UNSAVED = Path("(not saved)")
"""In the place of the folder of a result that is in none."""


@dataclass(frozen=True)
class LeaderboardOptions:
    """Options of the leaderboard."""

    folders: tyro.conf.Positional[list[Path]] = field(default_factory=lambda: [Path("runs")])
    """Folders with results, searched with all below."""
    page: Annotated[PageOptions, tyro.conf.arg(name="")] = field(default_factory=PageOptions)
    json: bool = False
    """Print one JSON line instead of the table."""
    exports: Annotated[ExportOptions, tyro.conf.arg(name="")] = field(default_factory=ExportOptions)


def main(argv: Sequence[str]) -> int:
    """Show all results in some folders; records that cannot be read are told and left out."""
    options = parse(LeaderboardOptions, argv, "leaderboard", "Table of results.")
    if options.exports.check:
        return check(options.folders, options.json)
    found = find_results(options.folders, lambda error: say(f"left out: {error}"))
    if not found:
        folders = ", ".join(map(str, options.folders))
        raise UsageError(f"no results in {folders}; run latentgym eval ... --out DIR first.")
    options.page.write(found)
    show(found, output(options.json))
    write_exports(found, options.exports)
    emit({"results": [vars(result) for _, result in found]}, options.json)
    return 0


Run = tuple[Path, Result]


def show(found: Sequence[Run], console: Console) -> None:
    """Print tables of runs, one for each task, split and source of questions, best first.

    Args:
        found: folder and record of each run.
        console: where to; columns that it is too narrow for are left out, the last ones first, and
            named below.
    """
    for questions, some in groupby(sorted(found, key=_order), key=lambda run: _questions(run[1])):
        runs = list(some)
        console.print(shown(questions, console.width), style="bold")
        table, left_out = _table(runs, console.width)
        console.print(table)
        for note in (*_notes(runs), *_narrow(left_out)):
            console.print(shown(note), style="dim")
        console.print()


def _order(run: Run) -> tuple[str, float]:
    return _questions(run[1]), -run[1].accuracy


def _questions(r: Result) -> str:
    return f"{r.task}, {r.split}, {r.source}"


class _Column(NamedTuple):
    name: str
    cells: list[str]

    @property
    def width(self) -> int:
        return max(map(len, (self.name, *self.cells)))


def _table(runs: Sequence[Run], width: int) -> tuple[Table, list[str]]:
    """The table, and the names of the columns for which there is no room."""
    results = [r for _, r in runs]
    names = [
        _Column("run", [_name(folder) for folder, _ in runs]),
        _Column("agent", [_agent(r) for r in results]),
        _Column("model", [r.model for r in results]),
    ]
    least = max(
        4, min(_LEAST, (width - 7) // len(names) - 1)
    )  # so that there is room for the share
    numbers, left = [], width - len(names) * (least + 1)
    left_out: list[str] = []

    def place(column: _Column) -> None:
        nonlocal left
        if left_out or column.width + 1 > left:
            left_out.append(column.name)
        else:
            left -= column.width + 1
            numbers.append(column)

    for column in _numbers(results):
        place(column)
    widths = []
    for column in names:  # the run's first
        more = min(max(0, column.width - least), max(0, left))
        left -= more
        widths.append(least + more)
    for column in _others(results):
        place(column)
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")
    for column in names:
        table.add_column(column.name, no_wrap=True)
    for column in numbers:
        table.add_column(column.name, justify="right", no_wrap=True)
    for row in range(len(runs)):
        cells = [shown(c.cells[row], most) for c, most in zip(names, widths, strict=True)]
        table.add_row(*cells, *(shown(c.cells[row]) for c in numbers))
    return table, left_out


def _name(folder: Path) -> str:
    return folder.name or folder.resolve().name or str(folder)


def _numbers(results: Sequence[Result]) -> Iterator[_Column]:
    """Columns of numbers that come before whole names, the most needed first."""

    def percent(share: float | None) -> str:
        return "" if share is None else f"{100 * share:.2f}"

    yield _Column("%", [percent(r.accuracy) for r in results])
    intervals = [[100 * bound for bound in r.accuracy_ci95] for r in results]
    yield _Column("[95 %]", [f"[{low:.1f}, {high:.1f}]" for low, high in intervals])
    yield _Column("n", [f"{r.n}" + (f" x{len(r.seeds)}" if r.seeds[1:] else "") for r in results])
    for name in _RANKING:
        if any(name in r.metrics for r in results):
            yield _Column(f"{name.upper()} %", [percent(r.metrics.get(name)) for r in results])
    yield _Column("GFLOP", [f"{r.flops_per_answer / 1e9:.3g}" for r in results])


def _others(results: Sequence[Result]) -> Iterator[_Column]:
    """Columns that come after whole names."""
    yield _Column("family", [r.family for r in results])
    yield _Column("thoughts", [f"{r.thoughts_mean:.1f}" for r in results])
    yield _Column("tokens", [f"{r.tokens_mean:.1f}" for r in results])
    yield _Column("answers/s", [f"{r.answers_per_s:.3g}" for r in results])


def _notes(runs: Sequence[Run]) -> Iterator[str]:
    if any(r.source == "sample" for _, r in runs):
        yield "sample: made-up questions in the place of the real data, so these are no results."
    asked = [(r.dataset_hash, r.n, tuple(r.index or ())) for _, r in runs]
    usual = Counter(asked).most_common(1)[0][0]
    others = [_name(folder) for (folder, _), key in zip(runs, asked, strict=True) if key != usual]
    if others:
        yield f"over other questions than the rest, so not to be compared: {', '.join(others)}."
    for folder, r in runs:
        if r.trained_on:
            yield f"{_name(folder)}: {r.trained_on} of {r.n} questions were trained on."
    if any(r.oracle for _, r in runs):
        yield "(oracle): looks at the gold answers to choose, so it is an upper bound."


def _narrow(left_out: Sequence[str]) -> Iterator[str]:
    if left_out:
        yield f"no room for {', '.join(left_out)}: set COLUMNS=120, or give --json"


def _agent(result: Result) -> str:
    marks = [*([result.control] if result.control else []), *(["oracle"] if result.oracle else [])]
    return f"{result.agent} ({', '.join(marks)})" if marks else result.agent
