"""Stored rollouts may be anyone's: they are bounded, and say what an evaluation says."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest

from latentgym.cli.main import main
from latentgym.errors import UsageError
from latentgym.evaluation import results, stored
from latentgym.evaluation.results import RESULT, ROLLOUTS, find_results, load_result, load_rollouts
from latentgym.evaluation.stored import read_lines

GOOD = {"index": 0, "seed": 0, "answer": "x", "score": 1, "steps": [{"weights": [0.5, 1]}]}


def packed(path: Path, *lines: bytes) -> Path:
    path.write_bytes(gzip.compress(b"".join(lines)))
    return path


def line(**changes: Any) -> bytes:
    return json.dumps({**GOOD, **changes}).encode() + b"\n"


FOREIGN: dict[str, tuple[bytes, str]] = {
    "no JSON": (b"{\n", "near line 2"),
    "no object": (b"[]\n", "it is no JSON object"),
    "a number": (b"0\n", "it is no JSON object"),
    "an index of text": (line(index="0"), 'index cannot be "0"'),
    "a score that is true": (line(score=True), "score cannot be true"),
    "a question of markup in a list": (line(question=["<b>"]), "question cannot be"),
    "segments without texts": (line(segments=[{"kind": 1}]), "segments cannot be"),
    "steps that are no list": (line(steps={"0": {}}), "steps cannot be"),
    "a step that is none": (line(steps=[7]), "steps cannot be"),
    "a weight of text": (line(steps=[{"weights": ["1"]}]), "weights cannot be"),
    "a token that is none": (line(steps=[{"tokens": [None]}]), "tokens cannot be"),
    "an endless norm": (line(steps=[{"norm": float("inf")}]), "norm cannot be Infinity"),
    "a text as truth": (line(truncated="no"), "truncated cannot be"),
    "deep": (b'{"target": ' + b"[" * 99 + b"]" * 99 + b"}\n", "nested too deeply"),
    "not text": (b"\xff\xfe\n", "near line 2"),
}


@pytest.mark.parametrize("what", FOREIGN)
def test_a_line_of_something_else_is_refused_by_its_number(what: str, tmp_path: Path) -> None:
    bad, says = FOREIGN[what]
    path = packed(tmp_path / ROLLOUTS, line(), bad)
    found = read_lines(path)
    assert next(found) == GOOD
    with pytest.raises(ValueError, match="near line 2") as error:
        next(found)
    assert says in str(error.value)
    with pytest.raises(UsageError, match=r"is damaged .*evaluate again") as sentence:
        list(load_rollouts(tmp_path))
    assert str(path) in str(sentence.value) and "\n" not in str(sentence.value)


def test_keys_that_are_not_known_yet_are_no_fault(tmp_path: Path) -> None:
    path = packed(tmp_path / ROLLOUTS, line(later={"x": [None]}))
    assert list(read_lines(path)) == [{**GOOD, "later": {"x": [None]}}]


def test_a_line_without_end_is_not_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / ROLLOUTS
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(b'{"answer": "')
        for _ in range(100):
            file.write(bytes([120]) * 2**20)
    assert path.stat().st_size < 2**20
    with pytest.raises(UsageError, match=r"near line 1: a line is longer than 16 MiB"):
        list(load_rollouts(tmp_path))


@pytest.mark.parametrize(
    ("bound", "most", "says"),
    [("MOST_BYTES", 2**20, "more than 1 MiB"), ("MOST_LINES", 1000, "more than 1,000 answers")],
)
def test_a_small_file_that_holds_very_much_is_not_read_to_its_end(
    bound: str, most: int, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored, bound, most)
    path = packed(tmp_path / ROLLOUTS, line() * 100_000)
    assert path.stat().st_size < 100_000
    read: list[Any] = []
    with pytest.raises(UsageError, match=says):
        read.extend(load_rollouts(tmp_path))
    assert len(read) < 20_000


@pytest.mark.parametrize("name", [RESULT, ROLLOUTS])
def test_what_is_no_file_is_not_waited_for(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(UsageError, match="it is no file"):
        load_result(tmp_path) if name == RESULT else list(load_rollouts(tmp_path))
    (tmp_path / name).unlink()
    (tmp_path / name).mkdir()
    with pytest.raises(UsageError, match="it is no file"):
        load_result(tmp_path) if name == RESULT else list(load_rollouts(tmp_path))


def test_a_folder_of_very_many_files_is_refused_and_links_are_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "round").symlink_to(tmp_path, target_is_directory=True)
    assert find_results([tmp_path]) == []
    monkeypatch.setattr(results, "_MOST_ENTRIES", 50)
    for number in range(51):
        (tmp_path / "runs" / f"{number}.txt").touch()
    with pytest.raises(UsageError, match="more than 50 files; give the folders of the runs"):
        find_results([tmp_path])
    for how in ([], ["--check"]):
        assert main(["leaderboard", str(tmp_path), *how]) == 2
        assert "more than 50 files" in capsys.readouterr().err
