"""What is kept of interactions, and how they become rows: against the plain definitions."""

from __future__ import annotations

import gzip
import json
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentgym.data import DATASETS, DataError
from latentgym.data.interaction_files import parts, write
from latentgym.data.interactions import (
    Gathering,
    Interactions,
    Item,
    Recipe,
    core,
    filtered,
    months_before,
    usable_title,
)
from latentgym.data.recommendation import sequences
from latentgym.data.shop import SPLITS
from latentgym.errors import UsageError

DAY = 86_400
Pairs = list[tuple[int, int]]
PAIRS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=60)
TRIPLES = st.lists(
    st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 20)), min_size=1, max_size=80
)


def interactions(rows: list[tuple[int, int, int]], rating: float = 4.0) -> Interactions:
    """Of (user, item, time)."""
    found = Gathering()
    for user, item, time in rows:
        found.user.append(user)
        found.item.append(item)
        found.time.append(time)
        found.rating.append(rating)
    users = [f"u{n}" for n in range(1 + max((u for u, _, _ in rows), default=0))]
    items = [Item(f"Title {n}") for n in range(1 + max((i for _, i, _ in rows), default=0))]
    return found.interactions(users, items, 0)


def regular(users: int = 6, items: int = 6, since: int = 0) -> list[tuple[int, int, int]]:
    """Everyone chooses everything, a day each."""
    return [(u, (u + t) % items, since + t * DAY + u) for u in range(users) for t in range(items)]


def rows_of(folder: Path, split: str) -> list[dict[str, Any]]:
    text = gzip.decompress((folder / f"{split}.jsonl.gz").read_bytes()).decode("utf-8")
    return [json.loads(line) for line in text.splitlines()]


def plain_core(pairs: Pairs, k: int) -> set[int]:
    """The union of all sets of pairs in which everyone has k or more, found by taking away one."""
    kept = set(range(len(pairs)))
    while True:
        poor = [
            n
            for n in kept
            if sum(pairs[m][0] == pairs[n][0] for m in kept) < k
            or sum(pairs[m][1] == pairs[n][1] for m in kept) < k
        ]
        if not poor:
            return kept
        kept.remove(poor[0])


@given(PAIRS, st.integers(1, 4))
def test_core_is_the_definition(pairs: Pairs, k: int) -> None:
    users, items = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    kept = core(users, items, k)
    assert kept.tolist() == sorted(plain_core(pairs, k))


@given(TRIPLES)
def test_in_time_and_once(rows: list[tuple[int, int, int]]) -> None:
    kept, _ = filtered(interactions(rows), Recipe(core=1))
    first: dict[tuple[int, int], int] = {}
    for user, item, time in sorted(rows, key=lambda row: row[2]):
        first.setdefault((user, item), time)
    got = list(zip(kept.user_N.tolist(), kept.item_N.tolist(), kept.time_N.tolist(), strict=True))
    assert got == [(*pair, time) for pair, time in first.items()]


