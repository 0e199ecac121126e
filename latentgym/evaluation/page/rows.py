"""The table of the page: a row for each run, and what is told beside its figures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from latentgym.evaluation.columns import BY_NAME, COLUMNS, Column, Run, shown
from latentgym.evaluation.comparison import Difference, Scores, controls_of
from latentgym.evaluation.fairness import cautions
from latentgym.evaluation.results import Result
from latentgym.evaluation.rows import asked, best, in_place, names, notes

_FIRST = ("run", "agent", "accuracy", "controls")
_SHOWN = (*_FIRST, "task", "model", "n", "flops", "thoughts", "tokens", "malformed")
_FILTERED = ("task", "family", "model", "agent", "control", "trained", "source")
_BOLD = "Bold: the best on its task without gold, and those whose intervals reach its own."
_CONTROLS = Column(
    "controls",
    "controls",
    "change of accuracy under the control, paired by question: percentage points",
    "text",
    lambda run: None,
)


class Tag(NamedTuple):
    """A short word beside a cell, what it means, and whether it warns."""

    text: str
    about: str
    kind: str = ""


@dataclass
class Cell:
    """A cell of the table.

    Attributes:
        text: in it.
        order: what the column sorts by in its place.
        align: its classes.
        run: whether it opens the run.
        tags, under: what stands beside and below the text.
    """

    text: str
    order: float | None = None
    align: str = ""
    run: bool = False
    tags: list[Tag] = field(default_factory=list)
    under: list[str] = field(default_factory=list)


class Table(NamedTuple):
    """The table of some runs.

    Attributes:
        names: of the runs, by folder, which no two have in common.
        runs: in the order of the rows: by task, the best first.
        rows: the cells of each run.
        headings: name, title, meaning and looks of each column.
        filters: columns that rows are chosen by, with the values in them.
        notes: what to know before comparing.
    """

    names: dict[Path, str]
    runs: list[Run]
    rows: list[list[Cell]]
    headings: list[dict[str, Any]]
    filters: list[dict[str, Any]]
    notes: list[str]


def table(found: Sequence[Run], scores: Callable[[Run], Scores]) -> Table:
    """The table of some runs.

    Args:
        found: folder and record of each run.
        scores: of a run.
    """
    runs = sorted(found, key=lambda run: (in_place(run), -run[1].accuracy, str(run[0])))
    named, controls, odd = names(runs), controls_of(runs, scores), cautions(runs)
    columns = _ordered([*COLUMNS, *([_CONTROLS] if controls else [])])
    top = {folder for _, some in groupby(runs, key=asked) for folder in best(list(some))}
    rows = [
        [
            _cell(run, column, named[run[0]], top, controls.get(run[0], ()), odd.get(run[0], ()))
            for column in columns
        ]
        for run in runs
    ]
    headings = [_heading(column) for column in columns]
    told = [*([_BOLD] if top else []), *notes(runs, named), *_unlike(named, odd)]
    return Table(named, runs, rows, headings, list(_filters(runs)), told)


def _ordered(columns: Sequence[Column]) -> list[Column]:
    """The columns of the page: first those that a small screen has room for."""
    rank = {name: place for place, name in enumerate(_FIRST)}
    kept = [column for column in columns if column.name not in ("low", "high")]
    return sorted(kept, key=lambda column: rank.get(column.name, len(rank)))


def _heading(column: Column) -> dict[str, Any]:
    title = {"latent_share": "latent"}.get(column.name, column.title)
    return {
        "name": column.name,
        "title": f"{title} %" if column.kind == "share" else title,
        "about": column.about,
        "shown": column.name in _SHOWN,
        "align": _align(column),
    }


def _align(column: Column) -> str:
    return "" if column.kind in ("text", "flag") else "number"


def _cell(
    run: Run,
    column: Column,
    name: str,
    top: set[Path],
    controls: Sequence[Difference],
    odd: Sequence[str],
) -> Cell:
    folder, r = run
    value, align = column.value(run), _align(column)
    number = float(value) if align and isinstance(value, int | float) else None
    missing = -1.0 if align else None  # below all numbers
    cell = Cell(shown(column, run), missing if number is None else number, align)
    if column.name == "run":
        cell.text, cell.run, cell.tags = name, True, list(_tags(r, odd))
    elif column.name == "agent" and r.control:
        cell.tags = [Tag(r.control, "what replaced the thoughts: a control")]
    elif column.name == "accuracy":
        low, high = r.accuracy_ci95
        cell.under = [f"[{100 * low:.1f}, {100 * high:.1f}]"]
        cell.align += " best" if folder in top else ""
    elif column.name == "controls":
        cell.under = [
            f"{c.name} {100 * c.mean:+.1f} [{100 * c.low:+.1f}, {100 * c.high:+.1f}]"
            for c in controls
        ]
    elif column.name == "n" and len(r.seeds) > 1:
        cell.text += f" x{len(r.seeds)}"
    elif column.name in ("malformed", "truncated") and number is not None:
        of = r.n * len(r.seeds)
        cell.under = [f"{round(number * of)} of {of}"]
    return cell


def _tags(r: Result, odd: Sequence[str]) -> Iterator[Tag]:
    if r.source == "sample":
        yield Tag("sample", "made-up questions in the place of real data: no result", "warn")
    if r.oracle:
        yield Tag("oracle", "gold answers took part in choosing: an upper bound", "warn")
    if r.trained_on:
        yield Tag(f"trained on {r.trained_on} of {r.n}", "questions that training saw", "warn")
    if odd:
        yield Tag("not comparable", "; ".join(odd), "warn")


def _unlike(named: Mapping[Path, str], odd: Mapping[Path, Sequence[str]]) -> Iterator[str]:
    for folder, told in odd.items():
        if told:
            yield f"{named[folder]} is not comparable with the rest: {'; '.join(told)}."


def _filters(runs: Sequence[Run]) -> Iterator[dict[str, Any]]:
    for name in _FILTERED:
        choices = sorted({values(run)[name] for run in runs})
        if len(choices) > 1:
            yield {"name": name, "title": BY_NAME[name].title, "choices": choices}


def values(run: Run) -> dict[str, str]:
    """What rows are chosen by, of a run."""
    return {name: _word(BY_NAME[name].value(run)) for name in _FILTERED}


def _word(value: Any) -> str:
    return "no" if value in (None, False) else "yes" if value is True else str(value)
