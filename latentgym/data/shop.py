"""A generated bookshop whose customers' next purchase follows a known law.

A customer who has bought ..., b, a buys next, with fixed probabilities,

    `follow`   the book that follows a for readers of b's genre: one table per genre
    `recall`   the book that follows b, whatever a is
    otherwise  any book, by popularity (Zipf's law)

so the best possible ranking is known in closed form (`Shop.law`), and counting which book is
bought after which cannot reach it: two books have to be thought of together.

Titles are two to five words; some continue another title, so that one is a prefix of the other.

Legend: I items, G genres, T purchases of a customer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt

from latentgym.data.files import Row
from latentgym.data.items import Catalogue
from latentgym.errors import UsageError, did_you_mean
from latentgym.system.options.keywords import Option

SPLITS = ("train", "valid", "test")
_SHARES = (0.8, 0.9)  # of the purchases, in time: where valid and test begin

_ADJECTIVES = """
    amber ancient bitter blue brave broken burning cold copper crooked curious dark distant empty
    fallen final forgotten frozen gentle golden hidden hollow iron ivory little lonely lost narrow
    northern pale patient quiet red restless secret silent silver stolen wandering winter
""".split()
_NOUNS = """
    anchor archer bell bridge candle castle clock compass crown door dream engine falcon forest
    garden gate harbour hunter island key lantern library market mirror moon mountain needle orchard
    palace pilot river road rose sailor shadow song stranger tower violin window
""".split()
_PLACES = """
    Abbot Alder Barrow Birch Carrick Cinder Corran Dale Dunmore Eldon Fenwick Galt Harrow Hazel
    Ilford Jarrow Kestrel Kirk Larch Lomond Marsh Merrow Norwell Oban Orrin Penrose Quill Rannoch
    Sable Selby Tarn Thorne Ulver Vale Wick Wren Yarrow Yew Zennor Zeal
