"""The page of results: one HTML file that holds all of its data and asks no network.

`page.html.jinja` is its frame, `page.css` its looks and `page.js` what moves; the table is
DataTables', as the package `itables` brings it. Texts of models and users are escaped by the
template or become text nodes. The same results give the same bytes.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from itertools import groupby
from pathlib import Path
from typing import Any

import latentgym
from latentgym.errors import UsageError
from latentgym.evaluation.columns import BY_NAME, COLUMNS, Run, shown
from latentgym.evaluation.page import plots
from latentgym.evaluation.page.answers import answers, curves
from latentgym.storage import atomic_write, finite, writable

_HERE = resources.files(__package__)
_SHOWN = (
    *("run", "agent", "model", "task", "accuracy", "n", "flops", "positions", "latent_share"),
    *("thoughts", "tokens", "malformed", "truncated"),
)
_FILTERS = ("task", "family", "model", "agent", "control", "trained", "source")
_ALIGN = {"text": "", "flag": ""}
MOST_ANSWERS = 100
"""Answers of each run that a page has unless told otherwise."""


@dataclass(frozen=True)
class _Tag:
    """A short word beside a cell, and what it means."""

    text: str
    about: str
    kind: str = ""


@dataclass
class _Cell:
    text: str
    order: float | str | None = None
    align: str = ""
    run: bool = False
    tags: list[_Tag] = field(default_factory=list)
    under: list[str] = field(default_factory=list)


@dataclass
class _Row:
    id: str
    cells: list[_Cell]
    curves: list[plots.Plot]


def write_page(
    found: Sequence[Run],
    path: Path,
    *,
    title: str = "Latent reasoning: results",
    most_answers: int = MOST_ANSWERS,
    plots_folder: Path | None = None,
) -> None:
    """Write the page of some runs.

    Args:
        found: folder and record of each run.
        path: of the page.
        title: of the page.
        most_answers: of each run that the page has, the first ones.
        plots_folder: where the pictures go as files too, SVG and PNG; None for nowhere.

    Raises:
        UsageError: nothing was found, jinja2, itables or matplotlib is missing, a record's files
            are damaged, or something cannot be written.
    """
    if not found:
        raise UsageError("a page needs at least one run; run latentgym eval ... --out DIR first.")
    text, drawn = page(found, title=title, most_answers=most_answers)
    with writable(path.parent, "choose another file"):
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as partial:
            partial.write_text(text, encoding="utf-8")
    if plots_folder is not None:
        with writable(plots_folder, "choose another folder"):
            plots_folder.mkdir(parents=True, exist_ok=True)
            for plot in drawn:
                for kind in ("svg", "png"):
                    with atomic_write(plots_folder / f"{_file_name(plot.name)}.{kind}") as partial:
                        partial.write_bytes(plot.file(kind))


def page(found: Sequence[Run], *, title: str, most_answers: int) -> tuple[str, list[plots.Plot]]:
    """The page as text, and its pictures of tasks."""
    environment, library = _libraries()
    runs = sorted(found, key=lambda run: (_asked(run), -run[1].accuracy, str(run[0])))
    named = names(runs)
    best = _best(runs)
    drawn = [
        plot
        for task, some in groupby(runs, key=_asked)
        for plot in plots.of_task(", ".join(task[:2]), list(some), named, {})
    ]
    rows, told = [], []
    blocks: list[dict[str, str]] = []
    for run in runs:
        name = named[run[0]]
        given = answers(run[0], most_answers)
        rows.append(
            _Row(name, list(_cells(run, name, best)), plots.of_training(name, curves(run[0])))
        )
        block = f"answers-{len(blocks)}" if given else None
        if block:
            blocks.append({"id": block, "content": _packed(json.dumps(given))})
        told.append(_told(run, name, block, len(given)))
    text = environment.get_template("page.html.jinja").render(
        title=title,
        rows=rows,
        runs=told,
        blocks=blocks,
        plots=drawn,
        notes=list(_notes(runs)),
        tasks=sorted({run[1].task for run in runs}),
        columns=[_heading(column.name) for column in _columns()],
        filters=list(_filters(runs)),
        version=latentgym.__version__,
        css=(_HERE / "page.css").read_text("utf-8"),
        js=(_HERE / "page.js").read_text("utf-8"),
        **library,
    )
    return text, drawn


def _libraries() -> tuple[Any, dict[str, str]]:
    """The environment of the template, and DataTables.

    Raises:
        UsageError: one of them is missing.
    """
    try:
        import jinja2

        bundle = resources.files("itables") / "html"
    except ModuleNotFoundError as error:
        raise UsageError(f"pages need {error.name}; pip install 'latentgym[page]'.") from error
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: (_HERE / name).read_text("utf-8")),
        autoescape=True,
        trim_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    css = (bundle / "dt_bundle.css").read_text("utf-8")
    if "</style" in css.lower():
        raise UsageError("this itables cannot be put on a page; pip install 'latentgym[page]'.")
    return environment, {
        "library_css": css,
        "library_js": _packed((bundle / "dt_bundle.js").read_text("utf-8")),
    }


def _packed(text: str) -> str:
    """A text compressed, as letters that no page takes for markup; always the same."""
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode("ascii")


def _asked(run: Run) -> tuple[str, str, str]:
    r = run[1]
    return r.task, r.split, r.source


def names(runs: Sequence[Run]) -> dict[Path, str]:
    """A name of each run that no other has: its folder's, with as many above it as that takes."""
    parts = {folder: folder.resolve().parts for folder, _ in runs}
    found: dict[Path, str] = {}
    for folder, own in parts.items():
        alike = [other for other in parts.values() if other[-1] == own[-1] and other != own]
        depth = next(
            (k for k in range(1, len(own)) if all(o[-k:] != own[-k:] for o in alike)), len(own)
        )
        found[folder] = "/".join(own[-depth:])
    return found


