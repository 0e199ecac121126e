"""Reads a suite from its file: TOML, in which nothing unknown is passed over.

A file has `about`, `seeds`, `paper`, `defaults` (keys of every cell, and in `defaults.train`,
`defaults.eval` and `defaults.baseline` of those of one command), `lists` (of rows) and `cells`. The
name of a cell and every text in it may hold places such as `{task}`, which each row of the cell's
`each` fills: a cell is made for every row.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from itertools import product
from pathlib import Path
from typing import Any, get_args

from latentgym.errors import UsageError, did_you_mean, told
from latentgym.evaluation.recommenders import RECOMMENDERS
from latentgym.evaluation.suites.cells import Cell, Knob, Verb, waves
from latentgym.registry import AGENTS, resolve, split_module, task_name
from latentgym.system.sealed import is_of

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_VERBS: tuple[str, ...] = get_args(Verb)
_KINDS: Mapping[str, Any] = {
    **dict.fromkeys(_VERBS, str),
    "env": str | list[str],
    "part": str,
    "paper": float,
    "start": str,
    "model": str,
    "preset": str,
    "steps": int,
    "limit": int,
    "split": str,
    "seeds": list[int],
    "options": dict[str, Any],
    "settings": dict[str, Any],
    "controls": list[str],
    "knob": dict[str, Any],
    "curve": bool,
    "each": str | list[str] | list[dict[str, Any]],
}
"""Keys of a cell, with the type of each."""
_SUITE: Mapping[str, Any] = {
    "about": str,
    "paper": str,
    "seeds": list[int],
    "defaults": dict[str, Any],
    "lists": dict[str, list[dict[str, Any]]],
    "cells": dict[str, dict[str, Any]],
}
_ONLY = {"steps": ("train",), "curve": ("train",), "preset": ("train", "eval")}
_ONLY |= {"start": ("train", "eval"), "model": ("train", "eval"), "controls": ("train", "eval")}
_PLACE = re.compile(r"\{(\w+)\}")
_NAME = re.compile(r"(?!seed-)\w[\w.=-]*(/(?!seed-)\w[\w.=-]*)*")
_SPLIT = {"train": "--eval-split", "eval": "--split", "baseline": "--split"}
_LIMIT = {"train": "--eval-limit", "eval": "--limit", "baseline": "--limit"}
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


class _FaultError(Exception):
    """What is wrong with a key of a cell."""


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
        _check(data, _SUITE, "a suite")
        for key in ("about", "cells"):
            if not data.get(key):
                raise _FaultError(f"{key} is missing; a suite has about and cells")
        defaults = _defaults(data.get("defaults", {}))
        if model is not None:
            defaults["model"] = model
        defaults.setdefault("seeds", data.get("seeds", [0]))
    except _FaultError as fault:
        raise UsageError(f"{label}: {fault}.") from None
    over = {"limit": limit, "seeds": None if seeds is None else list(seeds)}
    over = {key: value for key, value in over.items() if value is not None}
    cells: list[Cell] = []
    for key, table in data["cells"].items():
        try:
            for filled in _rows(key, table, defaults, data.get("lists", {})):
                cells += _cells(*filled, over)
        except (_FaultError, UsageError) as fault:
            raise UsageError(f"{label}, cell {key}: {str(fault).rstrip('.')}.") from None
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


def _check(table: Mapping[str, Any], kinds: Mapping[str, Any], what: str) -> None:
    for key, value in table.items():
        if key not in kinds:
            raise _FaultError(f"{what} has no {key}; {did_you_mean(key, kinds).rstrip('.')}")
        if not is_of(value, kinds[key]):
            raise _FaultError(f"{key} cannot be {told(value)}, but is {_named(kinds[key])}")


def _named(kind: Any) -> str:
    plain = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}
    return plain.get(kind) or (
        str(kind).replace("typing.", "").replace("dict[str, Any]", "a table").replace("|", "or")
    )


def _defaults(given: Mapping[str, Any]) -> dict[str, Any]:
    """Defaults of cells, and under `train`, `eval` and `baseline` those of one command."""
    plain = {key: value for key, value in given.items() if key not in _VERBS}
    refused = {"each", "env", "start", "paper"} & plain.keys()
    if refused:
        raise _FaultError(f"defaults has {min(refused)}, which is each cell's own")
    _check(plain, _KINDS, "defaults")
    for verb in _VERBS:
        own = given.get(verb, {})
        if not isinstance(own, dict):
            raise _FaultError(f"defaults.{verb} is a table of keys of cells")
        _check(own, {k: v for k, v in _KINDS.items() if k not in _VERBS}, f"defaults.{verb}")
    return {**plain, **{verb: given.get(verb, {}) for verb in _VERBS}}


def _rows(
    name: str, table: Mapping[str, Any], defaults: Mapping[str, Any], lists: Mapping[str, Any]
) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Name, keys and defaults of a cell for each row of its `each`, whose places the row fills."""
    keys = {key: value for key, value in table.items() if key != "each"}
    everywhere = {place for rows in lists.values() for row in rows for place in row}
    if "each" not in table:
        yield name, keys, _filled(defaults, {}, everywhere)
        return
    each: Any = table["each"]
    _check({"each": each}, _KINDS, "a cell")
    given: list[Any] = [each] if isinstance(each, str) else each
    rows: list[dict[str, Any]] = given
    if given and isinstance(given[0], str):
        for wanted in given:
            if wanted not in lists:
                raise _FaultError(f"each names no list {wanted!r}; {did_you_mean(wanted, lists)}")
        rows = [
            {k: v for row in some for k, v in row.items()}
            for some in product(*(lists[wanted] for wanted in given))
        ]
    known = {place for row in rows for place in row}
    for row in rows:
        filled = _filled(keys, row, known), _filled(defaults, row, known | everywhere)
        yield str(_filled(name, row, known)), *filled


