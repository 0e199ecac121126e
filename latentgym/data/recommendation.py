"""Next-item recommendation: three Amazon sets, MovieLens, and a generated bookshop.

A row is one purchase (or rating): what the user chose before, oldest first, and what next. The
layout is that of BIGRec, D3, LatentR3 and MiniOneRec, with lists as JSON lists; `items` beside the
splits is the catalogue. `latentgym data` makes such a folder of the files as they are published.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from latentgym.data.dataset import Dataset, DatasetSpec
from latentgym.data.files import DataError, Row, find, read_rows
from latentgym.data.items import ITEMS, Catalogue
from latentgym.data.question import Question
from latentgym.data.shop import SPLITS, Shop, ShopSettings
from latentgym.data.sources import data_root, load
from latentgym.errors import UsageError
from latentgym.text.tokenizers import one_line

# What the items of a set are called in a prompt.
THINGS: Mapping[str, str] = {
    "AmazonCDs": "music albums",
    "AmazonOffice": "office products",
    "AmazonIndustrial": "industrial products",
    "MovieLens": "films",
}
_SAMPLE = ShopSettings(items=120, customers=240, purchases=10)
_LISTS = ("history_item_id", "history_item_title")


def read_sequence(fields: Mapping[str, Any]) -> Question:
    """A purchase as a question: quoted titles, and the title of what came next.

    Of its `extra`, `history` and `titles` are ids and titles of what came before, oldest first,
    and `item` is the id of what came next.

    Raises:
        ValueError: the lists differ in length, are empty, or hold something else than ids and
            titles.
    """
    ids, titles = (fields[name] for name in _LISTS)
    if not ids or len(ids) != len(titles):
        raise ValueError("history_item_id and history_item_title must be equally long, not empty")
    if any(type(i) is not int for i in ids) or any(not isinstance(t, str) for t in titles):
        raise ValueError("history_item_id holds numbers and history_item_title texts")
    shown = tuple(map(one_line, titles))
    text = ", ".join(f'"{title}"' for title in shown)
    extra = {"history": tuple(ids), "titles": shown, "item": fields["item_id"]}
    return Question(text, one_line(fields["item_title"]), extra=extra)


def sequences(
    spec: DatasetSpec, split: str, *, source: str | Path | None = None, limit: int | None = None
) -> tuple[Dataset, Catalogue]:
    """The purchases of a split, and the catalogue that they are from; see `load`.

    Raises:
        DataError: data or catalogue cannot be had or are damaged, or a row names an item that the
            catalogue does not have.
    """
    data = load(spec, split, source=source, limit=limit)
    return data, _checked(data, _catalogue(spec, data.source))


def generated(
    spec: DatasetSpec, split: str, settings: ShopSettings, limit: int | None = None
) -> tuple[Dataset, Catalogue]:
    """The same of a generated bookshop.

    Raises:
        UsageError: no such split, or fewer purchases than `limit`.
    """
    shop = shop_of(settings)
    rows = list(shop.rows(split))
    if limit is not None and not 1 <= limit <= len(rows):
        raise UsageError(f"the {split} split has {len(rows)} generated purchases, not {limit}.")
    return Dataset(spec, split, "generated", rows[:limit]), shop.catalogue


@lru_cache(maxsize=4)
def shop_of(settings: ShopSettings) -> Shop:
    """The bookshop of these settings."""
    return Shop(settings)


def _catalogue(spec: DatasetSpec, source: str) -> Catalogue:
    """The catalogue that belongs to questions of that source."""
    kind, _, where = source.partition(":")
    if kind == "sample":
        return shop_of(_SAMPLE).catalogue
    root, path = data_root(), Path(where).expanduser()
    if kind == "data" and root is not None:
        folder = root / spec.folder
    elif kind == "path":
        folder = path if path.is_dir() else path.parent
    else:
        raise DataError(
            f"{spec.name} needs a catalogue beside its splits, which {source} cannot have; "
            "download the files and give their folder as source."
        )
    items = find(folder, ITEMS)
    if items is None:
        raise DataError(f"{folder} has no file {ITEMS}.jsonl with item_id and title; add it.")
    return _of_file(items, items.stat().st_mtime_ns)


@lru_cache(maxsize=4)
def _of_file(path: Path, changed: int) -> Catalogue:
    """The catalogue in a file that was changed last at that time."""
    return Catalogue(read_rows(path), str(path))


def _checked(data: Dataset, catalogue: Catalogue) -> Catalogue:
    """The catalogue, once it is known to have every item of the rows."""
    for index in range(len(data)):
        row = data.row(index)
        for item in (*row.fields["history_item_id"], row.fields["item_id"]):
            if item not in catalogue.entry_of:
                raise row.fault(f"{catalogue.place} has no item {item!r}")
        title = one_line(row.fields["item_title"])
        if catalogue.entry_of_title.get(title) != catalogue.entry_of[row.fields["item_id"]]:
            raise row.fault(f"{catalogue.place} has another title for item {row.fields['item_id']}")
    return catalogue


def _sample(split: str) -> Iterator[Row]:
    return shop_of(_SAMPLE).rows(split)


def _spec(name: str, folder: str, licence: str, url: str) -> DatasetSpec:
    return DatasetSpec(
        name=name,
        folder=folder,
        files={split: (split,) for split in SPLITS},
        read=read_sequence,
        fields={**dict.fromkeys(_LISTS, list), "item_id": int, "item_title": str},
        licence=licence,
        url=url,
        sample=_sample,
    )


_AMAZON = (
    "Amazon Review Data 2018 (UCSD): no explicit licence, research use with citation",
    "https://cseweb.ucsd.edu/~jmcauley/datasets/amazon_v2/",
)
AMAZON_CDS = _spec("AmazonCDs", "amazon_cds", *_AMAZON)
AMAZON_OFFICE = _spec("AmazonOffice", "amazon_office", *_AMAZON)
AMAZON_INDUSTRIAL = _spec("AmazonIndustrial", "amazon_industrial", *_AMAZON)
MOVIE_LENS = _spec(
    "MovieLens",
    "movielens_latest_small",
    "GroupLens: research use, no commercial use without permission",
    "https://grouplens.org/datasets/movielens/",
)
