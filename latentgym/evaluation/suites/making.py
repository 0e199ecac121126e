"""The cells of a suite's table: one for every environment, value of a knob and control."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import product
from typing import Any

from latentgym.errors import did_you_mean, told
from latentgym.evaluation.recommenders import RECOMMENDERS
from latentgym.evaluation.suites.cells import Cell, Knob
from latentgym.evaluation.suites.keys import CELL, ONLY, VERBS, FaultError, check
from latentgym.registry import AGENTS, resolve, split_module, task_name
from latentgym.system.sealed import is_of

_SPLIT = {"train": "--eval-split", "eval": "--split", "baseline": "--split"}
_LIMIT = {"train": "--eval-limit", "eval": "--limit", "baseline": "--limit"}


def cells_of(
    name: str, own: Mapping[str, Any], defaults: Mapping[str, Any], over: Mapping[str, Any]
) -> Iterator[Cell]:
    """The cells of a table whose places are filled: for every environment, control and value.

    Args:
        name: of the table.
        own, defaults: its keys, and those of all.
        over: keys that come before both.

    Raises:
        FaultError, UsageError: a key is wrong.
    """
    check(own, CELL, "a cell")
    verbs = [verb for verb in VERBS if verb in own]
    if len(verbs) != 1:
        raise FaultError(f"a cell has one of {', '.join(VERBS)}, but this has {len(verbs)}")
    verb = verbs[0]
    for key, only in ONLY.items():
        if key in own and verb not in only:
            raise FaultError(f"{key} goes with {' or '.join(only)}, not with {verb}")
    table = {**_merged(defaults, verb, own), **over}
    _check_agent(verb, own[verb])
    if "env" not in own:
        raise FaultError("env is missing")
    envs = [own["env"]] if isinstance(own["env"], str) else own["env"]
    for env in envs:
        resolve(env)
    check({"seeds": table["seeds"]}, CELL, "a cell")
    if not table["seeds"] or len({*table["seeds"]}) < len(table["seeds"]):
        raise FaultError("seeds needs at least one, and each once")
    for env, (knob, keys) in product(envs, _values(table)):
        whole = name if isinstance(own["env"], str) else f"{name}/{task_name(split_module(env)[1])}"
        at = whole if knob is None else _with(whole, f"{knob[0].rpartition('.')[2]}-{knob[1]}")
        cell = Cell(
            part=table.get("part", "results"),
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
    plain = {key: value for key, value in defaults.items() if key not in VERBS}
    merged: dict[str, Any] = {}
    for table in (plain, defaults.get(verb, {}), own):
        for key, value in table.items():
            both = key in ("options", "settings")
            merged[key] = {**merged.get(key, {}), **value} if both else value
    if "start" in own and "model" not in own:
        merged.pop("model", None)  # its checkpoint says
    return {k: v for k, v in merged.items() if verb in ONLY.get(k, VERBS)}


def _values(table: Mapping[str, Any]) -> list[tuple[tuple[str, Any] | None, dict[str, Any]]]:
    """A table for each value of its knob: the name of the setting with the value, and the table."""
    flat = list(_flat(table.get("knob", {})))
    if not flat:
        return [(None, dict(table))]
    if len(flat) > 1 or not is_of(flat[0][1], list[float]) or not flat[0][1]:
        raise FaultError("knob has one name with a list of numbers, such as samples = [1, 4, 16]")
    [(name, values)] = flat
    group, key = "settings", name
    if name.startswith("options."):
        group, key = "options", name.removeprefix("options.")
    tables = ({**table, group: {**table.get(group, {}), key: value}} for value in values)
    return [((name, value), each) for value, each in zip(values, tables, strict=True)]


def _check_agent(verb: str, name: str) -> None:
    known: Mapping[str, Any] = RECOMMENDERS if verb == "baseline" else AGENTS
    if name not in known and ":" not in name:
        raise FaultError(f"{verb} knows no {name!r}; {did_you_mean(name, known)}")


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
        raise FaultError(f"settings.{name} cannot be {told(value)}")
    return [f"--{name}", *map(str, values)]


def _flat(table: Mapping[str, Any], within: str = "") -> Iterator[tuple[str, Any]]:
    """Names with dots, and values, of tables in tables."""
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{within}{key}.")
        else:
            yield f"{within}{key}", value