_LEFT_OUT = object()


def _filled(value: Any, row: Mapping[str, Any], known: set[str]) -> Any:
    """A value with the places in it filled; one that is a place alone is what the row has there.

    A key whose place another row fills, and this one does not, is left out.
    """
    if isinstance(value, dict):
        filled = {key: _filled(each, row, known) for key, each in value.items()}
        return {key: each for key, each in filled.items() if each is not _LEFT_OUT}
    if isinstance(value, list):
        return [_filled(each, row, known) for each in value]
    if not isinstance(value, str):
        return value
    for place in _PLACE.findall(value):
        if place not in known:
            raise _FaultError(f"no row of each has {place!r}, which {value!r} asks for")
    if (whole := _PLACE.fullmatch(value)) is not None:
        return row.get(whole[1], _LEFT_OUT)
    if missing := [place for place in _PLACE.findall(value) if place not in row]:
        raise _FaultError(f"a row of each lacks {missing[0]!r}, which {value!r} asks for")
    return _PLACE.sub(lambda match: str(row[match[1]]), value)


def _cells(
    name: str, own: Mapping[str, Any], defaults: Mapping[str, Any], over: Mapping[str, Any]
) -> Iterator[Cell]:
    """The cells of a table whose places are filled: for every environment, control and value."""
    _check(own, _KINDS, "a cell")
    verbs = [verb for verb in _VERBS if verb in own]
    if len(verbs) != 1:
        raise _FaultError(f"a cell has one of {', '.join(_VERBS)}, but this has {len(verbs)}")
    verb = verbs[0]
    for key, only in _ONLY.items():
        if key in own and verb not in only:
            raise _FaultError(f"{key} goes with {' or '.join(only)}, not with {verb}")
    table = {**_merged(defaults, verb, own), **over}
    _check_agent(verb, own[verb])
    if "env" not in own:
        raise _FaultError("env is missing")
    envs = [own["env"]] if isinstance(own["env"], str) else own["env"]
    for env in envs:
        resolve(env)
    _check({"seeds": table["seeds"]}, _KINDS, "a cell")
    if not table["seeds"] or len({*table["seeds"]}) < len(table["seeds"]):
        raise _FaultError("seeds needs at least one, and each once")
    for env, (knob, keys) in product(envs, _values(table)):
        whole = name if isinstance(own["env"], str) else f"{name}/{task_name(split_module(env)[1])}"
        at = whole if knob is None else _with(whole, f"{knob[0].rpartition('.')[2]}-{knob[1]}")
        cell = Cell(
            part=table.get("part", "figures"),
            name=at,
            argv=_argv(verb, env, keys),
            paper=table.get("paper"),
            start=table.get("start"),
            curve=table.get("curve", False),
            seeds=tuple(table["seeds"]),
            knob=None if knob is None else Knob(whole, *knob),
        )
        yield cell
        for control in table.get("controls", ()):
            yield _controlled(cell, control, env, verb, keys)


