"""Real BM25 by Lucene: Anserini through pyserini's Java bindings, in a process of its own."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from latentgym.data.passage import Passage
from latentgym.retrieval.corpus import titled
from latentgym.retrieval.java import find_java
from latentgym.retrieval.retriever import Hit, RetrievalError, cleaned, require_k

_WORKER = Path(__file__).with_name("_lucene_worker.py")
_OPEN_SECONDS = 60.0
_DOWNLOAD_SECONDS = 6 * 3600.0  # of a prebuilt index, which may have tens of gigabytes
_PER_QUERY_SECONDS = 5.0
HEAP_MB = 512
# Else a virtual machine leaves a file in the temporary folder for each of two kinds of observer.
QUIET = ("-XX:-UsePerfData", "-XX:+DisableAttachMechanism")


class LuceneRetriever:
    """A Lucene index; see `Retriever`.

    Its process starts with the first search and ends with this one. If it dies, or is killed, it is
    started again and asked once more.

    Args:
        index: folder of the index, or the name of one of pyserini's prebuilt ones.
        about: what is known of it.
        k1, b: of BM25.
        threads: of a search for several queries.
        prebuilt: whether it is the name of one that may have to be downloaded first.
    """

    def __init__(
        self,
        index: str,
        about: Mapping[str, Any],
        *,
        k1: float = 0.9,
        b: float = 0.4,
        threads: int = 2,
        prebuilt: bool = False,
    ) -> None:
        self.index = index
        self.about: Mapping[str, Any] = {**about, "k1": k1, "b": b}
        self._k1, self._b, self._threads = k1, b, threads
        self._prebuilt = prebuilt
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = os.getpid()

    def search(self, queries: Sequence[str], k: int) -> list[list[Hit]]:
        require_k(k)
        texts = [cleaned(query) for query in queries]
        asked = [i for i, text in enumerate(texts) if text]
        found: list[list[Hit]] = [[] for _ in texts]
        if not asked:
            return found
        request = {"queries": [texts[i] for i in asked], "k": k, "threads": self._threads}
        answer = self._ask(request, _OPEN_SECONDS + _PER_QUERY_SECONDS * len(asked))
        for i, hits in zip(asked, answer["hits"], strict=True):
            found[i] = [_hit(*hit) for hit in hits]
        return found

    def count(self) -> int:
        """How many passages the index has.

        Raises:
            RetrievalError: it cannot be opened.
        """
        with self._lock:
            self._leave_parents()
            self._stop()
            return self._start()

    def close(self) -> None:
        with self._lock:
            self._leave_parents()
            self._stop()

    def _ask(self, request: dict[str, Any], seconds: float) -> dict[str, Any]:
        with self._lock:
            self._leave_parents()
            for _ in range(2):
                if self._process is None:
                    self._start()
                with suppress(EOFError, OSError):
                    return self._exchange(request, seconds)
                self._stop()
        raise RetrievalError(
            "the process of Lucene ended twice in the middle of a search; is there memory for it "
            f"({HEAP_MB} MB and more)? Try again, or choose engine bm25s."
        )

    def _exchange(self, request: dict[str, Any], seconds: float) -> dict[str, Any]:
        """Send a request and read its answer."""
        process = self._process
        assert process is not None and process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps(request).encode("ascii") + b"\n")
        process.stdin.flush()
        line = _line(process.stdout.fileno(), seconds)
        if line is None:
            self._stop()
            raise RetrievalError(
                f"Lucene did not answer within {seconds:.0f} seconds and was ended; is the machine "
                "overloaded? Try again, or ask fewer queries at once."
            )
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise RetrievalError(f"Lucene cannot use the index {self.index}: {answer['error']}")
        return answer

    def _start(self) -> int:
        """Start the process and open the index; how many passages it has."""
        java = find_java()
        options = (f"-Xmx{HEAP_MB}m", *QUIET)
        arguments = [sys.executable, "-I", str(_WORKER), str(java.home), str(java.jar), *options]
        self._process = subprocess.Popen(
            arguments,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
        )
        try:
            how = "fetch" if self._prebuilt else "open"
            request = {how: self.index, "bm25": [self._k1, self._b]}
            seconds = _DOWNLOAD_SECONDS if self._prebuilt else _OPEN_SECONDS
            return int(self._exchange(request, seconds)["passages"])
        except (EOFError, OSError) as error:
            self._stop()
            raise RetrievalError(
                f"the process of Lucene ended while it opened {self.index}; is {java.home} a "
                f"working Java, and is there memory for it ({HEAP_MB} MB and more)?"
            ) from error
        except RetrievalError:
            self._stop()
            raise

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()  # it has nothing to lose
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()

    def _leave_parents(self) -> None:
        """In a forked copy of this process: leave the parent's process alone, and start another."""
        if self._owner != os.getpid():
            self._owner, self._process = os.getpid(), None

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_lock": None, "_process": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._lock, self._owner = threading.Lock(), os.getpid()


def _line(pipe: int, seconds: float) -> bytes | None:
    """The next line, or None if it does not come in time.

    Raises:
        EOFError: there is no more.
    """
    parts = []
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while selector.select(seconds):
            part = os.read(pipe, 1 << 20)
            if not part:
                raise EOFError
            parts.append(part)
            if part.endswith(b"\n"):
                return b"".join(parts)
    return None


def _hit(id: str, raw: str | None, score: float) -> Hit:
    """A hit of what Lucene stores; an index that stores no text has none to give."""
    if raw is None:
        raise RetrievalError(
            f"the index stores no texts (passage {id}); build it with -storeRaw, or with latentgym "
            "index build."
        )
    try:
        fields = json.loads(raw)
    except ValueError:
        return Hit(Passage(id, "", raw), score)
    if "contents" in fields:
        title, text = titled(fields["contents"])
    else:
        title, text = fields.get("title", ""), fields.get("text", raw)
    return Hit(Passage(id, title, text), score)
