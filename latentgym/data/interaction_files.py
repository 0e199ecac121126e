"""Writing interactions as the folder that recommendation reads: a catalogue and three splits.

Legend: N interactions, in time.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from latentgym.data.files import DataError, find
from latentgym.data.interactions import Interactions, Ints, Recipe, day_of, filtered
from latentgym.data.items import ITEMS
from latentgym.data.shop import SPLITS
from latentgym.errors import UsageError
from latentgym.progress import progress_bar
from latentgym.storage import atomic_write, gzipped, writable

_SEVERAL = 5_000  # rows between two movements of the bar
_BLOCK = 100_000


@dataclass(frozen=True)
class Summary:
    """What a folder holds.

    Attributes:
        users, items, interactions: what is left after filtering.
        train, valid, test: rows.
        first, last: the days of the first and the last interaction.
        start: where the window begins, if there is one.
        untitled: interactions left out because their item has no usable title.
    """

    users: int
    items: int
    interactions: int
    train: int
    valid: int
    test: int
    first: date
    last: date
    start: date | None
    untitled: int


class _Entry(NamedTuple):
    """An item as rows have it."""

    id: int
    title: str


def check_free(out: Path) -> None:
    """See that a folder can be made there, or is there and holds none of the files yet.

    Raises:
        UsageError: it cannot, or it does.
    """
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file; choose another --out.")
    for stem in (ITEMS, *SPLITS):
        if found := find(out, stem):
            raise UsageError(f"{found} is there already; choose another --out, or delete it.")


def write(read: Interactions, recipe: Recipe, out: Path) -> Summary:
    """Filter interactions and write the folder: `items.jsonl` and the splits as `.jsonl.gz`.

    The same interactions and recipe give the same bytes.

    Raises:
        UsageError: the folder cannot be made, or holds such files.
        DataError: too little is left; nothing is written.
    """
    check_free(out)
    kept, start = filtered(read, recipe)
    part_N = parts(kept.user_N, recipe.split)
    counts = dict(zip(SPLITS, np.bincount(part_N + 1, minlength=4)[1:].tolist(), strict=True))
    entries = _entries(kept)
    _check_enough(counts, entries, recipe)
    with writable(out):
        out.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            # What is opened last gets its name first: with the catalogue, all is there.
            items = stack.enter_context(atomic_write(out / f"{ITEMS}.jsonl"))
            paths = [stack.enter_context(atomic_write(out / f"{s}.jsonl.gz")) for s in SPLITS]
            items.write_text("".join(_catalogue(kept, entries)), encoding="utf-8")
            _write_rows(kept, part_N, entries, recipe.history, paths)
    return Summary(
        users=len(np.unique(kept.user_N)),
        items=len(entries),
        interactions=len(kept),
        **counts,
        first=day_of(int(kept.time_N[0])),
        last=day_of(int(kept.time_N[-1])),
        start=start,
        untitled=read.untitled,
    )


def parts(user_N: Ints, split: str) -> Ints:
    """Which split each interaction is a row of: 0 train, 1 valid, 2 test; -1 for a user's first.

    Args:
        user_N: who chose, in time.
        split: "time" or "leave-one-out", as in `Recipe`.
    """
    count_U = np.bincount(user_N)
    order = np.argsort(user_N, kind="stable")
    before_N = np.empty_like(user_N)  # how many interactions the user has before this one
    before_N[order] = np.arange(len(user_N)) - (np.cumsum(count_U) - count_U)[user_N[order]]
    part_N = np.full_like(user_N, -1)
    rows = np.flatnonzero(before_N)
    if split == "time":
        edges = [len(rows) * 8 // 10, len(rows) * 9 // 10]
        part_N[rows] = np.searchsorted(edges, np.arange(len(rows)), side="right")
    else:
        after_N = count_U[user_N] - 1 - before_N
        part_N[rows] = np.maximum(2 - after_N[rows], 0)
    return part_N


def rows(
    kept: Interactions, entries: dict[int, _Entry], history: int
) -> Iterator[dict[str, Any] | None]:
    """For each interaction its row, None for a user's first."""
    newest: dict[int, deque[_Entry]] = {}
    columns = map(_each, (kept.user_N, kept.item_N, kept.time_N))
    for user, item, time in zip(*columns, strict=True):
        entry = entries[item]
        if (before := newest.get(user)) is None:
            newest[user] = deque([entry], maxlen=history)
            yield None
            continue
        yield {
            "user_id": kept.users[user],
            "history_item_id": [e.id for e in before],
            "history_item_title": [e.title for e in before],
            "item_id": entry.id,
            "item_title": entry.title,
            "timestamp": time,
        }
        before.append(entry)


def _each(values_N: Ints) -> Iterator[int]:
    """The values as numbers of Python, of which there are never many at once."""
    for begin in range(0, len(values_N), _BLOCK):
        yield from values_N[begin : begin + _BLOCK].tolist()


def _entries(kept: Interactions) -> dict[int, _Entry]:
    """The items that are left, by position: with ids of their own, or numbered as they appear."""
    present, first = np.unique(kept.item_N, return_index=True)
    by_time = present[np.argsort(first)].tolist()
    numbers = {item: number for number, item in enumerate(by_time)}
    entries = {}
    for item in by_time:
        title, id, _ = kept.items[item]
        entries[item] = _Entry(numbers[item] if id is None else id, title)
    return dict(sorted(entries.items(), key=lambda pair: pair[1].id))


def _check_enough(counts: dict[str, int], entries: dict[int, _Entry], recipe: Recipe) -> None:
    """Raise a `DataError` unless there are rows in every split and items to choose among."""
    if empty := [split for split in SPLITS if not counts[split]]:
        more = "lower --core, or let --start and --end lie further apart"
        if recipe.split == "leave-one-out" and empty == ["train"]:
            more = "raise --core to 4, since a user's first three interactions give no such row"
        raise DataError(
            f"what is left makes {sum(counts.values())} rows, and none for {' and '.join(empty)}; "
            f"{more}."
        )
    if len({entry.title for entry in entries.values()}) < 2:
        raise DataError("all items that are left have the same title; lower --core.")


def _catalogue(kept: Interactions, entries: dict[int, _Entry]) -> Iterator[str]:
    for item, entry in entries.items():
        yield _line({"item_id": entry.id, "title": entry.title, **kept.items[item].more})


def _write_rows(
    kept: Interactions,
    part_N: Ints,
    entries: dict[int, _Entry],
    history: int,
    paths: list[Path],
) -> None:
    """Write the rows, each to the file of its part."""
    with ExitStack() as stack:
        files = [stack.enter_context(gzipped(path)) for path in paths]
        advance = stack.enter_context(progress_bar("write", len(kept)))
        pairs = zip(_each(part_N), rows(kept, entries, history), strict=True)
        for count, (part, row) in enumerate(pairs, start=1):
            if row is not None:
                files[part].write(_line(row).encode("utf-8"))
            if count % _SEVERAL == 0:
                advance(_SEVERAL)
        advance(len(kept) % _SEVERAL)


def _line(fields: dict[str, Any]) -> str:
    return json.dumps(fields, ensure_ascii=False) + "\n"
