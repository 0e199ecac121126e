"""Questions of the user's own: what is read, what is refused, and what is never in both splits."""

from __future__ import annotations

import gzip
import json
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentgym.data import DataError, own, sources
from latentgym.data.files import Row
from latentgym.data.own import load_own, same_question
from latentgym.errors import Notice

Write = Callable[..., Path]


def row(n: int, **more: Any) -> dict[str, Any]:
    return {"question": f"What is {n} plus {n}?", "answer": 2 * n, **more}


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """`write(rows, "name.jsonl")`: a file of rows, or of lines as they stand."""

    def writes(rows: Any, name: str = "mine.jsonl") -> Path:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        lines = [each if isinstance(each, str) else json.dumps(each) for each in rows]
        path.write_text("".join(f"{line}\n" for line in lines))
        return path

    return writes


def texts(data: Path, split: str, **options: Any) -> list[str]:
    return [question.text for question in load_own(data, split, **options).questions]


@pytest.mark.parametrize("share", [0.1, 0.3, 0.9])
def test_a_question_is_held_out_by_what_it_asks_alone(write: Write, share: float) -> None:
    rows = [row(n) for n in range(400)]
    train, test = (texts(write(rows), split, holdout=share) for split in ("train", "test"))
    assert not set(train) & set(test) and len(train) + len(test) == 400
    assert abs(len(test) / 400 - share) < 0.07
    # Neither order nor more rows move a question from one to the other.
    grown = write([row(n) for n in range(500)][::-1])
    assert set(train) <= set(texts(grown, "train", holdout=share))
    assert set(test) <= set(texts(grown, "test", holdout=share))


def test_a_tenth_is_held_out_unless_said_otherwise(write: Write) -> None:
    path = write(row(n) for n in range(100))
    assert texts(path, "test") == texts(path, "test", holdout=0.1)
    assert load_own(path, "test").held_out == "10 % of the questions, by a hash of their text"
    assert len(texts(path, "train", holdout=0)) == 100
    with pytest.raises(DataError, match="holdout=0 all rows are trained on"):
        load_own(path, "test", holdout=0)
    with pytest.raises(DataError, match=r"holdout=0\.1 leaves test none of the 1 questions"):
        load_own(write([row(1)]), "test" if texts(write([row(1)]), "train") else "train")


@pytest.mark.parametrize(
    "other", ["What is 3 plus 3?", " what  IS 3\nplus 3? ", "What is ３ plus 3?"]
)
def test_what_asks_the_same_is_never_in_both(write: Write, other: str) -> None:
    data = write([row(n) for n in range(6)])
    tests = write([{"question": other, "answer": 6}, row(50)], "exam.jsonl")
    with pytest.warns(Notice, match=r"1 of the 6 questions .* left out of training; .*jsonl:4\."):
        train = texts(data, "train", test_data=tests)
    assert len(train) == 5 and row(3)["question"] not in train
    assert texts(data, "test", test_data=tests) == [other.strip(), row(50)["question"]]
    assert load_own(data, "test", test_data=tests).held_out == f"the questions of {tests}"
    with pytest.raises(DataError, match=r"all questions of .* none is left to train"):
        load_own(write([row(3)]), "train", test_data=tests)


@given(st.lists(st.integers(0, 30), min_size=1, max_size=40), st.sampled_from([0.2, 0.5, 0.8]))
def test_rows_that_repeat_a_question_go_with_it(numbers: list[int], share: float) -> None:
    rows = {same_question(f"Q {n}"): n for n in numbers}
    held = {text for text in rows if own.place_of(text) < share}
    assert held == {same_question(f"q  {n}") for n in numbers if own.place_of(f"q {n}") < share}


def test_questions_that_are_there_twice_are_told(write: Write) -> None:
    path = write([row(1), row(2), row(1, answer=3), row(2)])
    with pytest.warns(Notice, match=r"2 rows ask what a row before them asks.*mine\.jsonl:3\."):
        assert len(texts(path, "train", holdout=0)) == 4
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_own(write([row(1), row(2)]), "train", holdout=0)


def test_a_folder_has_a_file_for_each_split(write: Write) -> None:
    folder = write([row(n) for n in range(5)], "mine/train.jsonl").parent
    assert len(texts(folder, "train", holdout=0)) == 5
    write([row(9)], "mine/test.json").write_text(json.dumps([row(9)]))
    assert texts(folder, "test") == [row(9)["question"]]
    with pytest.raises(DataError, match="is the test, so no rows are held out"):
        load_own(folder, "train", holdout=0.2)
    with pytest.raises(DataError, match="has no file train"):
        load_own(write([row(1)], "exam/test.jsonl").parent, "train")