def _with(name: str, more: str) -> str:
    """A name with more in its first part: what is below that are the tasks of one method."""
    first, slash, rest = name.partition("/")
    return f"{first}-{more}{slash}{rest}"


def _controlled(cell: Cell, control: str, env: str, verb: str, keys: Mapping[str, Any]) -> Cell:
    """The cell whose thoughts are replaced; what was trained is evaluated as it was trained."""
    if verb == "train":
        argv = _argv("eval", env, {"eval": keys["train"], **_kept(keys)})
        start: str | None = cell.name
    else:
        argv, start = cell.argv, cell.start
    return replace(
        cell,
        name=_with(cell.name, control),
        argv=(*argv, "--control", control),
        start=start,
        paper=None,
        curve=False,
        knob=None,
        of=cell.name,
    )


def _kept(keys: Mapping[str, Any]) -> dict[str, Any]:
    """What an evaluation of a trained cell says again; the rest its checkpoint knows."""
    return {key: keys[key] for key in ("options", "limit", "split") if key in keys}


def _merged(defaults: Mapping[str, Any], verb: str, own: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a cell with those that it does not say; options and settings key by key."""
    plain = {key: value for key, value in defaults.items() if key not in _VERBS}
    merged: dict[str, Any] = {}
    for table in (plain, defaults.get(verb, {}), own):
        for key, value in table.items():
            both = key in ("options", "settings")
            merged[key] = {**merged.get(key, {}), **value} if both else value
    if "start" in own and "model" not in own:
        merged.pop("model", None)  # its checkpoint says
    return {k: v for k, v in merged.items() if verb in _ONLY.get(k, _VERBS)}


def _values(table: Mapping[str, Any]) -> list[tuple[tuple[str, Any] | None, dict[str, Any]]]:
    """A table for each value of its knob: the name of the setting with the value, and the table."""
    flat = list(_flat(table.get("knob", {})))
    if not flat:
        return [(None, dict(table))]
    if len(flat) > 1 or not is_of(flat[0][1], list[float]) or not flat[0][1]:
        raise _FaultError("knob has one name with a list of numbers, such as samples = [1, 4, 16]")
    [(name, values)] = flat
    group, key = "settings", name
    if name.startswith("options."):
        group, key = "options", name.removeprefix("options.")
    tables = ({**table, group: {**table.get(group, {}), key: value}} for value in values)
    return [((name, value), each) for value, each in zip(values, tables, strict=True)]


def _check_agent(verb: str, name: str) -> None:
    known: Mapping[str, Any] = RECOMMENDERS if verb == "baseline" else AGENTS
    if name not in known and ":" not in name:
        raise _FaultError(f"{verb} knows no {name!r}; {did_you_mean(name, known)}")


def _argv(verb: str, env: str, keys: Mapping[str, Any]) -> tuple[str, ...]:
    """The words of a cell's command."""
    words = [verb, keys[verb], env]
    for key, option in {
        "preset": "--preset",
        "model": "--model",
        "steps": "--steps",
        "split": _SPLIT[verb],
        "limit": _LIMIT[verb],
    }.items():
        if key in keys:
            words += [option, str(keys[key])]
    for name, value in keys.get("options", {}).items():
        words += ["-o", f"{name}={value if isinstance(value, str) else json.dumps(value)}"]
    for name, value in _flat(keys.get("settings", {})):
        words += _option(name, value)
    return tuple(words)


def _option(name: str, value: Any) -> list[str]:
    if isinstance(value, bool):
        head, dot, last = name.rpartition(".")
        return [f"--{name}" if value else f"--{head}{dot}no-{last}"]
    values = value if isinstance(value, list) else [value]
    if not is_of(values, list[str | float]):
        raise _FaultError(f"settings.{name} cannot be {told(value)}")
    return [f"--{name}", *map(str, values)]


def _flat(table: Mapping[str, Any], within: str = "") -> Iterator[tuple[str, Any]]:
    """Names with dots, and values, of tables in tables."""
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{within}{key}.")
        else:
            yield f"{within}{key}", value


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