def _file_name(name: str) -> str:
    """A name as that of a file."""
    return "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in name)


def _columns() -> list[Any]:
    return [column for column in COLUMNS if column.name not in ("low", "high")]


def _heading(name: str) -> dict[str, Any]:
    column = BY_NAME[name]
    title = {"accuracy": "accuracy %", "latent_share": "latent %"}.get(name, column.title)
    if column.kind == "share" and not title.endswith("%"):
        title += " %"
    return {
        "name": name,
        "title": title,
        "about": column.about,
        "shown": name in _SHOWN,
        "align": _ALIGN.get(column.kind, "number"),
    }


def _best(runs: Sequence[Run]) -> set[Path]:
    """The best run on each task without looking at gold, and those whose interval reaches it."""
    found: set[Path] = set()
    for _, group in groupby(runs, key=_asked):
        own = [run for run in group if run[1].control is None and not run[1].oracle]
        if own:
            top = max(own, key=lambda run: run[1].accuracy)
            found |= {f for f, r in own if r.accuracy_ci95[1] >= top[1].accuracy_ci95[0]}
    return found


def _cells(run: Run, name: str, best: set[Path]) -> Iterator[_Cell]:
    folder, r = run
    for column in _columns():
        value = column.value(run)
        cell = _Cell(
            name if column.name == "run" else shown(column, run),
            order=value if isinstance(value, int | float) and not isinstance(value, bool) else None,
            align=_ALIGN.get(column.kind, "number"),
            run=column.name == "run",
        )
        if column.kind in ("share", "count", "number") and value is None:
            cell.order = -1.0  # below all numbers
        if column.name == "run":
            cell.tags = list(_tags(r))
        if column.name == "agent" and r.control:
            cell.tags = [_Tag(r.control, "what replaced the thoughts: a control")]
        if column.name == "accuracy":
            low, high = r.accuracy_ci95
            cell.under = [f"[{100 * low:.1f}, {100 * high:.1f}]"]
            if folder in best:
                cell.align += " best"
        if column.name == "n" and len(r.seeds) > 1:
            cell.text += f" x{len(r.seeds)}"
        if column.name in ("malformed", "truncated") and value is not None:
            of = r.n * len(r.seeds)
            cell.under = [f"{round(float(value) * of)} of {of}"]
        yield cell


def _tags(r: Any) -> Iterator[_Tag]:
    if r.source == "sample":
        yield _Tag("sample", "made-up questions in the place of real data: no result", "warn")
    if r.oracle:
        yield _Tag("oracle", "gold answers took part in choosing: an upper bound", "warn")
    if r.trained_on:
        yield _Tag(f"trained on {r.trained_on} of {r.n}", "questions that training saw", "warn")


def _notes(runs: Sequence[Run]) -> Iterator[str]:
    if any(r.source == "sample" for _, r in runs):
        yield "sample: made-up questions in the place of the real data, so these are no results."
    if any(r.oracle for _, r in runs):
        yield "oracle: gold answers took part in choosing among attempts, so it is an upper bound."
    yield "Bold: the best on its task without gold, and those whose intervals overlap with its own."


def _filters(runs: Sequence[Run]) -> Iterator[dict[str, Any]]:
    for name in _FILTERS:
        values = sorted({_filter_value(BY_NAME[name].value(run)) for run in runs})
        if len(values) > 1:
            yield {"name": name, "title": BY_NAME[name].title, "choices": values}


def _filter_value(value: Any) -> str:
    return "no" if value in (None, False) else "yes" if value is True else str(value)


def _told(run: Run, name: str, block: str | None, given: int) -> dict[str, Any]:
    """What the page's script knows of a run."""
    r = run[1]
    of = r.n * len(r.seeds)
    label = r.agent if not r.control else f"{r.agent}, {r.control}"
    return {
        "id": name,
        "label": f"{label}; {r.model}",
        "questions": f"{r.task} {r.split} {r.dataset_hash}",
        "seeds": r.seeds,
        "answers": block,
        "left_out": max(0, of - given) if block else 0,
        "command": getattr(r, "command", "") or "",
        "settings": list(_settings(r)),
        "values": {c.name: finite({"v": c.value(run)})["v"] for c in COLUMNS},
        **{name: _filter_value(BY_NAME[name].value(run)) for name in _FILTERS},
    }


def _settings(r: Any) -> Iterator[tuple[str, str]]:
    """Everything of a record that its row does not show, by name."""
    for name in (
        "env",
        "checkpoint",
        "split",
        "source",
        "dataset_hash",
        "device",
        "git",
        "created",
    ):
        if getattr(r, name) is not None:
            yield name, str(getattr(r, name))
    yield "seeds", ", ".join(map(str, r.seeds))
    for name, about in _flat(r.config):
        yield name, about
    for name, value in r.metrics.items():
        low, high = r.metrics_ci95.get(name, (None, None))
        interval = "" if low is None or high is None else f" [{low:.4g}, {high:.4g}]"
        yield name, "not finite" if value is None else f"{value:.4g}{interval}"
    for name, value in r.forward_positions.items():
        yield f"positions: {name}", f"{value:.1f}"
    for name, value in r.versions.items():
        yield f"version: {name}", str(value)


def _flat(config: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", str(value)
