"""Tables of results as files: CSV, Markdown, and the hub's list of a model's results.

Names in records are whoever's. Each format takes them as text: what it would read as its own syntax
is escaped, and control characters are replaced.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from datetime import date
from importlib import import_module
from typing import Any

from latentgym.data import DATASETS
from latentgym.errors import UsageError
from latentgym.evaluation.columns import (
    BY_NAME,
    COLUMNS,
    Column,
    Run,
    Value,
    run_name,
    short,
    shown,
)
from latentgym.evaluation.results import Result
from latentgym.evaluation.rows import in_place
from latentgym.system.terminal import line

_PRINTED = (
    *("run", "agent", "model", "task", "source", "control", "accuracy", "n", "seeds", "flops"),
    *("latent_share", "thoughts", "tokens", "malformed", "truncated"),
)
# Of a table that people read. Those of the rest are in the CSV.
_ALWAYS = ("run", "agent", "model", "task", "accuracy", "n")
_FORMULA = ("=", "+", "-", "@")  # what a spreadsheet would compute
_MARKDOWN = re.compile(r"([\\`*_\[\]<>|~&#!])")


def in_order(found: Iterable[Run]) -> list[Run]:
    """Runs by task, split and source, the best first: the same runs give the same files."""
    return sorted(found, key=lambda run: (in_place(run), -run[1].accuracy, run[0]))


def csv_text(found: Sequence[Run]) -> str:
    """All columns of all runs: shares in [0, 1], numbers in full, flags as 0 and 1."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([column.name for column in COLUMNS])
    for run in in_order(found):
        writer.writerow([plain(column.value(run)) for column in COLUMNS])
    return file.getvalue()


def plain(value: Value) -> str | float | int | None:
    """A value as a file for spreadsheets has it: a flag as a number, no text as a formula."""
    if isinstance(value, bool):
        return int(value)
    if not isinstance(value, str):
        return value
    text = line(value)
    # Behind an apostrophe a spreadsheet takes it as text.
    return f"'{text}" if len(text) > 1 and text.startswith(_FORMULA) else text


def markdown_text(found: Sequence[Run], columns: Sequence[str] = ()) -> str:
    """A table for a README, an issue or a page.

    Args:
        found: folder and record of each run.
        columns: their names; none for those that people read.
    """
    chosen = [BY_NAME[name] for name in columns] or _chosen(found)

    def escaped(text: str) -> str:
        return _MARKDOWN.sub(r"\\\1", line(text))

    lines = [
        [escaped(heading(column)) for column in chosen],
        ["---" if column.kind == "text" else "---:" for column in chosen],
        *([escaped(cell(column, run)) for column in chosen] for run in in_order(found)),
    ]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _chosen(found: Sequence[Run]) -> list[Column]:
    """The columns of a printed table: those that say something of some run."""
    columns = [BY_NAME[name] for name in _PRINTED]
    return [c for c in columns if c.name in _ALWAYS or any(shown(c, run) for run in found)]


def heading(column: Column) -> str:
    """What stands above a column, with its unit."""
    return f"{column.title} %" if column.kind == "share" else column.title


def cell(column: Column, run: Run) -> str:
    """A cell for people, with what must stand beside it."""
    text = shown(column, run)
    if column.name == "accuracy":
        low, high = (100 * bound for bound in run[1].accuracy_ci95)
        return f"{text} ({low:.1f} to {high:.1f})"
    return f"{text} (oracle)" if column.name == "agent" and run[1].oracle else text


def hub_text(found: Sequence[Run], source_url: str | None) -> tuple[str, list[str]]:
    """What a model's repository on the Hugging Face hub has in `.eval_results/`.

    Values are accuracies in per cent. The format has no place for intervals, seeds and costs, so
    they stand in the notes, and a page that has them should be given as the source.

    Args:
        found: runs of one model.
        source_url: of the page to which the hub links; None for none.

    Returns:
        The YAML, and for each run that is left out its name and why.

    Raises:
        UsageError: the runs are of several models, or none of them belongs on the hub.
    """
    models = sorted({line(r.model) for _, r in found})
    if len(models) > 1:
        raise UsageError(
            f"the hub keeps results with their model, but these are of {', '.join(models[:5])}; "
            "give the folders of one model."
        )
    entries, left_out = [], []
    for folder, result in in_order(found):
        why = _unfit(result)
        if why:
            left_out.append(f"{run_name(folder)} {why}")
        else:
            entries.append(_entry(result, source_url))
    if not entries:
        raise UsageError(f"no run belongs on the hub: {'; '.join(left_out[:5])}.")
    yaml: Any = import_module("yaml")
    return str(yaml.safe_dump(entries, sort_keys=False)), left_out


def _unfit(r: Result) -> str:
    """Why a run is no result of a model on a data set of the hub; empty if it is."""
    spec = DATASETS.get(r.task)
    if spec is None or spec.hub is None:
        return f"asks {line(r.task)}, which is no data set of the hub"
    if r.source == "sample":
        return "asks made-up questions"
    if r.oracle:
        return "chooses by the gold answers"
    return f"is a control ({line(r.control)})" if r.control else ""


def _entry(r: Result, source_url: str | None) -> dict[str, Any]:
    spec = DATASETS[r.task].hub
    assert spec is not None  # or it is unfit
    low, high = (100 * bound for bound in r.accuracy_ci95)
    notes = [
        f"{line(r.agent)} ({line(r.family)} thoughts)",
        f"{line(r.split)}, {r.n} questions, {len(r.seeds)} seeds",
        f"95 % interval {low:.2f} to {high:.2f}",
        f"{short(r.flops_per_answer)} FLOP an answer",
        *(["checkpoint of a training run"] if r.checkpoint else []),
    ]
    entry: dict[str, Any] = {
        "dataset": {"id": spec.repo, "task_id": spec.config or spec.repo.partition("/")[2]},
        "value": round(100 * r.accuracy, 4),
        **({"date": day} if (day := _day(r.created)) else {}),
        "notes": "; ".join(notes),
    }
    if source_url is not None:
        entry["source"] = {"url": source_url, "name": "latentgym"}
    return entry


def _day(created: str) -> str:
    try:
        return date.fromisoformat(created[:10]).isoformat()
    except ValueError:  # of a record that somebody else wrote
        return ""
