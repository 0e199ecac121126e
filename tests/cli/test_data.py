"""`latentgym data`: what people see, and what they are told when it cannot work."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from latentgym.cli.main import main
from latentgym.data import DATASETS
from latentgym.data.recommendation import sequences

DAY = 86_400
BASE = 1_500_000_000 // DAY * DAY  # 2017-07-14


@pytest.fixture
def amazon(tmp_path: Path) -> list[str]:
    """Reviews of six albums by six people, and one of an album without a title."""
    reviews = [
        {"reviewerID": f"U{u}", "asin": f"A{(u + t) % 6}", "overall": 4.0, "unixReviewTime": time}
        for t in range(6)
        for u in range(6)
        for time in [BASE + t * DAY]
    ]
    reviews.append(reviews[0] | {"asin": "NONE"})
    meta = [{"asin": f"A{n}", "title": f"Album [bold]{n}"} for n in range(6)]
    paths = tmp_path / "CDs.json.gz", tmp_path / "meta_CDs.json.gz"
    for path, rows in zip(paths, (reviews, meta), strict=True):
        path.write_bytes(gzip.compress("".join(json.dumps(r) + "\n" for r in rows).encode()))
    return [str(path) for path in paths]


@pytest.fixture
def movielens(tmp_path: Path) -> str:
    folder = tmp_path / "ml-1m"
    folder.mkdir()
    ratings = (f"{u}::{(u + t) % 6}::4::{BASE + t}\n" for t in range(6) for u in range(6))
    (folder / "ratings.dat").write_text("".join(ratings))
    films = "".join(f"{n}::Café {n}::Drama\n" for n in range(6))
    (folder / "movies.dat").write_bytes(films.encode("latin-1"))
    return str(folder)


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*argv: str) -> tuple[int, str, str]:
        code = main(["data", *argv])
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return run


def last(text: str) -> Any:
    return json.loads(text.splitlines()[-1])


def test_amazon(amazon: list[str], tmp_path: Path, run: Run) -> None:
    out = tmp_path / "new" / "amazon_cds"
    code, shown, notes = run("amazon", *amazon, "--out", str(out), "--json")
    assert code == 0
    assert last(shown) == {
        "out": str(out),
        "users": 6,
        "items": 6,
        "interactions": 36,
        "train": 24,
        "valid": 3,
        "test": 3,
        "first": "2017-07-14",
        "last": "2017-07-19",
        "start": None,
        "untitled": 1,
    }
    assert len(shown.splitlines()) == 1
    assert "note: 1 interactions were not read" in notes
    data, catalogue = sequences(DATASETS["AmazonCDs"], "test", source=out)
    assert len(data) == 3 and len(catalogue) == 6
    first = json.loads((out / "items.jsonl").read_text().splitlines()[0])
    assert first == {"item_id": 0, "title": "Album [bold]0", "asin": "A0"}
    code, _, says = run("amazon", *amazon, "--out", str(out))
    assert code == 2 and "is there already; choose another --out" in says


def test_the_folder_is_found_in_its_place(
    amazon: list[str], tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("amazon", *amazon, "--out", str(tmp_path / "amazon_cds"))[0] == 0
    monkeypatch.setenv("LATENTGYM_DATA", str(tmp_path))
    data, _ = sequences(DATASETS["AmazonCDs"], "valid")
    assert (data.source, len(data)) == ("data:amazon_cds", 3)


def test_movielens(movielens: str, tmp_path: Path, run: Run) -> None:
    out = tmp_path / "out"
    options = ("--split", "leave-one-out", "--history", "2", "--json")
    code, shown, notes = run("movielens", movielens, "--out", str(out), *options)
    assert code == 0 and notes == ""
    assert [last(shown)[name] for name in ("train", "valid", "test")] == [18, 6, 6]
    data, _ = sequences(DATASETS["MovieLens"], "test", source=out)
    assert all(len(question.extra["history"]) == 2 for question in data)
    assert data[0].gold.startswith("Café ")


def test_the_window(amazon: list[str], tmp_path: Path, run: Run) -> None:
    window = ("--start", "2017-07-16", "--end", "2017-07-19", "--core", "4")
    code, shown, notes = run("amazon", *amazon, "--out", str(tmp_path / "a"), *window, "--json")
    assert code == 0 and last(shown)["interactions"] == 24 and "the window" not in notes
    many = ("--min-items", "7", "--json")
    code, shown, notes = run("amazon", *amazon, "--out", str(tmp_path / "b"), *window, *many)
    assert code == 0 and last(shown)["start"] == "2017-07-14"
    assert "note: the window begins on 2017-07-14" in notes
    assert "note: there are no more than 6 items" in notes


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["amazn"], "did you mean 'amazon'"),
        (["amazon", "nowhere", "META"], "there is no file nowhere"),
        (["amazon", "REVIEWS", "nowhere"], "there is no file nowhere"),
        (["amazon", "META", "REVIEWS"], "holds no Amazon reviews"),
        (["amazon", "TEXT", "META"], "text:1: not valid JSON"),
        (["amazon", "REVIEWS", "META", "--start", "2018-13-01"], "'2018-13-01' is no day; write"),
        (["amazon", "REVIEWS", "META", "--end", "yesterday"], "--end 'yesterday' is no day"),
        (["amazon", "REVIEWS", "META", "--start", "2018-02-01", "--end", "2018-01-01"], "swap"),
        (["amazon", "REVIEWS", "META", "--start", "2019-01-01"], "move --start or --end"),
        (["amazon", "REVIEWS", "META", "--min-items", "9"], "give a start"),
        (["amazon", "REVIEWS", "META", "--core", "7"], "lower --core"),
        (["amazon", "REVIEWS", "META", "--core", "0"], "core must be a whole number from 1 on"),
        (["amazon", "REVIEWS", "META", "--min-rating", "4.5"], "lower --min-rating"),
        (["amazon", "REVIEWS", "META", "--max-words", "1"], "none of the 37 reviews"),
        (["movielens", "nowhere"], "there is no nowhere; give the folder"),
        (["movielens", "TEXT"], "neither a folder nor a zip"),
        (["movielens", "."], "has no ratings.csv"),
    ],
)
def test_mistakes(
    argv: list[str],
    says: str,
    amazon: list[str],
    tmp_path: Path,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    text = tmp_path / "text"
    text.write_text("this is no data")
    names = {"REVIEWS": amazon[0], "META": amazon[1], "TEXT": str(text)}
    words = [names.get(word, word) for word in argv]
    code, shown, told = run(*words, *(["--out", "out"] if len(words) > 1 else []))
    assert code == 2 and shown == "" and list(work.iterdir()) == []
    assert says in told and told.startswith("latentgym data: ") and told.count("\n") == 1


@pytest.mark.parametrize("argv", [["--split", "tme"], ["--core", "x"], ["--nothing"]])
def test_options_that_are_none(argv: list[str], movielens: str, tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["data", "movielens", movielens, "--out", str(tmp_path / "out"), *argv])
    assert stopped.value.code == 2 and not (tmp_path / "out").exists()


def test_an_out_that_is_a_file(amazon: list[str], run: Run) -> None:
    code, _, says = run("amazon", *amazon, "--out", amazon[0])
    assert code == 2 and "is a file; choose another --out" in says
