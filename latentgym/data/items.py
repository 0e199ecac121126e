"""What can be recommended: items and their titles."""

from __future__ import annotations

from collections.abc import Iterable

from latentgym.data.files import DataError, Row, check_fields
from latentgym.text.tokenizers import one_line

ITEMS = "items"  # the file beside the splits
_FIELDS: dict[str, type | tuple[type, ...]] = {"item_id": int, "title": str}


class Catalogue:
    """Items that can be recommended, known by their titles.

    Items of the same title are one entry, since no answer could tell them apart.

    Args:
        rows: one item each, with `item_id` and `title`; entries keep the order of the rows.
        place: what holds them, for messages.

    Attributes:
        titles: of the entries, in one line each; no two are equal.
        entry_of: number of the entry of each item, by the item's id.
        entry_of_title: the same by title.

    Raises:
        DataError: a damaged row, a title without a visible character, two rows of one item, or
            fewer than two entries.
    """

    def __init__(self, rows: Iterable[Row], place: str) -> None:
        self.place = place
        self.entry_of: dict[int, int] = {}
        self.entry_of_title: dict[str, int] = {}
        for row in rows:
            check_fields(row, _FIELDS)
            item, title = row.fields["item_id"], one_line(row.fields["title"])
            if not title:
                raise row.fault("the title has no visible character")
            if item in self.entry_of:
                raise row.fault(f"the item {item} is there twice")
            entry = self.entry_of_title.setdefault(title, len(self.entry_of_title))
            self.entry_of[item] = entry
        self.titles = tuple(self.entry_of_title)
        if len(self.titles) < 2:
            raise DataError(
                f"{place} has {len(self.titles)} titles, but one can only recommend among two or "
                "more; add items."
            )

    def __len__(self) -> int:
        """How many entries there are."""
        return len(self.titles)
