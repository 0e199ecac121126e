"""Amazon's reviews as McAuley's group publishes them: the editions of 2018 and of 2023.

A category has two files of JSON Lines, gzipped, of several GB: reviews, and metadata with titles.
"""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple, cast

from latentgym.data.files import DataError, Row, json_lines, readable
from latentgym.data.interactions import (
    BEST_RATING,
    LAST_SECOND,
    Gathering,
    Interactions,
    Item,
    usable_title,
)
from latentgym.progress import progress_bar
from latentgym.text.tokenizers import one_line

_GZIP = b"\x1f\x8b"
_MB = 1_000_000
_SHOWN = 200  # characters of the names of fields
_SEVERAL = 5_000  # rows between two movements of the bar


class _Edition(NamedTuple):
    """The names of fields."""

    year: int
    user: str
    item: str
    rating: str
    time: str
    per_second: int


_EDITIONS = (
    _Edition(2018, "reviewerID", "asin", "overall", "unixReviewTime", 1),
    _Edition(2023, "user_id", "parent_asin", "rating", "timestamp", 1000),
)


def read_amazon(reviews: Path, metadata: Path, max_words: int = 20) -> Interactions:
    """The reviews of a category whose items have a usable title.

    Args:
        reviews: such as `CDs_and_Vinyl_5.json.gz` (2018) or `CDs_and_Vinyl.jsonl.gz` (2023).
        metadata: of the same edition, such as `meta_CDs_and_Vinyl.json.gz`.
        max_words: items with longer titles have no usable one.

    Raises:
        DataError: a file is missing, damaged or something else; or none of the items has a title.
    """
    for path in (reviews, metadata):
        if not path.is_file():
            raise DataError(f"there is no file {path}; give the reviews and then their metadata.")
    edition = _edition(reviews)
    titles = _titles(metadata, edition, max_words)
    users: dict[str, int] = {}
    items: dict[str, int] = {}
    found, untitled = Gathering(), 0
    for row in _rows(reviews):
        item = _id(row, edition.item)
        if item not in titles:
            untitled += 1
            continue
        user, rating, time = _id(row, edition.user), *_numbers(row, edition)
        found.user.append(users.setdefault(user, len(users)))
        found.item.append(items.setdefault(item, len(items)))
        found.time.append(time)
        found.rating.append(rating)
    if not items:
        raise DataError(
            f"none of the {untitled} reviews in {reviews} is of an item with a usable title in "
            f"{metadata}; give files of the same category, or raise --max-words."
        )
    catalogue = [Item(titles[asin], more={"asin": asin}) for asin in items]
    return found.interactions(list(users), catalogue, untitled, edition.per_second)


def _edition(reviews: Path) -> _Edition:
    """The edition of reviews, by the fields of their first row."""
    with _opened(reviews) as (_, rows):
        first = next(rows, None)
    if first is None:
        raise DataError(f"{reviews} is empty; get the file again.")
    for edition in _EDITIONS:
        if {edition.user, edition.item} <= first.fields.keys():
            return edition
    raise DataError(
        f"{reviews} holds no Amazon reviews (its first row has {_names(first)}); give the reviews "
        "of 2018 or 2023 first and then their metadata."
    )


def _titles(metadata: Path, edition: _Edition, max_words: int) -> dict[str, str]:
    """The usable titles; where an item is there twice, the first of them."""
    titles: dict[str, str] = {}
    checked = False
    for row in _rows(metadata):
        if not checked and (edition.item not in row.fields or edition.user in row.fields):
            raise DataError(
                f"{metadata} holds no Amazon metadata of {edition.year}, the edition of the "
                f"reviews (its first row has {_names(row)}); give the file meta_... of that "
                "edition."
            )
        checked = True
        title = usable_title(row.fields.get("title"), max_words)
        if title is not None:
            titles.setdefault(_id(row, edition.item), title)
    if not checked:
        raise DataError(f"{metadata} is empty; get the file again.")
    return titles


@contextmanager
def _opened(path: Path) -> Iterator[tuple[IO[bytes], Iterator[Row]]]:
    """The file, and the rows of JSON Lines in it, whatever it is called, packed or not."""
    with readable(path), path.open("rb") as raw:
        packed = raw.peek(2)[:2] == _GZIP
        file = io.BufferedReader(gzip.GzipFile(fileobj=raw), _MB) if packed else raw
        yield raw, json_lines(str(path), cast(IO[bytes], file))


def _rows(path: Path) -> Iterator[Row]:
    """The rows, with a progress bar."""
    total, done = path.stat().st_size // _MB, 0
    with _opened(path) as (raw, rows), progress_bar(f"read {path.name}, MB", total) as advance:
        for count, row in enumerate(rows):
            if count % _SEVERAL == 0:
                now = raw.tell() // _MB
                advance(now - done)
                done = now
            yield row


def _id(row: Row, name: str) -> str:
    value = row.fields.get(name)
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise row.fault(f"the field {name!r} must be a text of visible characters")
    return value


def _numbers(row: Row, edition: _Edition) -> tuple[float, int]:
    rating, time = row.fields.get(edition.rating), row.fields.get(edition.time)
    if isinstance(rating, bool) or not isinstance(rating, int | float) or not _fits(rating):
        raise row.fault(f"the field {edition.rating!r} must be a number from 0 to {BEST_RATING}")
    if type(time) is not int or not 0 <= time <= LAST_SECOND * edition.per_second:
        unit = "seconds" if edition.per_second == 1 else "milliseconds"
        raise row.fault(f"the field {edition.time!r} must be a whole number of {unit} since 1970")
    return rating, time


def _fits(rating: float) -> bool:
    return 0 <= rating <= BEST_RATING


def _names(row: Row) -> str:
    """The fields of a row that may be anything, for a message."""
    return one_line(", ".join(sorted(row.fields)[:12]))[:_SHOWN] or "no fields"