def test_columns_travel_with_their_question(write: Write) -> None:
    more = {"level": 3, "steps": ["so", "then"], "forms": ["six"], "odd": {"a": [None]}}
    question = load_own(write([row(3, **more)]), "train", holdout=0).questions[0]
    assert (question.gold, question.steps, dict(question.extra)) == ("6", ("so", "then"), more)
    assert question.place.endswith("mine.jsonl:1")
    # As in a table, a column is one of all rows, those of the test among them.
    data, tests = write([row(1), row(2, level=3)]), write([row(9, hint="odd")], "exam.jsonl")
    first, second = load_own(data, "train", test_data=tests).questions
    assert dict(first.extra) == {"level": None, "hint": None}
    assert dict(second.extra) == {"level": 3, "hint": None}


DAMAGED: dict[str, tuple[list[Any], str]] = {
    "not JSON": ([row(1), "{"], r"mine\.jsonl:2: not valid JSON"),
    "a list": ([row(1), "[1]"], r":2: a JSON object is expected, not list"),
    "not a number": (['{"question": "q", "answer": NaN}'], ":1: not valid JSON"),
    "too large": (['{"question": "q", "answer": 1e999}'], ":1: this makes no question.*inf"),
    "nested": (["[" * 100_000], ":1: not valid JSON"),
    "no answer": ([row(1), {"question": "q"}], r":2: the field 'answer' is missing"),
    "no question": ([{"answer": 1}], "the field 'question' is missing"),
    "null": ([{"question": "q", "answer": None}], "'answer' is of the wrong type, NoneType"),
    "true": ([{"question": "q", "answer": True}], "'answer' is of the wrong type, bool"),
    "a list of answers": ([{"question": "q", "answer": ["a"]}], "wrong type, list"),
    "blank": ([{"question": "q", "answer": " "}], "'answer' is blank"),
    "a blank question": ([{"question": "\t", "answer": "1"}], "'question' is blank"),
    "steps as text": ([row(1, steps="so")], "steps must be a list of texts"),
    "choices of numbers": ([row(1, choices=[1, 2])], "choices must be a list of texts"),
    "empty": ([], "has no rows"),
}


@pytest.mark.parametrize(("rows", "says"), DAMAGED.values(), ids=DAMAGED)
def test_damaged_rows_are_told_with_their_line(write: Write, rows: list[Any], says: str) -> None:
    with pytest.raises(DataError, match=says):
        load_own(write(rows), "train")


def test_places_that_there_are_not(write: Write, tmp_path: Path) -> None:
    good = write([row(n) for n in range(20)])
    for where, says in [
        ("nowhere.jsonl", "neither a file, a folder nor a hub id"),
        ("owner/name", "no file or folder owner/name, and as a hub id"),
        (write(["a,b"], "mine.csv"), r"no format that is read; give \.jsonl"),
        (write(["x"], "mine.pkl"), "no format that is read"),
    ]:
        with pytest.raises(DataError, match=says):
            load_own(where, "train")
        with pytest.raises(DataError, match=says):
            load_own(good, "test", test_data=where)
    with pytest.raises(DataError, match="no split 'dev'"):
        load_own(good, "dev")
    with pytest.raises(DataError, match=r"has \d+ rows; choose a limit of at most"):
        load_own(good, "train", limit=21)


def test_the_hub_has_splits_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    splits = {"train": [row(n) for n in range(30)], "test": [row(n) for n in range(28, 33)]}

    def read(hub: Any, split: str) -> Iterator[Row]:
        yield from (Row(f"{hub}[{split}]", i, r) for i, r in enumerate(splits[split], start=1))

    monkeypatch.setattr(sources, "read_hub", read)
    monkeypatch.setattr(sources, "unusable", lambda: None)
    where = "owner/name@v1"
    held = load_own(where, "test")
    assert held.questions.source == "hub:owner/name@v1" and len(held.questions) < 30
    assert held.questions.licence == "see owner/name@v1"
    assert texts(where, "test", test_data=where) == [r["question"] for r in splits["test"]]
    with pytest.warns(Notice, match=r"2 of the 30 questions .*owner/name@v1\[train\]:29\."):
        assert len(texts(where, "train", test_data=where)) == 28
    monkeypatch.setattr(sources, "unusable", lambda: "the package datasets is not installed")
    with pytest.raises(DataError, match="as a hub id: the package datasets is not installed"):
        load_own(where, "train")


def test_a_file_that_unpacks_without_end_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "mine.jsonl.gz"
    with gzip.open(path, "wt") as file:
        file.writelines(json.dumps(row(n)) + "\n" for n in range(200))
    for name, most in (("MAX_ROWS", 100), ("MAX_CHARACTERS", 1000), ("MAX_COLUMNS", 1)):
        with monkeypatch.context() as patch:
            patch.setattr(own, name, most)
            with pytest.raises(DataError, match="give a part of it"):
                load_own(path, "train")
    assert load_own(path, "train").questions
