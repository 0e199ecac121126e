"""The rows of a cell's `each`, which fill places such as `{task}` in its name and its texts."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import product
from math import prod
from typing import Any

from latentgym.errors import did_you_mean
from latentgym.evaluation.suites.keys import CELL, MOST_CELLS, FaultError, check

_PLACE = re.compile(r"\{(\w+)\}")
_LEFT_OUT = object()


def rows_of(
    name: str, table: Mapping[str, Any], defaults: Mapping[str, Any], lists: Mapping[str, Any]
) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Name, keys and defaults of a cell for each row of its `each`, whose places the row fills.

    Raises:
        FaultError: `each` is no rows, or a place is not filled.
    """
    keys = {key: value for key, value in table.items() if key != "each"}
    everywhere = {place for rows in lists.values() for row in rows for place in row}
    if "each" not in table:
        yield name, keys, fill(defaults, {}, everywhere)
        return
    each: Any = table["each"]
    check({"each": each}, CELL, "a cell")
    given: list[Any] = [each] if isinstance(each, str) else each
    rows: list[dict[str, Any]] = given
    if given and isinstance(given[0], str):
        for wanted in given:
            if wanted not in lists:
                raise FaultError(f"each names no list {wanted!r}; {did_you_mean(wanted, lists)}")
        if prod(len(lists[wanted]) for wanted in given) > MOST_CELLS:
            raise FaultError(f"each has more than {MOST_CELLS:,} rows")
        rows = [
            {k: v for row in some for k, v in row.items()}
            for some in product(*(lists[wanted] for wanted in given))
        ]
    known = {place for row in rows for place in row}
    for row in rows:
        filled = fill(keys, row, known), fill(defaults, row, known | everywhere)
        yield str(fill(name, row, known)), *filled


def fill(value: Any, row: Mapping[str, Any], known: set[str]) -> Any:
    """A value with the places in it filled; one that is a place alone is what the row has there.

    A key whose place another row fills, and this one does not, is left out.

    Raises:
        FaultError: no row has a place, or this row lacks one within a text.
    """
    if isinstance(value, dict):
        filled = {key: fill(each, row, known) for key, each in value.items()}
        return {key: each for key, each in filled.items() if each is not _LEFT_OUT}
    if isinstance(value, list):
        return [fill(each, row, known) for each in value]
    if not isinstance(value, str):
        return value
    for place in _PLACE.findall(value):
        if place not in known:
            raise FaultError(f"no row of each has {place!r}, which {value!r} asks for")
    if (whole := _PLACE.fullmatch(value)) is not None:
        return row.get(whole[1], _LEFT_OUT)
    if missing := [place for place in _PLACE.findall(value) if place not in row]:
        raise FaultError(f"a row of each lacks {missing[0]!r}, which {value!r} asks for")
    return _PLACE.sub(lambda match: str(row[match[1]]), value)
