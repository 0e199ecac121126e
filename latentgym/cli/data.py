"""`latentgym data amazon REVIEWS META --out DIR`, `data movielens PATH --out DIR`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from rich.table import Table

from latentgym.cli.options import act, emit, output, parse
from latentgym.errors import UsageError
from latentgym.system.options.ranges import Interval, Number, Size, SizeOrZero
from latentgym.system.terminal import say, shown

if TYPE_CHECKING:
    from latentgym.data.interactions import Interactions, Recipe


@dataclass(frozen=True, kw_only=True)
class _Options:
    """What all data have in common."""

    out: Path
    """The folder to make."""
    core: SizeOrZero = 5
    """Users and items have at least so many interactions with each other."""
    start: str | None = None
    """The first day that counts, such as 2015-10-01."""
    end: str | None = None
    """The last day that counts."""
    min_rating: Number | None = None
    """Lower ratings do not count."""
    max_words: Size = 20
    """Items with longer titles are left out."""
    history: Size = 10
    """The most items shown to have been chosen before, the newest."""
    split: Literal["time", "leave-one-out"] = "time"
    """8:1:1 of all rows in time, or a user's last row in test and the one before it in valid."""
    json: bool = False
    """Print one JSON line on stdout, and nothing else there."""


@dataclass(frozen=True, kw_only=True)
class AmazonOptions(_Options):
    """Options of data amazon."""

    reviews: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="REVIEWS")]
    """The reviews of a category, 2018 or 2023, such as CDs_and_Vinyl_5.json.gz."""
    meta: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="META")]
    """Their metadata, such as meta_CDs_and_Vinyl.json.gz."""
    min_items: Interval = 0
    """If fewer are left, the start goes back by three months until there are so many."""


@dataclass(frozen=True, kw_only=True)
class MovieLensOptions(_Options):
    """Options of data movielens."""

    path: tyro.conf.Positional[Path]
    """A folder or a .zip, such as ml-latest-small.zip."""


def main(argv: Sequence[str]) -> int:
    """Bring recommendation data as published into the layout of the tasks."""
    actions = {
        "amazon": (_amazon, "Amazon reviews, as published in 2018 and 2023"),
        "movielens": (_movielens, "MovieLens, a folder or a .zip"),
    }
    return act("data", actions, argv)


def _amazon(argv: Sequence[str]) -> int:
    from latentgym.data.amazon import read_amazon
    from latentgym.data.interaction_files import check_free

    o = parse(AmazonOptions, argv, "data amazon", "Make a data set of Amazon reviews.")
    recipe = _recipe(o, o.min_items)
    check_free(o.out)  # before minutes of reading
    return _make(read_amazon(o.reviews, o.meta, o.max_words), recipe, o)


def _movielens(argv: Sequence[str]) -> int:
    from latentgym.data.interaction_files import check_free
    from latentgym.data.movielens import read_movielens

    o = parse(MovieLensOptions, argv, "data movielens", "Make a data set of MovieLens.")
    recipe = _recipe(o)
    check_free(o.out)
    return _make(read_movielens(o.path, o.max_words), recipe, o)


def _recipe(o: _Options, min_items: int = 0) -> Recipe:
    from latentgym.data.interactions import Recipe

    return Recipe(
        core=o.core,
        start=_day("start", o.start),
        end=_day("end", o.end),
        min_items=min_items,
        min_rating=o.min_rating,
        max_words=o.max_words,
        history=o.history,
        split=o.split,
    )


def _make(read: Interactions, recipe: Recipe, o: _Options) -> int:
    from latentgym.data.interaction_files import write

    made = write(read, recipe, o.out)
    facts = asdict(made)
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold")
    table.add_column(justify="right")
    for name in ("users", "items", "interactions", "train", "valid", "test", "first", "last"):
        table.add_row(name, shown(facts[name]))
    output(o.json).print(table)
    if made.untitled:
        say(
            f"note: {made.untitled} interactions were not read; their items have no title, or one "
            f"of more than {recipe.max_words} words."
        )
    if made.start != recipe.start:
        say(f"note: the window begins on {made.start}, to have {recipe.min_items} items.")
    if made.items < recipe.min_items:
        say(f"note: there are no more than {made.items} items, though the window is all there is.")
    days = {name: facts[name] and str(facts[name]) for name in ("first", "last", "start")}
    emit({"out": str(o.out), **facts, **days}, o.json)
    return 0


def _day(name: str, text: str | None) -> date | None:
    if text is None:
        return None
    try:
        return datetime.strptime(text, "%Y-%m-%d").date()
    except ValueError:
        raise UsageError(f"--{name} {text!r} is no day; write it like 2018-11-01.") from None
