"""Lucene's process: it may be killed, and it ranks as pyserini does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from latentgym.retrieval import Hit, Passage, RetrievalError, lucene
from latentgym.retrieval.lucene import LuceneRetriever


@pytest.fixture
def opened(index: Callable[[str], Path]) -> Iterator[LuceneRetriever]:
    retriever = LuceneRetriever(str(index("lucene") / "lucene"), {})
    yield retriever
    retriever.close()


def process(retriever: LuceneRetriever) -> int:
    assert retriever._process is not None
    return retriever._process.pid


@pytest.mark.thorough
def test_killed_between_two_searches_it_is_started_again(
    opened: LuceneRetriever, passages: Sequence[Passage]
) -> None:
    expected = opened.search([passages[0].title], 2)
    first = process(opened)
    os.kill(first, signal.SIGKILL)
    assert opened.search([passages[0].title], 2) == expected
    assert process(opened) != first


def test_killed_in_the_middle_of_a_search_it_is_asked_again(
    opened: LuceneRetriever, passages: Sequence[Passage]
) -> None:
    expected = opened.search([passages[0].title], 2)
    first = process(opened)
    os.kill(first, signal.SIGSTOP)  # so that the search is surely under way
    found: list[list[Hit]] = []
    asking = threading.Thread(target=lambda: found.extend(opened.search([passages[0].title], 2)))
    asking.start()
    time.sleep(0.2)
    assert asking.is_alive()
    os.kill(first, signal.SIGKILL)
    asking.join(timeout=60)
    assert found == expected


@pytest.mark.thorough
def test_killed_again_and_again_it_says_so(
    opened: LuceneRetriever, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = opened._start

    def started() -> int:
        passages = begin()
        os.kill(process(opened), signal.SIGKILL)
        return passages

    monkeypatch.setattr(opened, "_start", started)
    with pytest.raises(RetrievalError, match="ended twice"):
        opened.search(["baker"], 2)


@pytest.mark.thorough
def test_no_answer_is_an_error_and_no_hang(
    opened: LuceneRetriever, passages: Sequence[Passage], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened.search(["baker"], 1)
    os.kill(process(opened), signal.SIGSTOP)
    monkeypatch.setattr(lucene, "_OPEN_SECONDS", 0.2)
    monkeypatch.setattr(lucene, "_PER_QUERY_SECONDS", 0.1)
    with pytest.raises(RetrievalError, match="did not answer"):
        opened.search(["baker"], 1)
    monkeypatch.undo()
    assert opened.search([passages[0].title], 1)[0][0].passage == passages[0]


def test_it_ends_with_its_parent(index: Callable[[str], Path]) -> None:
    code = (
        "import os, sys; from latentgym.retrieval.lucene import LuceneRetriever; "
        "r = LuceneRetriever(sys.argv[1], {}); r.search(['baker'], 1); "
        "print(r._process.pid, flush=True); os.kill(os.getpid(), 9)"
    )
    argv = [sys.executable, "-c", code, str(index("lucene") / "lucene")]
    child = int(subprocess.run(argv, capture_output=True, text=True, timeout=120).stdout)
    _wait(lambda: not _alive(child), "the process of Lucene outlives its parent")


def _alive(pid: int) -> bool:
    path = Path(f"/proc/{pid}/stat")
    return path.exists() and path.read_text().rpartition(")")[2].split()[0] != "Z"


_BUILDS = """
import sys
from pathlib import Path
from latentgym.retrieval import Passage, building
from latentgym.retrieval.java import Java
building.choose_engine = lambda engine: "lucene"
building.find_java = lambda: Java(Path(sys.argv[1]), Path("no.jar"), "0")
building.build_index([Passage("a", "b", "c")], Path(sys.argv[2]), engine="lucene")
"""


@pytest.mark.parametrize(
    "how",
    [
        signal.SIGKILL,
        *(pytest.param(s, marks=pytest.mark.thorough) for s in (signal.SIGTERM, signal.SIGINT)),
    ],
)
def test_a_builder_ends_with_its_parent(how: signal.Signals, tmp_path: Path) -> None:
    java = tmp_path / "java" / "bin" / "java"
    java.parent.mkdir(parents=True)
    number = tmp_path / "number"
    told = f"echo $$ > {number}.part; mv {number}.part {number}"
    java.write_text(f"#!/bin/sh\n{told}\nexec sleep 99\n")
    java.chmod(0o755)
    argv = [sys.executable, "-c", _BUILDS, str(tmp_path / "java"), str(tmp_path / "index")]
    with subprocess.Popen(argv, stderr=subprocess.DEVNULL) as building:
        _wait(number.exists, "Java was not started")
        building.send_signal(how)
    _wait(lambda: not _alive(int(number.read_text())), "Java outlives its parent")


def _wait(until: Callable[[], bool], otherwise: str) -> None:
    deadline = time.monotonic() + 30
    while not until():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.05)


@pytest.mark.thorough
def test_nothing_is_left_in_the_temporary_folder(
    opened: LuceneRetriever, passages: Sequence[Passage]
) -> None:
    """Its process is always killed in the end, and Java takes no other folder."""
    opened.search([passages[0].title], 1)
    number = process(opened)
    opened.close()
    assert not Path(f"/tmp/.java_pid{number}").exists()
    assert not [*Path("/tmp").glob(f"hsperfdata_*/{number}")]


@pytest.mark.parametrize(
    "damage",
    ["missing", *(pytest.param(d, marks=pytest.mark.thorough) for d in ("empty", "truncated"))],
)
def test_what_is_no_index_is_told_in_a_sentence(
    damage: str, index: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = tmp_path / "index"
    if damage != "missing":
        folder.mkdir()
    if damage == "truncated":
        for path in (index("lucene") / "lucene").iterdir():
            data = path.read_bytes()
            (folder / path.name).write_bytes(data if "segments" in path.name else data[:10])
    with pytest.raises(RetrievalError, match="cannot use the index") as caught:
        LuceneRetriever(str(folder), {}).search(["baker"], 1)
    assert "\n" not in str(caught.value)


_PYSERINI = """
import json, os, sys, types
index, java, jar, queries = sys.argv[1], sys.argv[2], sys.argv[3], json.loads(sys.argv[4])
os.environ["JAVA_HOME"] = java
import jnius_config
jnius_config.set_classpath(jar)
jnius_config.set_options("-Xrs")
from jnius import autoclass
autoclass("java.lang.String")  # started by us, as pyserini asks for a module that is not there
class Anything(types.ModuleType):  # its encoders want torch, openai and more
    __path__ = []
    def __getattr__(self, name):
        return type(name, (), {})
