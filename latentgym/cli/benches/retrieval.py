"""`latentgym bench retrieval`: passages found per second, by Lucene and by bm25s.

What is measured and how: `latentgym.cli.benches.settings.RetrievalBench`.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from latentgym.cli.benches.settings import RetrievalBench
from latentgym.data import DATASETS, load
from latentgym.data.retrieval import corpus_path, sample_encyclopedia
from latentgym.progress import progress_bar
from latentgym.retrieval import Hit, Retriever, build_index, open_index
from latentgym.retrieval.index import ENGINES

WORKERS = (1, 2, 4)
_PART = 16  # questions that a worker asks at once

Subject = Callable[[], list[list[Hit]]]


def run(options: RetrievalBench) -> dict[str, Any]:
    """Run the benchmark; all figures as plain data.

    Raises:
        UsageError: settings that cannot work.
        RetrievalError: an engine is missing.
    """
    options.validate()
    data = load(DATASETS["NQ"], "test")
    queries = [question.text for question in data[: options.queries]]
    corpus = options.corpus or corpus_path() or sample_encyclopedia().passages
    built: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        retrievers = {}
        for engine in ENGINES:
            started = time.perf_counter()
            build_index(corpus, Path(folder) / engine, engine=engine)
            built[f"{engine}, build"] = time.perf_counter() - started
            retrievers[engine] = open_index(Path(folder) / engine)
        passages = retrievers["lucene"].about["passages"]
        try:
            rates, same = _measure(retrievers, queries, options)
        finally:
            for retriever in retrievers.values():
                retriever.close()
    return {
        "bench": "retrieval",
        "settings": {
            **asdict(options),
            "corpus": f"{passages} passages",
            "queries": len(queries),
        },
        "source": data.source,
        "device": "cpu",
        "passages": passages,
        "seconds": built,
        "queries_per_second": rates,
        "ratios": {
            "lucene / bm25s, one at a time": rates["lucene, single"] / rates["bm25s, single"],
            "lucene / bm25s, all at once": rates["lucene, batch"] / rates["bm25s, batch"],
            "lucene, all at once / one at a time": rates["lucene, batch"] / rates["lucene, single"],
        },
        "same_answers": {"first passage, lucene and bm25s": same},
        "scaling": {},
    }


def _measure(
    retrievers: dict[str, Retriever], queries: Sequence[str], options: RetrievalBench
) -> tuple[dict[str, float], float]:
    """Queries a second of everything, and how often both engines find the same passage first."""
    subjects: dict[str, Subject] = {}
    for engine, retriever in retrievers.items():
        subjects |= _subjects(engine, retriever, queries, options.k)
    found = {name: subject() for name, subject in subjects.items()}  # warm, and for comparison
    for name, hits in found.items():
        if hits != found[f"{name.partition(',')[0]}, batch"]:
            raise AssertionError(f"{name} finds other passages than all at once")
    seconds: dict[str, list[float]] = {name: [] for name in subjects}
    with progress_bar("bench retrieval", options.rounds * len(subjects)) as advance:
        for _ in range(options.rounds):
            for name, subject in subjects.items():
                started = time.perf_counter()
                subject()
                seconds[name].append(time.perf_counter() - started)
                advance(1)
    rates = {name: len(queries) / statistics.median(taken) for name, taken in seconds.items()}
    pairs = zip(found["lucene, batch"], found["bm25s, batch"], strict=True)
    same = [a[:1] and b[:1] and a[0].passage.id == b[0].passage.id for a, b in pairs]
    return rates, sum(map(bool, same)) / len(same)


def _subjects(
    engine: str, retriever: Retriever, queries: Sequence[str], k: int
) -> dict[str, Subject]:
    def single() -> list[list[Hit]]:
        return [retriever.search([query], k)[0] for query in queries]

    def batch() -> list[list[Hit]]:
        return retriever.search(queries, k)

    def shared(workers: int) -> Subject:
        parts = [queries[i : i + _PART] for i in range(0, len(queries), _PART)]

        def ask() -> list[list[Hit]]:
            with ThreadPoolExecutor(workers) as pool:
                found = pool.map(lambda part: retriever.search(part, k), parts)
                return [hits for part in found for hits in part]

        return ask

    several = {f"{engine}, {n} workers, parts of {_PART}": shared(n) for n in WORKERS}
    return {f"{engine}, single": single, f"{engine}, batch": batch, **several}