@given(TRIPLES, st.sampled_from(["time", "leave-one-out"]))
def test_every_interaction_but_the_first_has_a_part(
    rows: list[tuple[int, int, int]], split: str
) -> None:
    user_N = interactions(rows).user_N
    part_N = parts(user_N, split)
    for user in set(user_N.tolist()):
        own = part_N[user_N == user].tolist()
        assert own[0] == -1 and -1 not in own[1:]
        if split == "leave-one-out":
            assert own[1:] == [0, 0, *[0] * len(own), 1, 2][-len(own) + 1 :] or len(own) == 1
    with_row = part_N[part_N >= 0]
    if split == "time":
        assert (np.diff(with_row) >= 0).all()
        n = len(with_row)
        shares = [n * 8 // 10, n * 9 // 10 - n * 8 // 10, n - n * 9 // 10]
        assert np.bincount(with_row, minlength=3).tolist() == shares


@pytest.mark.parametrize("split", ["time", "leave-one-out"])
def test_rows(tmp_path: Path, split: str) -> None:
    read = interactions(regular(), rating=3.0)
    made = write(read, Recipe(split=split, history=3), tmp_path)
    assert (made.users, made.items, made.interactions) == (6, 6, 36)
    assert (made.first, made.last, made.start) == (date(1970, 1, 1), date(1970, 1, 6), None)
    own: dict[str, list[int]] = {}  # what each user has chosen so far
    catalogue = [json.loads(line) for line in (tmp_path / "items.jsonl").read_text().splitlines()]
    titles = {item["item_id"]: item["title"] for item in catalogue}
    assert sorted(titles) == list(range(6))
    rows = {name: rows_of(tmp_path, name) for name in SPLITS}
    assert [len(rows[s]) for s in SPLITS] == [made.train, made.valid, made.test]
    everything = sorted((row for s in SPLITS for row in rows[s]), key=lambda row: row["timestamp"])
    assert len(everything) == 30
    for row in everything:
        assert list(row) == [
            "user_id",
            "history_item_id",
            "history_item_title",
            "item_id",
            "item_title",
            "timestamp",
        ]
        history = own.setdefault(row["user_id"], row["history_item_id"][:1])
        assert row["history_item_id"] == history[-3:]  # all that came before, and nothing later
        assert row["history_item_title"] == [titles[i] for i in row["history_item_id"]]
        assert row["item_title"] == titles[row["item_id"]]
        history.append(row["item_id"])
    if split == "time":
        times = [[row["timestamp"] for row in rows[s]] for s in SPLITS]
        assert times[0][-1] <= times[1][0] and times[1][-1] <= times[2][0]
        assert list(map(len, times)) == [24, 3, 3]
    else:
        for user in own:
            last = [row["timestamp"] for row in everything if row["user_id"] == user][-2:]
            assert [
                [row["timestamp"] for row in rows[s] if row["user_id"] == user]
                for s in ("valid", "test")
            ] == [[last[0]], [last[1]]]
    data, known = sequences(DATASETS["AmazonCDs"], "test", source=tmp_path)
    assert len(data) == made.test and len(known) == 6
    assert data[0].gold.startswith("Title ")


def test_items_are_numbered_as_they_appear(tmp_path: Path) -> None:
    rows = [(u, 5 - i, 1000 * i + u) for u in range(6) for i in range(6)]
    write(interactions(rows), Recipe(), tmp_path)
    first = (tmp_path / "items.jsonl").read_text().splitlines()[0]
    assert json.loads(first) == {"item_id": 0, "title": "Title 5"}


def test_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(interactions(regular()), Recipe(), tmp_path / name)
    for path in sorted((tmp_path / "a").iterdir()):
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
    assert {p.name for p in (tmp_path / "a").iterdir()} == {
        "items.jsonl",
        *(f"{split}.jsonl.gz" for split in SPLITS),
    }


def test_days_of_the_window_are_whole() -> None:
    # One in each of these days and one just outside.
    times = [DAY * 10 - 1, DAY * 10, DAY * 12 + DAY - 1, DAY * 13]
    read = interactions([(0, n, time) for n, time in enumerate(times)])
    recipe = Recipe(core=1, start=date(1970, 1, 11), end=date(1970, 1, 13))
    assert filtered(read, recipe)[0].item_N.tolist() == [1, 2]


def test_the_window_moves_back_until_there_are_enough_items() -> None:
    old, new = regular(5, 8, since=0), [(u, i, t + 400 * DAY) for u, i, t in regular(5, 5)]
    read = interactions(old + new)
    recipe = {"start": date(1971, 2, 1), "core": 5}
    kept, start = filtered(read, Recipe(**recipe))  # type: ignore[arg-type]
    assert (len(np.unique(kept.item_N)), start) == (5, date(1971, 2, 1))
    kept, start = filtered(read, Recipe(**recipe, min_items=5))  # type: ignore[arg-type]
    assert start == date(1971, 2, 1)
    kept, start = filtered(read, Recipe(**recipe, min_items=6))  # type: ignore[arg-type]
    # In steps of three months to February 1970, and then to where the data begin.
    assert (len(np.unique(kept.item_N)), start) == (8, date(1970, 1, 1))
    kept, start = filtered(read, Recipe(**recipe, min_items=50))  # type: ignore[arg-type]
    assert (len(np.unique(kept.item_N)), start) == (8, date(1970, 1, 1))


def test_steps_of_the_window() -> None:
    read = interactions([(0, n, n * 40 * DAY) for n in range(20)])
    kept, start = filtered(
        read, Recipe(core=1, start=date(1972, 1, 31), end=date(1972, 2, 1), min_items=2)
    )
    assert start == date(1971, 10, 31) and kept.time_N.min() >= 668 * DAY


def test_months_before() -> None:
    assert months_before(date(2017, 10, 1), 3) == date(2017, 7, 1)
    assert months_before(date(2018, 5, 31), 3) == date(2018, 2, 28)
    assert months_before(date(2018, 1, 31), 12) == date(2017, 1, 31)
    assert months_before(date(1, 2, 1), 3) == date.min


def test_titles() -> None:
    assert usable_title("  A\tB\n &amp; <i>Ü</i> ", 20) == "A B &amp; <i>Ü</i>"
    assert usable_title("a " * 20, 20) == ("a " * 20).strip()
    for unusable in ("a " * 21, "", " \u200b\x07 ", None, ["x"], 3):
        assert usable_title(unusable, 20) is None


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"core": 7}, "have 7 interactions each; lower --core."),
        ({"core": 7, "start": date(1970, 1, 1)}, "lower --core or let --start and --end"),
        ({"start": date(1971, 1, 1)}, "the data run from 1970-01-01 to 1970-01-06; move --start"),
        ({"end": date(1969, 1, 1)}, "move --start or --end"),
        ({"min_rating": 4.5}, "no rating is 4.5 or better, the best is 4; lower --min-rating"),
        ({"core": 1, "end": date(1970, 1, 1)}, "makes 0 rows, and none for train and valid and"),
        ({"core": 1, "end": date(1970, 1, 3), "split": "leave-one-out"}, "raise --core to 4"),
    ],
)
def test_nothing_left(tmp_path: Path, settings: dict[str, Any], says: str) -> None:
    with pytest.raises(DataError) as caught:
        write(interactions(regular()), Recipe(**settings), tmp_path / "out")
    assert says in str(caught.value) and not (tmp_path / "out").exists()


