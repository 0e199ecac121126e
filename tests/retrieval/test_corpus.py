"""Corpora are read in every usual layout, and their faults are told with file and line."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentgym.data import DataError
from latentgym.retrieval import Passage
from latentgym.retrieval.corpus import contents, fingerprint, read_corpus, titled


def written(folder: Path, *rows: Any) -> Path:
    path = folder / "corpus.jsonl"
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize(
    "row",
    [
        {"id": "7", "contents": '"Ann"\nAnn is a smith.'},
        {"id": 7, "contents": '"Ann"\nAnn is a smith.', "more": [1]},
        {"_id": "7", "title": "Ann", "text": "Ann is a smith."},
        {"id": "7", "title": "Ann", "text": "Ann is a smith."},
    ],
)
def test_layouts(tmp_path: Path, row: dict[str, Any]) -> None:
    assert list(read_corpus(written(tmp_path, row))) == [Passage("7", "Ann", "Ann is a smith.")]


def test_a_passage_without_a_title(tmp_path: Path) -> None:
    rows = {"id": "a", "contents": "Ann is\na smith."}, {"id": "b", "title": "", "text": "x"}
    found = list(read_corpus(written(tmp_path, *rows)))
    assert found == [Passage("a", "", "Ann is\na smith."), Passage("b", "", "x")]


def test_arrays_and_packed_files(tmp_path: Path) -> None:
    rows = [{"id": i, "contents": f"text {i}"} for i in range(3)]
    (tmp_path / "a.json").write_text(json.dumps(rows))
    with gzip.open(tmp_path / "b.jsonl.gz", "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    both = [list(read_corpus(tmp_path / name)) for name in ("a.json", "b.jsonl.gz")]
    assert both[0] == both[1] and [p.id for p in both[0]] == ["0", "1", "2"]


GOOD = {"id": 1, "contents": "a text"}


@pytest.mark.parametrize(
    ("bad", "sentence"),
    [
        ("{", "not valid JSON"),
        ("[1]", "corpus.jsonl:2"),
        ({"contents": "no id"}, "field 'id' must be"),
        ({"id": " ", "contents": "x"}, "field 'id' must be"),
        ({"id": True, "contents": "x"}, "field 'id' must be"),
        ({"id": 2}, "field 'text' must be"),
        ({"id": 2, "contents": " "}, "field 'contents' must be"),
        ({"id": 2, "contents": 5}, "field 'contents' must be"),
        ({"id": 2, "title": 5, "text": "x"}, "field 'title' must be"),
        ({"id": 2, "contents": '"Ann"\n '}, "no text after its title"),
        ({"id": "1", "contents": "again"}, "'1' is that of row 1 too"),
    ],
)
def test_a_fault_is_told_with_file_and_line(tmp_path: Path, bad: Any, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence) as caught:
        list(read_corpus(written(tmp_path, GOOD, bad)))
    assert "corpus.jsonl:2" in str(caught.value)


def test_no_passages(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("\n\n")
    with pytest.raises(DataError, match="has no passages"):
        list(read_corpus(tmp_path / "empty.jsonl"))
    with pytest.raises(DataError, match="there is no corpus"):
        list(read_corpus(tmp_path / "nowhere.jsonl"))


TEXT = st.text(st.sampled_from('"\n ab'), max_size=12)


@given(TEXT, TEXT)
def test_contents_hold_title_and_text(title: str, text: str) -> None:
    title = " ".join(title.split())
    assert titled(contents(Passage("1", title, text))) == (title, text)


def test_what_no_index_could_hold_is_replaced(tmp_path: Path) -> None:
    [found] = read_corpus(written(tmp_path, '{"id": "1", "contents": "a\\u0000b \\ud800 c"}'))
    assert found.text == "a b ? c"


def test_the_fingerprint_is_of_every_part() -> None:
    one, *others = [
        [Passage("1", "a", "b")],
        [Passage("2", "a", "b")],
        [Passage("1", "b", "b")],
        [Passage("1", "a", "c")],
        [Passage("1", "a", "b")] * 2,
    ]
    assert len(fingerprint(one)) == 16 and fingerprint(one) == fingerprint(list(one))
    assert fingerprint(one) not in {fingerprint(other) for other in others}
