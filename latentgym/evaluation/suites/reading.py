"""Reads a suite from its file: TOML, in which nothing unknown is passed over.

A file has `about`, `seeds`, `paper`, `defaults` (keys of every cell, and in `defaults.train`,
`defaults.eval` and `defaults.baseline` of those of one command), `lists` (of rows) and `cells`. The
name of a cell and every text in it may hold places such as `{task}`, which each row of the cell's
`each` fills: a cell is made for every row.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from itertools import islice
from pathlib import Path
from typing import Any

from latentgym.errors import UsageError, did_you_mean, sentence, told
from latentgym.evaluation.suites.cells import Cell, waves
from latentgym.evaluation.suites.each import rows_of
from latentgym.evaluation.suites.keys import CELL, MOST_CELLS, SUITE, VERBS, FaultError, check
from latentgym.evaluation.suites.making import cells_of

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_NAME = re.compile(r"(?!seed-)\w[\w.=-]*(/(?!seed-)\w[\w.=-]*)*")
_HERE = resources.files(__package__)
_ENDING = ".toml"


@dataclass(frozen=True)
class Suite:
    """A suite as it is run.

    Attributes:
        name: of its file.
        about: what it shows.
        paper: whose figures stand beside its own; empty for nobody's.
        cells: in the order of the file.
    """

    name: str
    about: str
    paper: str
    cells: tuple[Cell, ...]

    def chosen(self, parts: Sequence[str] = (), match: str = "") -> Suite:
        """The suite with some of its cells, and those that they start from.

        Args:
            parts: whose cells; none for all.
            match: what the name of a cell holds.

        Raises:
            UsageError: there is no such part, or no such cell.
        """
        known = sorted({cell.part for cell in self.cells})
        if unknown := sorted({*parts} - {*known}):
            raise UsageError(
                f"{self.name} has no part {unknown[0]!r}; its parts are {', '.join(known)}."
            )
        cells = [cell for cell in self.cells if not parts or cell.part in parts]
        some = {cell.name for cell in cells if match in cell.name}
        if not some:
            raise UsageError(
                f"no cell of {self.name} that is chosen has {match!r} in its name; latentgym suite "
                "show lists them."
            )
        for cell in reversed(self.cells):  # whatever one starts from comes before it
            if cell.name in some and cell.start is not None:
                some.add(cell.start)
        return replace(self, cells=tuple(cell for cell in self.cells if cell.name in some))


def shipped() -> list[str]:
    """Names of the suites that come with the library."""
    files = (path.name for path in _HERE.iterdir())
    return sorted(name.removesuffix(_ENDING) for name in files if name.endswith(_ENDING))


def read_suite(
    name: str,
    *,
    model: str | None = None,
    limit: int | None = None,
    seeds: Sequence[int] | None = None,
) -> Suite:
    """Read a suite.

    Args:
        name: of one that comes with the library, or the path of a file.
        model: in the place of the suite's default one; cells that name their own keep it.
        limit: questions of every cell instead of the file's.
        seeds: of every cell instead of the file's.

    Raises:
        UsageError: there is no such suite, or something in it is wrong; the sentence names file,
            cell and key.
    """
    label, data = _parsed(name)
    try:
        check(data, SUITE, "a suite")
        for key in ("about", "cells"):
            if not data.get(key):
                raise FaultError(f"{key} is missing; a suite has about and cells")
        defaults = _defaults(data.get("defaults", {}))
        if model is not None:
            defaults["model"] = model
        defaults.setdefault("seeds", data.get("seeds", [0]))
    except FaultError as fault:
        raise UsageError(sentence(f"{label}: {fault}")) from None
    over = {"limit": limit, "seeds": None if seeds is None else list(seeds)}
    over = {key: value for key, value in over.items() if value is not None}
    cells: list[Cell] = []
    for key, table in data["cells"].items():
        try:
            for filled in rows_of(key, table, defaults, data.get("lists", {})):
                cells += islice(cells_of(*filled, over), MOST_CELLS + 1)
                if len(cells) > MOST_CELLS:
                    raise FaultError(f"there are more than {MOST_CELLS:,} cells up to here")
        except (FaultError, UsageError) as fault:
            raise UsageError(sentence(f"{label}, cell {key}: {fault}")) from None
    _check_names(label, cells)
    try:
        ordered = [cell for wave in waves(cells) for cell in wave]
    except UsageError as error:
        raise UsageError(f"{label}: {error}") from None
    return Suite(Path(name).stem, data["about"].strip(), data.get("paper", ""), tuple(ordered))


def _parsed(name: str) -> tuple[str, dict[str, Any]]:
    """What a suite is called in sentences, and what its file holds."""
    if name in shipped():
        label, text = name, (_HERE / f"{name}{_ENDING}").read_text("utf-8")
    else:
        path = Path(name)
        if not path.is_file():
            raise UsageError(
                f"no suite {name!r}; {did_you_mean(name, shipped())} One of your own is named by "
                "the path of its file."
            )
        try:
            label, text = str(path), path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{path} cannot be read as a suite ({error}).") from error
    try:
        return label, tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise UsageError(f"{label} is no TOML: {error}.") from error


def _defaults(given: Mapping[str, Any]) -> dict[str, Any]:
    """Defaults of cells, and under `train`, `eval` and `baseline` those of one command."""
    plain = {key: value for key, value in given.items() if key not in VERBS}
    refused = {"each", "env", "start", "paper"} & plain.keys()
    if refused:
        raise FaultError(f"defaults has {min(refused)}, which is each cell's own")
    check(plain, CELL, "defaults")
    for verb in VERBS:
        own = given.get(verb, {})
        if not isinstance(own, dict):
            raise FaultError(f"defaults.{verb} is a table of keys of cells")
        check(own, {k: v for k, v in CELL.items() if k not in VERBS}, f"defaults.{verb}")
    return {**plain, **{verb: given.get(verb, {}) for verb in VERBS}}


def _check_names(label: str, cells: Sequence[Cell]) -> None:
    names: set[str] = set()
    for cell in cells:
        if not _NAME.fullmatch(cell.name):
            raise UsageError(
                f"{label}: {told(cell.name)} is no name of a cell; use letters, digits, - . = _ "
                "and /, and begin no part of it with seed-."
            )
        if cell.name in names:
            raise UsageError(f"{label}: two cells have the name {cell.name}; give each its own.")
        names.add(cell.name)
    for cell in cells:
        if cell.start is not None and cell.start not in names:
            raise UsageError(
                f"{label}, cell {cell.name}: start names no cell {cell.start!r}; "
                f"{did_you_mean(cell.start, names)}"
            )
