"""The page of results: one HTML file that holds all of its data and asks no network.

`page.html.jinja` is its frame, `page.css` its looks and `page.js` what moves; the table is
DataTables', as the package `itables` brings it. Texts of models and users are escaped by the
template or become text nodes. The same results give the same bytes.
"""

from __future__ import annotations

import base64
import gzip
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from html import escape
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import latentgym
from latentgym.errors import UsageError
from latentgym.evaluation.columns import COLUMNS, Run
from latentgym.evaluation.exports import plain
from latentgym.evaluation.methods import methods
from latentgym.evaluation.page import comparing, plots
from latentgym.evaluation.page.answers import Answers, curves
from latentgym.evaluation.page.rows import table, values
from latentgym.evaluation.results import Result
from latentgym.evaluation.rows import asked
from latentgym.storage import atomic_write, finite, writable

T = TypeVar("T")
_HERE = resources.files(__package__)
_NAME = 100  # letters of a picture's file
MOST_ANSWERS = 100
"""Answers of each run that a page has unless told otherwise."""


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
        UsageError: nothing was found, jinja2, itables or matplotlib is missing, or something
            cannot be written. Damaged rollouts and logs are left out, and the page says so.
    """
    if not found:
        raise UsageError("a page needs at least one run; run latentgym eval ... --out DIR first.")
    text, drawn = page(found, title=title, most_answers=most_answers)
    with writable(path.parent, "choose another file"):
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as partial:
            partial.write_bytes(text.encode("utf-8", "replace"))  # JSON knows more letters
    if plots_folder is not None:
        with writable(plots_folder, "choose another folder"):
            plots_folder.mkdir(parents=True, exist_ok=True)
            for plot, name in zip(drawn, _file_names(drawn), strict=True):
                for kind in ("svg", "png"):
                    with atomic_write(plots_folder / f"{name}.{kind}") as partial:
                        partial.write_bytes(plot.file(kind))


def page(found: Sequence[Run], *, title: str, most_answers: int) -> tuple[str, list[plots.Plot]]:
    """The page as text, and its pictures of tasks."""
    environment, library = _libraries()
    answers = Answers(most_answers)
    made = table([(folder, _from_here(r)) for folder, r in found], answers.scores)
    ran = methods(made.runs, made.names)
    drawn = [
        plot
        for questions in dict.fromkeys(map(asked, made.runs))
        for plot in comparing.of_questions(questions, ran, answers.scores)
    ]
    drawn += comparing.of_runs(ran)
    rows, told = [], list[dict[str, Any]]()
    blocks: dict[str, str] = {}
    for run, cells in zip(made.runs, made.rows, strict=True):
        name, faults = made.names[run[0]], list[str]()
        given = _readable(partial(answers.of, run[0]), faults) or []
        trained = plots.of_training(name, _readable(partial(curves, run[0]), faults) or {})
        made.notes.extend(f"{name}: {fault}" for fault in faults)
        rows.append({"id": name, "cells": cells})
        answered = json.dumps(given) if given else ""
        texts = {"answers": answered, "curves": "".join(map(_figure, trained))}
        own = {kind: f"{kind}-{len(told)}" if text else None for kind, text in texts.items()}
        blocks |= {block: _packed(texts[kind]) for kind, block in own.items() if block is not None}
        told.append(_told(run, name, len(given)) | own)
    blocks["runs"] = _packed(json.dumps(told))
    text = environment.get_template("page.html.jinja").render(
        title=title,
        rows=rows,
        blocks=blocks,
        plots=drawn,
        notes=made.notes,
        tasks=sorted({run[1].task for run in made.runs}),
        columns=made.headings,
        filters=made.filters,
        version=latentgym.__version__,
        css=(_HERE / "page.css").read_text("utf-8"),
        js=(_HERE / "page.js").read_text("utf-8"),
        **library,
    )
    return text, drawn


def _from_here(r: Result) -> Result:
    """With paths below the working directory told from there: pages travel, folders do not."""
    here = f"{Path.cwd()}/"
    checkpoint = None if r.checkpoint is None else r.checkpoint.removeprefix(here)
    return replace(r, command=r.command.replace(here, ""), checkpoint=checkpoint)


def _readable(read: Callable[[], T], faults: list[str]) -> T | None:
    """What is read; None where it is damaged, which becomes a fault: a row needs neither."""
    try:
        return read()
    except UsageError as error:
        faults.append(str(error))
        return None


def _libraries() -> tuple[Any, dict[str, str]]:
    """The environment of the template, and DataTables.

    Raises:
        UsageError: one of them is missing.
    """
    try:
        import jinja2

        bundle = _folder("itables") / "html"
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


def _folder(package: str) -> Path:
    """Where a package lies, which is not imported: its own imports would take seconds.

    Raises:
        ModuleNotFoundError: there is none.
    """
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"no package {package}", name=package)
    return Path(spec.submodule_search_locations[0])


def _figure(plot: plots.Plot) -> str:
    """A picture with its caption, as part of a page."""
    return f"<figure>{plot.svg}<figcaption>{escape(plot.caption)}</figcaption></figure>"


def _packed(text: str) -> str:
    """A text compressed, as letters that no page takes for markup; always the same."""
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode("ascii")


def _file_names(drawn: Sequence[plots.Plot]) -> list[str]:
    """The names of pictures as those of files, of which no two are the same."""
    made: list[str] = []
    for plot in drawn:
        name = re.sub(r"[^\w.-]", "-", plot.name, flags=re.ASCII)[:_NAME]
        made.append(name if name not in made else f"{name}-{len(made)}")
    return made


def _told(run: Run, name: str, given: int) -> dict[str, Any]:
    """What the page's script knows of a run beside its answers, of which so many are given."""
    r = run[1]
    of = r.n * len(r.seeds)
    label = r.agent if not r.control else f"{r.agent}, {r.control}"
    return {
        "id": name,
        "label": f"{label}; {r.model}",
        "questions": f"{r.task} {r.split} {r.dataset_hash}",
        "seeds": r.seeds,
        "left_out": max(0, of - given) if given else 0,
        "command": r.command,
        "settings": list(_settings(r)),
        "values": {**finite({c.name: plain(c.value(run)) for c in COLUMNS}), "run": plain(name)},
        "chosen_by": values(run),
    }


def _settings(r: Result) -> Iterator[tuple[str, str]]:
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
    for name, count in r.forward_positions.items():
        yield f"positions: {name}", f"{count:.1f}"
    for name, version in r.versions.items():
        yield f"version: {name}", version


def _flat(config: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", str(value)