def test_one_title_is_no_choice(tmp_path: Path) -> None:
    read = interactions(regular())
    for n in range(6):
        read.items[n] = Item("Greatest Hits")  # type: ignore[index]
    with pytest.raises(DataError, match="the same title"):
        write(read, Recipe(), tmp_path / "out")


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"core": 0}, "core must be a whole number from 1 on, not 0"),
        ({"history": 0}, "history must be"),
        ({"max_words": True}, "max_words must be"),
        ({"min_items": -1}, "min_items must be a whole number from 0 on"),
        ({"min_items": 3}, "give a start"),
        ({"split": "tim"}, "did you mean 'time'"),
        ({"min_rating": float("nan")}, "min_rating must be from 0 to 5"),
        ({"start": date(2000, 1, 2), "end": date(2000, 1, 1)}, "is after the end"),
    ],
)
def test_recipes_that_cannot_work(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        Recipe(**settings)


@pytest.mark.parametrize("name", ["items.jsonl", "train.jsonl", "valid.json", "test.jsonl.gz"])
def test_nothing_is_overwritten_or_hidden(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(UsageError, match="is there already"):
        write(interactions(regular()), Recipe(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_failure_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("latentgym.data.interaction_files.rows", fail)
    with pytest.raises(UsageError, match="No space left on device"):
        write(interactions(regular()), Recipe(), tmp_path)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot write"):
        write(interactions(regular()), Recipe(), tmp_path / "file" / "out")
