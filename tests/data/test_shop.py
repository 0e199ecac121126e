"""The generated bookshop: its law, its time, its titles."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentgym.data.shop import SPLITS, Shop, ShopSettings
from latentgym.errors import UsageError

SMALL = ShopSettings(items=40, customers=300, purchases=8)


def rows(shop: Shop, split: str) -> list[dict]:
    return [dict(row.fields) for row in shop.rows(split)]


def test_the_law_is_a_distribution_and_what_customers_follow() -> None:
    shop = Shop(ShopSettings(items=40, customers=3000, purchases=8))
    every = [row for split in SPLITS for row in rows(shop, split)]
    assert len(every) == 3000 * 7
    law = np.stack([shop.law(row["history_item_id"]) for row in every])
    assert np.allclose(law.sum(1), 1) and (law > 0).all()
    bought = np.array([row["item_id"] for row in every])
    # The likeliest book is bought as often as the law says, and so is every other in sum.
    assert (law.argmax(1) == bought).mean() == pytest.approx(law.max(1).mean(), abs=0.01)
    often = np.bincount(bought, minlength=40) / len(bought)
    assert np.abs(often - law.mean(0)).max() < 0.01


def test_two_books_decide() -> None:
    shop = Shop(SMALL)
    last = 3
    follow = {int(shop.law([before, last]).argmax()) for before in range(40)}
    assert len(follow) == len({*shop.next_GI[:, last].tolist()}) > 1
    assert np.array_equal(shop.law([9, 1, last]), shop.law([1, last]))


def test_splits_are_in_time_and_histories_come_before() -> None:
    shop = Shop(SMALL)
    parts = [rows(shop, split) for split in SPLITS]
    assert [len(part) for part in parts] == [1680, 210, 210]
    times = [[row["timestamp"] for row in part] for part in parts]
    assert all(part == sorted(part) for part in times)
    assert all(one[-1] <= other[0] for one, other in pairwise(times))
    for row in parts[2]:
        assert 1 <= len(row["history_item_id"]) <= SMALL.history
        assert row["history_item_title"] == [shop.titles[i] for i in row["history_item_id"]]
        assert row["item_title"] == shop.titles[row["item_id"]]


@pytest.mark.parametrize("items", [12, 40, 1500, 3000, 100_000])
def test_titles_differ_and_some_continue_others(items: int) -> None:
    titles = Shop(ShopSettings(items=items, customers=2, purchases=3)).titles
    assert len(titles) == len({*titles}) == items
    known = {*titles}
    assert sum(t.removesuffix(" Returns") in known and t.endswith("Returns") for t in titles) > 0
    assert max(len(title.split()) for title in titles) <= 5


@given(st.integers(0, 5))
def test_all_is_a_function_of_the_settings(seed: int) -> None:
    settings = ShopSettings(items=10, customers=5, purchases=4, seed=seed)
    one, other = Shop(settings), Shop(settings)
    assert one.titles == other.titles
    assert rows(one, "train") == rows(other, "train")
    assert rows(one, "train") != rows(Shop(SMALL), "train")


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"items": 1}, "items must be"),
        ({"items": 10**7}, "titles for"),
        ({"purchases": 2}, "purchases must be"),
        ({"customers": 0}, "customers must be"),
        ({"genres": 1.5}, "genres must be"),
        ({"follow": 0.9, "recall": 0.2}, "at most 1"),
        ({"follow": -0.1}, "at most 1"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict, what: str) -> None:
    with pytest.raises(UsageError, match=what):
        ShopSettings(**settings)
    with pytest.raises(UsageError, match="no split"):
        next(Shop(SMALL).rows("dev"))
