"""The process that Lucene lives in. Run by `lucene`, as a script; it imports nothing of ours.

A virtual machine takes over signals, cannot be forked, and brings down a process in which Ray
runs; so it has this one. It reads requests from stdin, one JSON object a line, answers on what was
stdout, and ends with its stdin.

    {"open": folder, "bm25": [k1, b]}                 -> {"passages": n}
    {"fetch": prebuilt index, "bm25": [k1, b]}        -> {"passages": n}
    {"queries": [...], "k": k, "threads": t}          -> {"hits": [[[id, raw, score], ...], ...]}

A request that fails is answered with {"error": sentence}.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any


def main(java_home: str, jar: str, *options: str) -> None:
    """Answer requests until there are no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # meant for the parent, who ends this process
    answers = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)  # what Java prints is no answer
    os.environ["JAVA_HOME"] = java_home
    import jnius_config

    jnius_config.set_classpath(jar)
    # Not pyserini's own start: it asks for a module that small Javas lack, and ends the process.
    jnius_config.set_options(*options, "-Xrs", "-XX:+UseSerialGC")
    from jnius import autoclass

    autoclass("java.lang.String")  # it runs from here on, or pyserini would start it
    searcher: Any = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if "queries" in request:
                answer: Any = {"hits": _search(autoclass, searcher, **request)}
            else:
                folder = request["open"] if "open" in request else _fetched(request["fetch"])
                searcher = autoclass("io.anserini.search.SimpleSearcher")(folder)
                searcher.set_bm25(*request["bm25"])
                answer = {"passages": searcher.get_total_num_docs()}
        except Exception as error:  # of Java's many, all of which are the request's
            answer = {"error": _sentence(error)}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _fetched(name: str) -> str:
    """The folder of one of pyserini's prebuilt indexes, downloaded unless it has been."""
    from pyserini.util import TF_INDEX_INFO, download_prebuilt_index

    if name not in TF_INDEX_INFO:
        raise LookupError("pyserini has no prebuilt index of this name")
    return str(download_prebuilt_index(name, verbose=False))


def _search(
    autoclass: Any, searcher: Any, queries: list[str], k: int, threads: int
) -> list[list[Any]]:
    if len(queries) == 1:
        return [_hits(searcher.search(queries[0], k))]
    texts, names = autoclass("java.util.ArrayList")(), autoclass("java.util.ArrayList")()
    for i, query in enumerate(queries):
        texts.add(query)
        names.add(str(i))
    found = searcher.batch_search(texts, names, k, threads)
    return [_hits(found.get(str(i))) for i in range(len(queries))]


def _hits(found: Any) -> list[Any]:
    return [[hit.docid, hit.lucene_document.get("raw"), hit.score] for hit in found]


def _sentence(error: Exception) -> str:
    first = str(error).splitlines()[0] if str(error) else type(error).__name__
    return first.removeprefix("JVM exception occurred: ")


if __name__ == "__main__":
    main(*sys.argv[1:])
