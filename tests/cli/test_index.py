"""`latentgym index`: what people see, and what they are told when it cannot work."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from latentgym.cli.main import main

ROWS = [
    {"id": "a", "contents": '"Ann [bold]"\nAnn is a smith\x1b[31m in Kesh.'},
    {"id": "b", "contents": '"Bob"\nBob is a baker in Ulm.'},
]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


@pytest.mark.parametrize("engine", [pytest.param("lucene", marks=pytest.mark.thorough), "bm25s"])
def test_build_search_info(
    engine: str, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "index")
    assert main(["index", "build", str(corpus), "--out", out, "--engine", engine, "--json"]) == 0
    shown = capsys.readouterr()
    assert "2 passages" in shown.err and last(shown.out)["engine"] == engine
    assert main(["index", "search", out, "a smith", "-k", "1", "--json"]) == 0
    text = capsys.readouterr().out
    assert "Ann [bold]" in text and "\x1b[31m" not in text
    [hit] = last(text)["hits"]
    assert (hit["id"], hit["title"]) == ("a", "Ann [bold]")
    assert main(["index", "search", out, "zzz"]) == 0
    assert "nothing was found" in capsys.readouterr().err
    assert main(["index", "info", out, "--json"]) == 0
    assert last(capsys.readouterr().out)["passages"] == 2


def last(text: str) -> Any:
    return json.loads(text.splitlines()[-1])


def test_a_long_and_odd_query(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "index")
    assert main(["index", "build", str(corpus), "--out", out, "--engine", "bm25s"]) == 0
    for query in ("smith " * 20_000, "smith\x00\x07\x1b[31m", "smith \ud800"):
        assert main(["index", "search", out, query]) == 0
        assert "Ann" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["index", "bild"], "did you mean 'build'"),
        (["index", "build", "nowhere.jsonl", "--out", "x"], "there is no corpus"),
        (["index", "build", "CORPUS", "--out", "x", "--engine", "lucen"], "did you mean 'lucene'"),
        (
            ["index", "build", "CORPUS", "--out", "x", "--b", "2"],
            "--b must be at least 0 and at most 1",
        ),
        (["index", "search", "nowhere", "q"], "is no index; build one"),
        (["index", "info", "nowhere"], "is no index; build one"),
    ],
)
def test_mistakes(
    argv: list[str],
    says: str,
    corpus: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([str(corpus) if word == "CORPUS" else word for word in argv]) == 2
    shown = capsys.readouterr().err
    assert says in shown and "Traceback" not in shown


def test_k_of_nothing(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "index")
    assert main(["index", "build", str(corpus), "--out", out, "--engine", "bm25s"]) == 0
    assert main(["index", "search", out, "smith", "-k", "0"]) == 2
    assert "--k must be at least 1" in capsys.readouterr().err
