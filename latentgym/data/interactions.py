"""Who chose what and when: interactions as arrays, and what is left of them after filtering.

The steps are those of D3 and LatentR3: no items without a title or with a very long one, a window
of time that may reach further back until it holds enough items, and the k-core.

Legend: N interactions, in time; those of one moment keep the order of the file.
"""

from __future__ import annotations

import calendar
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timezone
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from latentgym.data.files import DataError
from latentgym.errors import UsageError, did_you_mean
from latentgym.text.tokenizers import one_line

SPLITTINGS = ("time", "leave-one-out")
LAST_SECOND = 253_402_300_799  # of the year 9999, the last that dates know
BEST_RATING = 5
_STEP = 3  # months by which a window grows
_DAY = 86_400

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Recipe:
    """What is kept of interactions, and how rows are made of it.

    Attributes:
        core: users and items that remain have at least so many interactions with each other.
        start, end: the first and the last day that count (UTC); None for all.
        min_items: if fewer items are left, `start` goes back by three months until there are
            so many or the data begin; 0 for a window that stays.
        min_rating: lower ratings do not count; None for all.
        max_words: items with longer titles are left out.
        history: the most items that a row shows to have been chosen, the newest.
        split: "time" for 8:1:1 of all rows in time; "leave-one-out" for each user's last row
            in test, the one before it in valid.

    Raises:
        UsageError: settings that cannot work.
    """

    core: int = 5
    start: date | None = None
    end: date | None = None
    min_items: int = 0
    min_rating: float | None = None
    max_words: int = 20
    history: int = 10
    split: str = "time"

    def __post_init__(self) -> None:
        for name in ("core", "max_words", "history", "min_items"):
            value, least = getattr(self, name), 0 if name == "min_items" else 1
            if type(value) is not int or value < least:
                raise UsageError(f"{name} must be a whole number from {least} on, not {value!r}.")
        if self.split not in SPLITTINGS:
            raise UsageError(f"no splitting {self.split!r}; {did_you_mean(self.split, SPLITTINGS)}")
        if self.min_rating is not None and not 0 <= self.min_rating <= BEST_RATING:
            raise UsageError(
                f"min_rating must be from 0 to {BEST_RATING}, not {self.min_rating!r}."
            )
        if self.start and self.end and self.start > self.end:
            raise UsageError(f"the start, {self.start}, is after the end, {self.end}; swap them.")
        if self.min_items and not self.start:
            raise UsageError("min_items moves the start of the window back; give a start.")


class Item(NamedTuple):
    """Something that can be chosen.

    Attributes:
        title: in one line.
        id: its number if the data have one; else it is numbered when it is written.
        more: further fields of the catalogue.
    """

    title: str
    id: int | None = None
    more: Mapping[str, Any] = {}


@dataclass(frozen=True)
class Interactions:
    """Interactions in time.

    Attributes:
        user_N, item_N: positions in `users` and `items`.
        time_N: in seconds since 1970.
        rating_N: from 0 to 5.
        users: the names of users, also of those that were filtered out.
        items: the same of items.
        untitled: how many interactions of items without a usable title were not read.
    """

    user_N: Ints
    item_N: Ints
    time_N: Ints
    rating_N: npt.NDArray[np.float64]
    users: Sequence[str | int]
    items: Sequence[Item]
    untitled: int = 0

    def __len__(self) -> int:
        return len(self.time_N)

    def take(self, index: Ints | npt.NDArray[np.bool_] | slice) -> Interactions:
        """Some of them, by position, mask or slice."""
        return replace(
            self,
            user_N=self.user_N[index],
            item_N=self.item_N[index],
            time_N=self.time_N[index],
            rating_N=self.rating_N[index],
        )