""".split()
_SEQUEL = "Returns"


@dataclass(frozen=True)
class ShopSettings:
    """How large a shop is, and by what law its customers buy.

    Attributes:
        items: books.
        customers: each buys `purchases` books.
        purchases: of each customer.
        genres: every book has one.
        follow: probability of the book that follows the last for readers of the genre before.
        recall: probability of the book that follows the last but one.
        history: the most books that are shown to have been bought, the newest.
        seed: of everything.

    Raises:
        UsageError: settings that cannot work.
    """

    items: Annotated[int, Option("books of the shop", 4, 100_000)] = 200
    customers: Annotated[int, Option("each buys `purchases` books", 1, 100_000)] = 2000
    purchases: Annotated[int, Option("of each customer", 3, 1000)] = 12
    genres: Annotated[int, Option("every book has one", 1, 1000)] = 4
    follow: Annotated[
        float, Option("probability of the book that follows the last one in its genre", 0, 1)
    ] = 0.7
    recall: Annotated[
        float, Option("probability of the book that follows the last but one", 0, 1)
    ] = 0.15
    history: int = 10
    seed: Annotated[int, Option("of the shop", least=0)] = 0

    def __post_init__(self) -> None:
        for name in ("items", "customers", "purchases", "genres", "history", "seed"):
            value, least = getattr(self, name), {"items": 4, "purchases": 3, "seed": 0}.get(name, 1)
            if type(value) is not int or value < least:
                raise UsageError(f"{name} must be a whole number from {least} on, not {value!r}.")
        most = 2 * len(_ADJECTIVES) * len(_NOUNS) * (len(_PLACES) + 1)
        if self.items > most:
            raise UsageError(f"there are titles for {most} books, not for {self.items}.")
        if min(self.follow, self.recall) < 0 or self.follow + self.recall > 1:
            raise UsageError(
                "follow and recall are probabilities whose sum is at most 1, but they are "
                f"{self.follow!r} and {self.recall!r}."
            )


class Shop:
    """Books, and who bought what.

    Args:
        settings: how large, and the law.
    """

    def __init__(self, settings: ShopSettings | None = None) -> None:
        self.settings = s = settings or ShopSettings()
        rng = np.random.default_rng(s.seed)
        self.titles = _titles(s.items, rng)
        self.genre_I: npt.NDArray[np.int64] = rng.integers(s.genres, size=s.items)
        self.next_GI = np.stack([rng.permutation(s.items) for _ in range(s.genres)])
        self.recalled_I = rng.permutation(s.items)
        popularity = 1 / np.arange(1, s.items + 1)
        self.popularity_I = rng.permutation(popularity / popularity.sum())
        self._bought_CT = self._purchases(rng)
        # Customers come one after another, and buy a book a day.
        self._start_C: npt.NDArray[np.int64] = np.sort(
            rng.integers(10 * s.purchases, size=s.customers)
        )

    @cached_property
    def catalogue(self) -> Catalogue:
        """All books."""
        rows = (
            Row("generated[items]", i + 1, {"item_id": i, "title": title})
            for i, title in enumerate(self.titles)
        )
        return Catalogue(rows, "generated[items]")

    def law(self, history: Sequence[int]) -> npt.NDArray[np.float64]:
        """The probability of each book to be bought next, (I,), after these, oldest first."""
        s, last = self.settings, history[-1]
        before = history[-2] if len(history) > 1 else last
        chance_I = (1 - s.follow - s.recall) * self.popularity_I
        chance_I[self.next_GI[self.genre_I[before], last]] += s.follow
        chance_I[self.recalled_I[before]] += s.recall
        return chance_I

    def rows(self, split: str) -> Iterator[Row]:
        """The purchases of a split in time, each with what its customer had bought before.

        The first eight tenths of all purchases are for training, the next tenth for validation.

        Raises:
            UsageError: no such split.
        """
        if split not in SPLITS:
            raise UsageError(f"no split {split!r}; {did_you_mean(split, SPLITS)}")
        purchases = self.settings.purchases
        day_CT = self._start_C[:, None] + np.arange(purchases)
        order = np.argsort(day_CT[:, 1:], axis=None, kind="stable")
        edges = [0, *(int(share * order.size) for share in _SHARES), order.size]
        part = SPLITS.index(split)
        for number, place in enumerate(order[edges[part] : edges[part + 1]].tolist(), start=1):
            customer, t = divmod(place, purchases - 1)
            yield Row(f"generated[{split}]", number, self._row(customer, t + 1))

    def _row(self, customer: int, t: int) -> Mapping[str, Any]:
        bought = self._bought_CT[customer]
        history = bought[max(0, t - self.settings.history) : t].tolist()
        item = int(bought[t])
        return {
            "user_id": customer,
            "history_item_id": history,
            "history_item_title": [self.titles[i] for i in history],
            "item_id": item,
            "item_title": self.titles[item],
            "timestamp": int(self._start_C[customer] + t) * 86_400,
        }

    def _purchases(self, rng: np.random.Generator) -> npt.NDArray[np.int64]:
        """What each customer buys in order, by the law."""
        s = self.settings
        by_chance_CT: npt.NDArray[np.int64] = rng.choice(
            s.items, size=(s.customers, s.purchases), p=self.popularity_I
        )
        lot_CT = rng.random((s.customers, s.purchases))
        bought_CT: npt.NDArray[np.int64] = by_chance_CT.copy()
        for t in range(1, s.purchases):
            last, before = bought_CT[:, t - 1], bought_CT[:, max(0, t - 2)]
            follows = self.next_GI[self.genre_I[before], last]
            recalled = self.recalled_I[before]
            lot = lot_CT[:, t]
            bought_CT[:, t] = np.where(
                lot < s.follow,
                follows,
                np.where(lot < s.follow + s.recall, recalled, by_chance_CT[:, t]),
            )
        return bought_CT


def _titles(count: int, rng: np.random.Generator) -> list[str]:
    """Different titles, every sixth of which continues another."""
    stems = _ADJECTIVES, _NOUNS
    plain = -(-5 * count // 6)
    places = ["", *_PLACES] if plain > len(stems[0]) * len(stems[1]) else [""]
    total = len(stems[0]) * len(stems[1]) * len(places)
    plain = min(max(plain, count - total), total)
    titles = []
    for number in rng.choice(total, size=plain, replace=False).tolist():
        rest, place = divmod(number, len(places))
        adjective, noun = divmod(rest, len(stems[1]))
        of_place = f" of {places[place]}" if places[place] else ""
        titles.append(f"{stems[0][adjective].title()} {stems[1][noun].title()}{of_place}")
    return titles + [f"{title} {_SEQUEL}" for title in titles[: count - plain]]
