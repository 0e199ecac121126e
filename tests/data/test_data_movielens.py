"""MovieLens in every layout, as folder and as archive, and what is no MovieLens."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from latentgym.data import DataError
from latentgym.data import movielens as module
from latentgym.data.interaction_files import write
from latentgym.data.interactions import Interactions, Recipe
from latentgym.data.movielens import read_movielens

Files = dict[str, bytes]

FILMS = [
    (1, "Toy Story (1995)", "Animation|Children's"),
    (3, 'Café "Noir", The (1960)', "Film-Noir"),
    (7, "Long " * 21, "Drama"),
]
RATINGS = [(9, 3, "4", 300), (9, 1, "3", 100), (2, 1, "5", 200), (2, 7, "1", 50), (2, 8, "1", 60)]
_FLAGS = {"Animation": 3, "Children's": 4, "Film-Noir": 10, "Drama": 8}


def table(header: str, rows: list[tuple[object, ...]], quoting: int = csv.QUOTE_MINIMAL) -> bytes:
    out = io.StringIO()
    csv.writer(out, quoting=quoting).writerows([header.split(","), *rows])  # type: ignore[arg-type]
    return out.getvalue().encode()


def as_csv() -> Files:
    return {
        "ratings.csv": table("userId,movieId,rating,timestamp", [*RATINGS]),
        "movies.csv": table("movieId,title,genres", [*FILMS]),
        "tags.csv": b"userId,movieId,tag,timestamp\n",
        "README.txt": b"Summary",
    }


def as_dat(encoding: str = "latin-1") -> Files:
    return {
        "ratings.dat": "".join("::".join(map(str, row)) + "\n" for row in RATINGS).encode(),
        "movies.dat": "".join("::".join(map(str, row)) + "\r\n" for row in FILMS).encode(encoding),
    }


def as_100k() -> Files:
    films = ""
    for id, title, genres in FILMS:
        flags = ["0"] * 19
        for genre in genres.split("|"):
            flags[_FLAGS[genre]] = "1"
        films += "|".join([str(id), title, "01-Jan-1995", "", "http://x", *flags]) + "\n"
    ratings = "".join("\t".join(map(str, row)) + "\n" for row in RATINGS)
    return {"u.data": ratings.encode(), "u.item": films.encode("latin-1"), "ua.base": b"1\t1\t1\t1"}


LAYOUTS: dict[str, Callable[[], Files]] = {
    "ml-latest-small": as_csv,
    "ml-1m": as_dat,
    "ml-10M100K": lambda: as_dat("utf-8"),
    "ml-100k": as_100k,
}


def folder(where: Path, files: Files) -> Path:
    where.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (where / name).write_bytes(content)
    return where


def archive(path: Path, files: Files, within: str = "ml/") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in files.items():
            file.writestr(within + name, content)
        file.writestr("__MACOSX/ml/._ratings.csv", b"\x00")
    return path


def check(read: Interactions) -> None:
    assert [(item.id, item.title, item.more["genres"]) for item in read.items] == [
        (1, "Toy Story (1995)", "Animation|Children's"),
        (3, 'Café "Noir", The (1960)', "Film-Noir"),
    ]
    chosen = zip(read.user_N, read.item_N, read.time_N, read.rating_N, strict=True)
    assert [(read.users[u], read.items[i].id, int(t), float(r)) for u, i, t, r in chosen] == [
        (9, 1, 100, 3.0),
        (2, 1, 200, 5.0),
        (9, 3, 300, 4.0),
    ]
    assert read.untitled == 2  # a long title, and a film that is not listed


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout(tmp_path: Path, name: str) -> None:
    files = LAYOUTS[name]()
    check(read_movielens(folder(tmp_path / "a" / name, files)))
    check(read_movielens(tmp_path / "a"))  # the folder that it was unpacked in
    check(read_movielens(archive(tmp_path / f"{name}.zip", files, f"{name}/")))
    check(read_movielens(archive(tmp_path / "flat.zip", files, "")))


def test_csv_of_other_programs(tmp_path: Path) -> None:
    files = as_csv()
    files["movies.csv"] = b"\xef\xbb\xbf" + table("movieId,title,genres", [*FILMS], csv.QUOTE_ALL)
    files["ratings.csv"] = files["ratings.csv"].replace(b"\r\n", b"\n") + b"\n\n"
    check(read_movielens(folder(tmp_path, files)))


def test_users_and_films_keep_their_numbers(tmp_path: Path) -> None:
    films = [(100 - n, f"Film {n}", "Drama") for n in range(6)]
    ratings = [(u, 100 - (u + t) % 6, "4.5", 1000 * t + u) for u in range(40, 46) for t in range(6)]
    files = {
        "ratings.csv": table("userId,movieId,rating,timestamp", [*ratings]),
        "movies.csv": table("movieId,title,genres", [*films]),
    }
    out = tmp_path / "out"
    write(read_movielens(folder(tmp_path / "ml", files)), Recipe(), out)
    items = [json.loads(line) for line in (out / "items.jsonl").read_text().splitlines()]
    assert [item["item_id"] for item in items] == [95, 96, 97, 98, 99, 100]
    assert items[0] == {"item_id": 95, "title": "Film 5", "genres": "Drama"}
    first = json.loads(gzip.decompress((out / "train.jsonl.gz").read_bytes()).splitlines()[0])
    assert (first["user_id"], first["history_item_id"], first["item_id"]) == (40, [96], 95)


@pytest.mark.parametrize(
    ("name", "file", "line", "says"),
    [
        ("ml-latest-small", "ratings.csv", b"1,2,3", ":7: this is no rating"),
        ("ml-latest-small", "ratings.csv", b"1,x,3,4", ":7: this is no rating (invalid literal"),
        ("ml-latest-small", "ratings.csv", b"1,1,nan,4", ":7: this is no rating (nan is not from"),
        ("ml-latest-small", "ratings.csv", b"1,1,4,-1", ":7: this is no rating (-1 is no time"),
        ("ml-latest-small", "ratings.csv", b"1,-1,4,1", ":7: this is no rating (an id is out"),
        ("ml-latest-small", "ratings.csv", b"1," + b"9" * 5000, ":7: this is no rating"),
        ("ml-latest-small", "ratings.csv", b"1," + b"9" * 140_000, ":7: this is no CSV"),
        (
            "ml-1m",
            "ratings.dat",
            b"1::1::" + b"x" * 99_999 + b"::1",
            ":6: this is no rating (could",
        ),
        ("ml-latest-small", "ratings.csv", b"1,1,\xff,1", ":7: not UTF-8"),
        ("ml-latest-small", "movies.csv", b'9,"no end,Drama', ":5: this is no CSV"),
        ("ml-latest-small", "movies.csv", b'9,"no end,Drama\n10,B,Drama\n', ":5: this is no CSV"),
        ("ml-latest-small", "movies.csv", b"9,A, B,Drama", ":5: this is no film"),
        ("ml-latest-small", "movies.csv", b"1,Again,Drama", ":5: the film 1 is that of line 2"),
        ("ml-latest-small", "movies.csv", b"-1,A,Drama", ":5: this is no film (-1 is no id"),
        ("ml-1m", "ratings.dat", b"1::2::3", ":6: this is no rating"),
        ("ml-1m", "movies.dat", b"5::A", ":4: this is no film"),
        ("ml-100k", "u.data", b"1 2 3 4", ":6: this is no rating"),
        ("ml-100k", "u.item", b"5|A|||", ":4: this is no film (5 fields, not 24"),
        ("ml-100k", "u.item", b"5|A", ":4: this is no film"),
    ],
)
def test_damaged_lines(tmp_path: Path, name: str, file: str, line: bytes, says: str) -> None:
    files = LAYOUTS[name]()
    files[file] += line + b"\n"
    for path in (folder(tmp_path / name, files), archive(tmp_path / "ml.zip", files)):
        with pytest.raises(DataError) as caught:
            read_movielens(path)
        assert says in str(caught.value) and file in str(caught.value)
        assert "mend or delete the row" in str(caught.value) and len(str(caught.value)) < 500


def test_no_movielens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(path: Path, says: str) -> None:
        with pytest.raises(DataError, match=says):
            read_movielens(path)

    fails(tmp_path / "nowhere", "there is no .*nowhere; give the folder or the .zip")
    fails(folder(tmp_path / "empty", {}), r"has no ratings\.csv and movies\.csv or ratings\.dat")
    fails(archive(tmp_path / "none.zip", {"a": b""}), r"none\.zip has no ratings\.csv")
    files = as_csv()
    del files["movies.csv"]
    fails(folder(tmp_path / "half", files), r"has ratings\.csv, but not movies\.csv")
    fails(archive(tmp_path / "half.zip", files), r"has ml/ratings\.csv, but not ml/movies\.csv")
    fails(tmp_path / "half" / "ratings.csv", "neither a folder nor a zip archive")
    folder(tmp_path / "two" / "ml-1m", as_dat())
    folder(tmp_path / "two" / "ml-100k", as_100k())
    fails(tmp_path / "two", r"has ml-100k/u\.data and ml-1m/ratings\.dat; give the folder of one")
    other = as_csv() | {"ratings.csv": b"user,item\n1,2\n"}
    fails(folder(tmp_path / "other", other), r"ratings\.csv:1: the first line must be userId,movie")
    bare = as_csv() | {"ratings.csv": b"userId,movieId,rating,timestamp\n"}
    fails(folder(tmp_path / "bare", bare), "has 0 ratings, but none of a film .*get the files")
    with pytest.raises(DataError, match=r"has 5 ratings, but none .*raise --max-words"):
        read_movielens(folder(tmp_path / "short", as_csv()), max_words=1)
    fails(
        folder(tmp_path / "blank", as_csv() | {"movies.csv": b""}), "must be movieId,title,genres"
    )
    monkeypatch.setattr(module, "MAX_LINE_BYTES", 60)
    fails(folder(tmp_path / "long", as_csv()), r"movies\.csv:4: longer than 10 MB")


def test_damaged_archives(tmp_path: Path) -> None:
    path = archive(tmp_path / "ml.zip", as_csv())
    whole = path.read_bytes()

    def fails(content: bytes, says: str) -> None:
        path.write_bytes(content)
        with pytest.raises(DataError, match=says):
            read_movielens(path)

    fails(whole[:-30], "neither a folder nor a zip archive, or it is damaged; get the files")
    place = whole.index(b"ratings.csv") + len(b"ratings.csv")
    garbled = whole[: place + 4] + b"\xff" * 8 + whole[place + 12 :]
    fails(garbled, r"ml\.zip\[ml/ratings\.csv\]: .*get the files")
    # The mark of a password, in the archive's list of what it holds.
    entry = whole.index(b"PK\x01\x02")
    fails(whole[: entry + 8] + b"\x01" + whole[entry + 9 :], r"ml\.zip.*password required")


def test_names_that_a_terminal_would_obey(tmp_path: Path) -> None:
    files = as_csv()
    del files["movies.csv"]
    path = archive(tmp_path / "ml.zip", files, "\x1b[31m\n/")
    with pytest.raises(DataError) as caught:
        read_movielens(path)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", ["../x", "/etc/x", "ml/../../x", "ml\\..\\x"])
def test_paths_that_escape(tmp_path: Path, name: str) -> None:
    path = archive(tmp_path / "ml.zip", as_csv() | {"PLACEHOLDER": b""}, "")
    name = name.ljust(len("PLACEHOLDER"), "y")
    path.write_bytes(path.read_bytes().replace(b"PLACEHOLDER", name.encode()))
    with pytest.raises(DataError, match="has a path that leads out of it"):
        read_movielens(path)


def test_the_real_one(tmp_path: Path, real_data: str) -> None:
    source = Path(real_data) / "movielens_latest_small"
    ratings = gzip.decompress((source / "interactions.jsonl.gz").read_bytes()).splitlines()
    films = (source / "items.jsonl").read_text("utf-8").splitlines()
    files = {
        "ratings.csv": table(
            "userId,movieId,rating,timestamp", [tuple(json.loads(r).values()) for r in ratings]
        ),
        "movies.csv": table("movieId,title,genres", [tuple(json.loads(f).values()) for f in films]),
    }
    read = read_movielens(folder(tmp_path / "ml-latest-small", files), max_words=1000)
    assert (len(read), len(read.users), len(read.items)) == (100_592, 610, 9742)
    made = write(read, Recipe(core=1, max_words=1000), tmp_path / "out")
    assert (made.users, made.interactions, made.untitled) == (610, 100_592, 0)
    assert made.train + made.valid + made.test == 100_592 - 610
