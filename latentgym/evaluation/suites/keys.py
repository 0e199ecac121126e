"""What a suite's file may say: its keys, the type of each, and what is wrong with one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from latentgym.errors import did_you_mean, told
from latentgym.evaluation.suites.cells import Verb
from latentgym.system.sealed import is_of

VERBS: tuple[str, ...] = get_args(Verb)
CELL: Mapping[str, Any] = {
    **dict.fromkeys(VERBS, str),
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
SUITE: Mapping[str, Any] = {
    "about": str,
    "paper": str,
    "seeds": list[int],
    "defaults": dict[str, Any],
    "lists": dict[str, list[dict[str, Any]]],
    "cells": dict[str, dict[str, Any]],
}
"""Keys of a suite, with the type of each."""
ONLY = {"steps": ("train",), "curve": ("train",), "preset": ("train", "eval")}
ONLY |= {"start": ("train", "eval"), "model": ("train", "eval"), "controls": ("train", "eval")}
"""Keys that go with some commands alone, and with which."""
MOST_CELLS = 10_000
"""Of a suite: more are a slip, such as lists that multiply."""


class FaultError(Exception):
    """What is wrong with a key of a cell."""


def check(table: Mapping[str, Any], kinds: Mapping[str, Any], what: str) -> None:
    """Refuse a key that there is not, and a value of another type.

    Args:
        table: keys and values.
        kinds: keys that it may have, with the type of each.
        what: the table, in sentences.

    Raises:
        FaultError: one is wrong.
    """
    for key, value in table.items():
        if key not in kinds:
            raise FaultError(f"unknown key {key!r} of {what}; {did_you_mean(key, kinds)}")
        if not is_of(value, kinds[key]):
            raise FaultError(f"{key} cannot be {told(value)}, but is {_named(kinds[key])}")


def _named(kind: Any) -> str:
    plain = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}
    return plain.get(kind) or (
        str(kind).replace("typing.", "").replace("dict[str, Any]", "a table").replace("|", "or")
    )
