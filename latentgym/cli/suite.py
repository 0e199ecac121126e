"""`latentgym suite list|show|run`: tables of results, run as one."""

from __future__ import annotations

import io
import shlex
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import tyro
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from latentgym.cli.agent_options import parse_with_agent
from latentgym.cli.baseline import BaselineOptions
from latentgym.cli.evaluate import EvalOptions
from latentgym.cli.options import act, emit, output, parse
from latentgym.cli.suite_tables import show_equal_costs, show_results
from latentgym.cli.train import TrainCommand
from latentgym.errors import UsageError
from latentgym.evaluation.suites.cells import Cell, is_done, results_of
from latentgym.evaluation.suites.reading import Suite, read_suite, shipped
from latentgym.evaluation.suites.running import LOG, Workers, run_cells
from latentgym.system.lock import in_use
from latentgym.system.options.ranges import Seed, Size
from latentgym.system.terminal import printable, say, shown


@dataclass(frozen=True)
class _Chosen:
    """Which cells of a suite, and where."""

    suite: tyro.conf.Positional[str]
    """Name of a suite, see latentgym suite list, or the path of a file of your own."""
    out: Path | None = None
    """Folder of its runs; default runs/ and the suite's name."""
    model: str | None = None
    """Instead of the suite's model; cells that name one of their own keep it."""
    limit: Size | None = None
    """Questions of every cell, instead of the suite's."""
    seeds: list[Seed] = field(default_factory=list)
    """Of every cell, instead of the suite's."""
    parts: list[str] = field(default_factory=list)
    """Only the cells of these parts, and those that they start from."""
    match: str = ""
    """Only cells whose name holds this, and those that they start from."""
    json: bool = False
    """Print one JSON line on stdout, and nothing else there."""


@dataclass(frozen=True)
class ShowOptions(_Chosen):
    """Options of suite show."""


@dataclass(frozen=True)
class RunOptions(_Chosen):
    """Options of suite run."""

    jobs: Size = 1
    """Commands at once, each in a process of its own; they share the processors."""
    backend: Literal["local", "ray"] = "local"
    """Who answers in evaluations: the command's process, or workers on Ray."""
    workers: Size | None = None
    """Workers on Ray of each evaluation."""


@dataclass(frozen=True)
class ListOptions:
    """Options of suite list."""

    json: bool = False
    """Print one JSON line on stdout, and nothing else there."""


def main(argv: Sequence[str]) -> int:
    """List, show or run suites."""
    actions = {
        "list": (_list, "the suites that come with the library"),
        "show": (_show, "the cells of a suite, their commands, and what is there already"),
        "run": (_run, "run what is not there yet, and show the tables"),
    }
    return act("suite", actions, argv)


def _list(argv: Sequence[str]) -> int:
    options = parse(ListOptions, argv, "suite list", "The suites that come with the library.")
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("suite", no_wrap=True)
    table.add_column("cells", justify="right")
    table.add_column("runs", justify="right")
    table.add_column("what it shows")
    suites = [read_suite(name) for name in shipped()]
    for suite in suites:
        runs = sum(len(cell.seeds) for cell in suite.cells)
        about = shown(suite.about.partition("\n\n")[0])
        table.add_row(suite.name, str(len(suite.cells)), str(runs), about)
    output(options.json).print(table)
    told = [{"name": s.name, "about": s.about, "cells": [c.name for c in s.cells]} for s in suites]
    emit({"suites": told}, options.json)
    return 0