for name in ("pyserini.encode", "pyserini.encode._base", "pyserini.encode._slim", "scipy"):
    sys.modules[name] = Anything(name)
from pyserini.search.lucene import LuceneSearcher
searcher = LuceneSearcher(index)
found = [[(hit.docid, hit.score) for hit in searcher.search(q, 10)] for q in queries]
print("FOUND" + json.dumps(found))
"""


def test_it_ranks_as_pyserini_does(
    opened: LuceneRetriever, passages: Sequence[Passage], index: Callable[[str], Path]
) -> None:
    from latentgym.retrieval.java import find_java

    java = find_java()
    queries = [passage.text[:80] for passage in passages[::6]]
    where = str(index("lucene") / "lucene")
    argv = [sys.executable, "-c", _PYSERINI, where, str(java.home), str(java.jar)]
    done = subprocess.run([*argv, json.dumps(queries)], capture_output=True, text=True, timeout=120)
    assert "FOUND" in done.stdout, done.stderr[-2000:]
    theirs = json.loads(done.stdout.rpartition("FOUND")[2])
    ours = opened.search(queries, 10)
    assert len(ours) == 50
    assert [[(h.passage.id, h.score) for h in hits] for hits in ours] == [
        [(id, pytest.approx(score, abs=1e-4)) for id, score in hits] for hits in theirs
    ]
