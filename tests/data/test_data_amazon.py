"""Amazon's reviews as they are published, both editions, and files that are something else."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from latentgym.data import DataError, files
from latentgym.data.amazon import read_amazon

Rows = list[dict[str, Any]]
Pack = Callable[[bytes], bytes]

REVIEWS_2018: Rows = [
    {
        "overall": rating,
        "verified": True,
        "reviewTime": "09 1, 2016",
        "reviewerID": user,
        "asin": asin,
        "style": {"Format:": " Audio CD"},
        "reviewText": "{é} \u2028 words",
        "unixReviewTime": time,
    }
    for user, asin, rating, time in [
        ("A1", "B2", 5.0, 1_472_688_000),
        ("A1", "B1", 1.0, 1_472_601_600),
        ("A2", "B2", 3.0, 1_472_688_000),
        ("A2", "LONG", 3.0, 1_472_688_000),
        ("A2", "LIST", 3.0, 1_472_688_000),
        ("A3", "GONE", 3.0, 1_472_688_000),
        ("A3", "B1", 2.0, 1_472_688_000),
    ]
]
META_2018: Rows = [
    {"asin": "B1", "title": "Café &amp; <span>Bar</span>  Live", "brand": "", "also_buy": ["B2"]},
    {"asin": "B2", "title": ""},
    {"asin": "B2", "title": "日本 \u200b Two"},
    {"asin": "B2", "title": "A later title"},
    {"asin": "LONG", "title": "word " * 21},
    {"asin": "LIST", "title": ["A", "B"]},
    {"asin": "NEVER", "title": "Never reviewed"},
]
REVIEWS_2023: Rows = [
    {
        "rating": 5.0,
        "title": "Great",
        "text": "",
        "asin": f"variant of {asin}",
        "parent_asin": asin,
        "user_id": user,
        "timestamp": time,
    }
    for user, asin, time in [
        ("U1", "P1", 1_472_688_000_900),
        ("U1", "P2", 1_472_688_000_100),
        ("U2", "P1", 1_472_600_000_000),
    ]
]
META_2023: Rows = [
    {"main_category": "Music", "title": "One", "parent_asin": "P1", "price": None},
    {"main_category": None, "title": "Two", "parent_asin": "P2"},
]


def written(path: Path, rows: Rows, pack: Pack = gzip.compress) -> Path:
    path.write_bytes(pack("".join(json.dumps(row) + "\n" for row in rows).encode()))
    return path


@pytest.mark.parametrize("pack", [gzip.compress, bytes])
def test_2018(tmp_path: Path, pack: Pack) -> None:
    read = read_amazon(
        written(tmp_path / "CDs_and_Vinyl_5.json.gz", REVIEWS_2018, pack),
        written(tmp_path / "meta_CDs_and_Vinyl.json.gz", META_2018, pack),
    )
    assert [(item.title, item.id, dict(item.more)) for item in read.items] == [
        ("日本 Two", None, {"asin": "B2"}),
        ("Café &amp; <span>Bar</span> Live", None, {"asin": "B1"}),
    ]
    assert read.untitled == 3
    chosen = [
        (read.users[u], read.items[i].more["asin"], r)
        for u, i, r in zip(read.user_N, read.item_N, read.rating_N, strict=True)
    ]
    # In time, and of a day in the order of the file.
    assert chosen == [("A1", "B1", 1.0), ("A1", "B2", 5.0), ("A2", "B2", 3.0), ("A3", "B1", 2.0)]
    assert read.time_N.tolist() == [1_472_601_600, *[1_472_688_000] * 3]


def test_2023(tmp_path: Path) -> None:
    read = read_amazon(
        written(tmp_path / "CDs_and_Vinyl.jsonl.gz", REVIEWS_2023),
        written(tmp_path / "meta_CDs_and_Vinyl.jsonl.gz", META_2023),
    )
    # Seconds in the end, but milliseconds decide what came first.
    assert read.time_N.tolist() == [1_472_600_000, 1_472_688_000, 1_472_688_000]
    assert [read.items[i].title for i in read.item_N] == ["One", "Two", "One"]


def test_longer_titles_can_be_asked_for(tmp_path: Path) -> None:
    reviews, meta = written(tmp_path / "r", REVIEWS_2018), written(tmp_path / "m", META_2018)
    assert read_amazon(reviews, meta, max_words=21).untitled == 2
    assert [item.title for item in read_amazon(reviews, meta, max_words=2).items] == ["日本 Two"]


@pytest.mark.parametrize(
    ("reviews", "meta", "says"),
    [
        (META_2018, REVIEWS_2018, "r holds no Amazon reviews (its first row has also_buy, asin"),
        (REVIEWS_2018, REVIEWS_2018, "m holds no Amazon metadata of 2018"),
        (REVIEWS_2023, REVIEWS_2023, "m holds no Amazon metadata of 2023"),
        (REVIEWS_2018, META_2023, "m holds no Amazon metadata of 2018"),
        (REVIEWS_2023, META_2018, "m holds no Amazon metadata of 2023"),
        ([{"a": 1}], META_2018, "r holds no Amazon reviews (its first row has a)"),
        ([{"\ud800\x1b[1m": 1}], META_2018, "r holds no Amazon reviews (its first row has [1m)"),
        ([{}], META_2018, "r holds no Amazon reviews (its first row has no fields)"),
        ([], META_2018, "r is empty; get the file again"),
        (REVIEWS_2018, [], "m is empty; get the file again"),
        (REVIEWS_2018, META_2018[-1:], "none of the 7 reviews in"),
    ],
)
def test_other_files(tmp_path: Path, reviews: Rows, meta: Rows, says: str) -> None:
    with pytest.raises(DataError) as caught:
        read_amazon(written(tmp_path / "r", reviews), written(tmp_path / "m", meta))
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"reviewerID": None}, "'reviewerID' must be a text"),
        ({"reviewerID": "a\x1b[31m"}, "'reviewerID' must be a text of visible characters"),
        ({"asin": 3}, "'asin' must be a text"),
        ({"overall": "5"}, "'overall' must be a number from 0 to 5"),
        ({"overall": True}, "'overall' must be"),
        ({"overall": 6}, "'overall' must be"),
        ({"unixReviewTime": 1.5}, "'unixReviewTime' must be a whole number of seconds"),
        ({"unixReviewTime": -1}, "'unixReviewTime' must be"),
        ({"unixReviewTime": 10**30}, "'unixReviewTime' must be"),
    ],
)
def test_damaged_reviews(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    rows = [*REVIEWS_2018[:2], REVIEWS_2018[2] | change]
    reviews = written(tmp_path / "r.json.gz", rows)
    with pytest.raises(DataError) as caught:
        read_amazon(reviews, written(tmp_path / "m", META_2018))
    assert str(caught.value).startswith(f"{reviews}:3: ") and says in str(caught.value)


def test_milliseconds_that_are_seconds_of_no_year(tmp_path: Path) -> None:
    reviews = written(tmp_path / "r", [REVIEWS_2023[0] | {"timestamp": "1472688000900"}])
    with pytest.raises(DataError, match="whole number of milliseconds"):
        read_amazon(reviews, written(tmp_path / "m", META_2023))


def test_damaged_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reviews, meta = written(tmp_path / "r.gz", REVIEWS_2018), written(tmp_path / "m", META_2018)

    def fails(says: str, reviews: Path = reviews, meta: Path = meta) -> None:
        with pytest.raises(DataError, match=says):
            read_amazon(reviews, meta)

    fails("there is no file .*nowhere; give the reviews", reviews=tmp_path / "nowhere")
    fails("there is no file .*nowhere; give the reviews", meta=tmp_path / "nowhere")
    fails("there is no file", reviews=tmp_path)
    bad = tmp_path / "bad"
    for packed in (gzip.compress, bytes):
        lines = [json.dumps(row) for row in META_2018]
        bad.write_bytes(packed("\n".join([*lines, '{"asin": "B9", "tit']).encode()))
        fails(r"bad:8: not valid JSON", meta=bad)
    bad.write_bytes(reviews.read_bytes()[:-20])
    fails(r"bad: .*end-of-stream.*get the file again", reviews=bad)
    bad.write_bytes(b"\x1f\x8b but no gzip")
    fails(r"bad: .*get the file again", reviews=bad)
    bad.write_text(json.dumps([REVIEWS_2018[0]]))
    fails(r"bad:1: a JSON object is expected", reviews=bad)
    # As the metadata of 2014 were.
    bad.write_text("{'asin': 'B1', 'title': 'One'}\n")
    fails(r"bad:1: not valid JSON", meta=bad)
    bad.write_bytes(b"\x00\xff" * 100)
    fails(r"bad:1: not valid JSON", reviews=bad)
    monkeypatch.setattr(files, "MAX_LINE_BYTES", 1000)
    written(bad, [*REVIEWS_2018, REVIEWS_2018[0] | {"reviewText": "x" * 1000}])
    fails(r"bad:8: longer than", reviews=bad)
