"""How often a gold answer stands in the passages that are found, by set, engine and depth.

The table behind any figure of retrieval question answering: no reader is better than what it reads.
An answer counts as found where one of its forms stands in a passage as whole words, both normalised
as SQuAD does. Questions whose answer is yes or no are left out. Wants `$LATENTGYM_DATA`.

python -m benchmarks.recall --record benchmarks/records
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from benchmarks.sections_retrieval import SETS
from latentgym.data import DATASETS, Question, load
from latentgym.data.retrieval import corpus_path
from latentgym.evaluation.results import git_commit, versions
from latentgym.progress import progress_bar
from latentgym.retrieval import Hit, cached_index, retriever_of
from latentgym.rewards.spans import normalised
from latentgym.storage import atomic_write

DEPTHS = (1, 5, 20)
ENGINES = ("lucene", "bm25s")


def found_at(question: Question, hits: list[Hit]) -> int | None:
    """The rank of the first passage that holds the answer, from 1."""
    forms = [_words(form) for form in (question.gold, *question.extra["forms"])]
    for rank, hit in enumerate(hits, start=1):
        text = _words(f"{hit.passage.title} {hit.passage.text}")
        if any(form.strip() and form in text for form in forms):
            return rank
    return None


def _words(text: str) -> str:
    return f" {' '.join(normalised(text))} "


def answerable(question: Question) -> bool:
    """Whether the answer is something that a passage can hold."""
    return _words(question.gold).strip() not in ("yes", "no")


def main() -> None:
    """Measure and write the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--record", type=Path, default=Path("benchmarks/records"))
    o = parser.parse_args()
    corpus = corpus_path()
    if corpus is None:
        raise SystemExit("recall: there is no corpus; set LATENTGYM_DATA to the real data.")
    rows = []
    with progress_bar("recall", len(SETS) * len(ENGINES)) as advance:
        for engine in ENGINES:
            retriever = retriever_of(cached_index(corpus, engine))
            for task, split in SETS.items():
                questions = [q for q in load(DATASETS[task], split) if answerable(q)]
                found = retriever.search([q.text for q in questions], max(DEPTHS))
                ranks = [found_at(q, hits) for q, hits in zip(questions, found, strict=True)]
                shares = {
                    str(k): round(sum(r is not None and r <= k for r in ranks) / len(ranks), 4)
                    for k in DEPTHS
                }
                about = dict(retriever.about)
                rows.append(
                    {"task": task, "n": len(ranks), "engine": engine, "recall": shares, **about}
                )
                advance(1)
    data = {"bench": "recall", "rows": rows, "versions": versions(), "git": git_commit()}
    o.record.mkdir(parents=True, exist_ok=True)
    with atomic_write(o.record / "recall.json") as partial:
        partial.write_text(json.dumps(data, indent=1) + "\n")
    for row in rows:
        print(row["task"], row["engine"], row["n"], row["recall"])


if __name__ == "__main__":
    main()