def _show(argv: Sequence[str]) -> int:
    about = "The cells of a suite, their commands, and what is there already."
    options = parse(ShowOptions, argv, "suite show", about)
    suite, out = _read(options)
    console = output(options.json)
    console.print(shown(suite.name), style="bold")
    for paragraph in suite.about.split("\n\n"):  # what is indented stands as it is
        as_it_is = "\n  " in f"\n{paragraph}"
        console.print(Text(printable(paragraph)) if as_it_is else shown(paragraph))
    if suite.paper:
        console.print(shown(f"paper: {suite.paper}"))
    told = []
    for part, cells in groupby(suite.cells, key=lambda cell: cell.part):
        console.print()
        console.print(shown(part), style="bold")
        for cell in cells:
            state, strange = _state(cell, out)
            console.print(shown(f"{cell.name}  ({state})"))
            if strange:
                console.print(Padding(shown(strange), (0, 0, 0, 2)), style="yellow")
            command = shlex.join(["latentgym", *cell.command(out, cell.seeds[0])])
            console.print(Padding(shown(command), (0, 0, 0, 2)), style="dim")
            told.append(
                {
                    "name": cell.name,
                    "part": cell.part,
                    "state": state,
                    "commands": [
                        shlex.join(["latentgym", *cell.command(out, seed)]) for seed in cell.seeds
                    ],
                }
            )
    console.print()
    show_results(suite.cells, out, console)
    show_equal_costs(suite.cells, out, console)
    emit({"suite": suite.name, "cells": told}, options.json)
    return 0


def _run(argv: Sequence[str]) -> int:
    about = "Run what is not there yet, and show the tables; killed, the same command goes on."
    options = parse(RunOptions, argv, "suite run", about)
    if (options.backend == "ray") != (options.workers is not None):
        raise UsageError("--backend ray and --workers go together; give both, or neither.")
    suite, out = _read(options)
    check_commands(suite)
    failures = []
    with in_use(out):
        try:
            failures = run_cells(
                suite.cells, out, Workers(options.jobs, options.workers), suite.name
            )
        except KeyboardInterrupt:
            say(f"what is done is kept in {out}; the same command goes on")
            raise
    found = results_of(suite.cells, out)
    console = output(options.json)
    show_results(suite.cells, out, console)
    show_equal_costs(suite.cells, out, console)
    for failure in failures:
        say(f"failed: {failure.job}: {failure.why}")
    if failures:
        say(f"{len(failures)} without a result; what each said is in its {LOG} below {out}")
    emit(
        {
            "suite": suite.name,
            "out": str(out),
            "results": [vars(result) for _, result in found],
            "failed": {str(failure.job): failure.why for failure in failures},
        },
        options.json,
    )
    return int(bool(failures))


def _read(options: _Chosen) -> tuple[Suite, Path]:
    """The chosen cells, and the folder of their runs.

    Raises:
        UsageError: see `read_suite`, or nothing is chosen.
    """
    suite = read_suite(
        options.suite,
        model=options.model,
        limit=options.limit,
        seeds=options.seeds or None,
    )
    return suite.chosen(options.parts, options.match), options.out or Path("runs") / suite.name


def check_commands(suite: Suite) -> None:
    """Read every command as it will be read when it is run.

    Raises:
        UsageError: one is refused.
    """
    kinds: Mapping[str, Any] = {"train": TrainCommand, "eval": EvalOptions}
    for cell in suite.cells:
        verb, *words = cell.settings(cell.seeds[0])
        said = io.StringIO()
        try:
            with redirect_stderr(said):
                if verb == "baseline":
                    parse(BaselineOptions, words, verb, "")
                else:
                    parse_with_agent(kinds[verb], words, verb, "")
        except (SystemExit, UsageError) as error:
            why = str(error) if isinstance(error, UsageError) else _refusal(said.getvalue())
            command = shlex.join(["latentgym", verb, *words])
            raise UsageError(
                f"{suite.name}, cell {cell.name}: its command is refused: {why} ({command})"
            ) from None


def _refusal(box: str) -> str:
    """What the parser's box of a message says first."""
    lines = [line.strip("│╭╮╰╯─ ") for line in box.splitlines()]
    return next((line for line in lines if line and not line.startswith("Parsing error")), "?")


def _state(cell: Cell, out: Path) -> tuple[str, str]:
    """What is there of a cell, and what is wrong with it, if anything."""
    done = 0
    for seed in cell.seeds:
        try:
            done += is_done(cell, out, seed)
        except UsageError as error:
            return "of other settings, or damaged", str(error)
    total = len(cell.seeds)
    if not done:
        return "to do" if total == 1 else f"to do, {total} seeds", ""
    return "done" if done == total else f"{done} of {total} seeds done", ""
