"""Reading files: every fault is reported with its file and line."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from latentgym.data import files
from latentgym.data.files import DataError, Row, check_fields, find, read_rows

GOOD = '{"a": 1}\n'


def fields(path: Path) -> list[object]:
    return [dict(row.fields) for row in read_rows(path)]


def test_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(GOOD + "\n  \n" + '{"b": "\u00e9"}')
    rows = list(read_rows(path))
    assert [(row.number, dict(row.fields)) for row in rows] == [(1, {"a": 1}), (4, {"b": "\u00e9"})]
    assert rows[0].place == str(path)


def test_array_and_gzip(tmp_path: Path) -> None:
    array, lines = tmp_path / "x.json", tmp_path / "x.jsonl.gz"
    array.write_text(json.dumps([{"a": 1}, {"a": 2}]))
    lines.write_bytes(gzip.compress((GOOD * 2).encode()))
    assert fields(array) == [{"a": 1}, {"a": 2}]
    assert fields(lines) == [{"a": 1}, {"a": 1}]
    (tmp_path / "y.json.gz").write_bytes(gzip.compress(b'[{"a": 3}]'))
    assert fields(tmp_path / "y.json.gz") == [{"a": 3}]


def test_find_any_suffix(tmp_path: Path) -> None:
    assert find(tmp_path, "x") is None
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "x.json").touch()
    assert find(tmp_path, "sub/x") == tmp_path / "sub" / "x.json"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (GOOD + '{"a": \n', ":2: not valid JSON"),
        (GOOD + '["a"]\n', ":2: a JSON object is expected"),
        (GOOD + '{"a": NaN}\n', ":2: not valid JSON (NaN"),
        (GOOD + "[" * 100_000, ":2: not valid JSON"),
        (GOOD + "\ud800", ":2: not valid JSON"),
    ],
)
def test_damaged_lines(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(content.encode("utf-8", "surrogatepass"))
    with pytest.raises(DataError) as caught:
        list(read_rows(path))
    assert f"{path}{message}" in str(caught.value)
    assert "mend or delete the row" in str(caught.value)


def test_damaged_array(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    for content, message in (("{}", "not an array"), ("[{}, 3]", ":2: a JSON object"), ("", ":1:")):
        path.write_text(content)
        with pytest.raises(DataError, match=message):
            list(read_rows(path))


def test_damaged_gzip(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl.gz"
    for content in (b"no gzip", gzip.compress(GOOD.encode() * 1000)[:-20]):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"x\.jsonl\.gz: .*get the file again"):
            list(read_rows(path))


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="get the file again"):
        list(read_rows(tmp_path / "none.jsonl"))


def test_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_LINE_BYTES", 100)
    monkeypatch.setattr(files, "MAX_JSON_BYTES", 100)
    path = tmp_path / "bomb.jsonl.gz"
    path.write_bytes(gzip.compress(GOOD.encode() + b" " * 10_000_000))
    with pytest.raises(DataError, match=":2: longer than"):
        list(read_rows(path))
    path = tmp_path / "bomb.json"
    path.write_text("[" + " " * 1000 + "]")
    with pytest.raises(DataError, match="longer than"):
        list(read_rows(path))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({}, "'a' is missing (there are none)"),
        ({"b": 1, "c": 2}, "'a' is missing (there are b, c)"),
        ({"a": []}, "wrong type, list"),
        ({"a": True}, "wrong type, bool"),
        ({"a": None}, "wrong type, NoneType"),
        ({"a": " \n"}, "'a' is blank"),
    ],
)
def test_check_fields(row: dict[str, object], message: str) -> None:
    with pytest.raises(DataError) as caught:
        check_fields(Row("f.jsonl", 7, row), {"a": (int, str)})
    assert str(caught.value).startswith("f.jsonl:7: ")
    assert message in str(caught.value)
    check_fields(Row("f.jsonl", 7, {"a": 0}), {"a": (int, str)})