@dataclass(frozen=True)
class Gathering:
    """What a reader gathers, in the order of the file, in little memory."""

    user: array[int] = field(default_factory=lambda: array("q"))
    item: array[int] = field(default_factory=lambda: array("q"))
    time: array[int] = field(default_factory=lambda: array("q"))
    rating: array[float] = field(default_factory=lambda: array("d"))

    def interactions(
        self,
        users: Sequence[str | int],
        items: Sequence[Item],
        untitled: int,
        per_second: int = 1,
    ) -> Interactions:
        """All of it, in time, which was counted in so many parts of a second."""
        time_N: Ints = np.array(self.time, dtype=np.int64)
        order = np.argsort(time_N, kind="stable")
        return Interactions(
            np.array(self.user, dtype=np.int64)[order],
            np.array(self.item, dtype=np.int64)[order],
            time_N[order] // per_second,
            np.array(self.rating, dtype=np.float64)[order],
            users,
            items,
            untitled,
        )


def usable_title(title: object, max_words: int) -> str | None:
    """The title in one line; None if it is no text, has nothing visible or too many words."""
    if not isinstance(title, str):
        return None
    line = one_line(title)
    return line if line and line.count(" ") < max_words else None


def day_of(second: int) -> date:
    """The day (UTC) of a second since 1970."""
    return datetime.fromtimestamp(second, timezone.utc).date()


def filtered(all_of: Interactions, recipe: Recipe) -> tuple[Interactions, date | None]:
    """What a recipe keeps of interactions, and where its window begins in the end.

    In this order: ratings, window, only the first of interactions of the same user and item, core.

    Raises:
        DataError: nothing is left; it says which setting is the cause.
    """
    rated = all_of
    if recipe.min_rating is not None:
        rated = all_of.take(all_of.rating_N >= recipe.min_rating)
        if not len(rated):
            raise DataError(
                f"no rating is {recipe.min_rating:g} or better, the best is "
                f"{all_of.rating_N.max():g}; lower --min-rating."
            )
    first = day_of(int(rated.time_N[0]))
    start, months = recipe.start, 0
    kept = _kept(rated, start, recipe)
    while start and start > first and len(np.unique(kept.item_N)) < recipe.min_items:
        months += _STEP
        start = max(months_before(recipe.start or start, months), first)
        kept = _kept(rated, start, recipe)
    if not len(kept):
        raise _nothing(rated, start, recipe)
    return kept, start


def months_before(day: date, months: int) -> date:
    """The same day so many months before, or the last of that month if it is shorter.

    The year 1 is the first.
    """
    year, month = divmod(12 * day.year + day.month - 1 - months, 12)
    if year < 1:
        return date.min
    return date(year, month + 1, min(day.day, calendar.monthrange(year, month + 1)[1]))


def core(user_N: Ints, item_N: Ints, k: int) -> Ints:
    """Positions of the k-core: the most interactions whose users and items have k or more each."""
    keep_N: Ints = np.arange(len(user_N))
    while True:
        user_M, item_M = user_N[keep_N], item_N[keep_N]
        enough_M = (np.bincount(user_M)[user_M] >= k) & (np.bincount(item_M)[item_M] >= k)
        if enough_M.all():
            return keep_N
        keep_N = keep_N[enough_M]


def _kept(rated: Interactions, start: date | None, recipe: Recipe) -> Interactions:
    window = _window(rated, start, recipe.end)
    pair_N = window.user_N * len(rated.items) + window.item_N
    once = window.take(np.sort(np.unique(pair_N, return_index=True)[1]))
    return once.take(core(once.user_N, once.item_N, recipe.core))


def _window(rated: Interactions, start: date | None, end: date | None) -> Interactions:
    low = 0 if start is None else np.searchsorted(rated.time_N, _second(start))
    high = len(rated) if end is None else np.searchsorted(rated.time_N, _second(end) + _DAY)
    return rated.take(slice(int(low), int(high)))


def _second(day: date) -> int:
    return (day - date(1970, 1, 1)).days * _DAY


def _nothing(rated: Interactions, start: date | None, recipe: Recipe) -> DataError:
    """The error for a recipe that keeps nothing."""
    if not len(_window(rated, start, recipe.end)):
        first, last = (day_of(int(rated.time_N[place])) for place in (0, -1))
        return DataError(
            f"nothing was chosen in that time, the data run from {first} to {last}; "
            "move --start or --end."
        )
    narrow = recipe.start or recipe.end
    return DataError(
        f"no users and items are left that have {recipe.core} interactions each; lower --core"
        f"{' or let --start and --end lie further apart' if narrow else ''}."
    )
