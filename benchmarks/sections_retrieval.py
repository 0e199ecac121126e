"""What the pages show of retrieval."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.sections import RECORDS, change, figure, suite_cells, table

# As in the suite `retrieval`.
PASSAGES = (0, 1, 3, 5)
SETS = {
    "NQ": "test",
    "TriviaQA": "test",
    "HotpotQA": "dev",
    "2WikiMultihopQA": "dev",
    "Bamboogle": "test",
}


def _data(name: str) -> dict[str, Any]:
    path = RECORDS / f"{name}.json"
    data: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return data


def recall() -> str:
    """How often an answer stands in the first passages."""
    rows = [
        [row["task"], row["engine"], str(row["n"])]
        + [f"{100 * share:.1f}" for share in row["recall"].values()]
        for row in sorted(
            _data("recall").get("rows", ()), key=lambda row: list(SETS).index(row["task"])
        )
    ]
    return table(["set", "engine", "questions", "in the first, %", "first 5", "first 20"], rows)


def reading() -> str:
    """Exact match and F1 by number of passages."""
    cells = suite_cells("retrieval_qa")
    rows = [
        [
            task,
            str(cells[f"{task}-{PASSAGES[0]}"]["n"]),
            *(_both(cells.get(f"{task}-{passages}")) for passages in PASSAGES),
        ]
        for task in SETS
        if f"{task}-{PASSAGES[0]}" in cells
    ]
    header = ["set", "questions", *(f"{n} passages" if n != 1 else "1 passage" for n in PASSAGES)]
    return table(header, rows)


def _both(cell: dict[str, Any] | None) -> str:
    return "not run" if cell is None else f"{figure(cell)}; {100 * cell['f1']:.1f}"


_ENCYCLOPEDIA = {
    "search-start": "search: supervised, stopped early",
    "search-grpo": "search: then GRPO in words",
    "search-hrpo": "search: then HRPO",
    "read-start": "read: supervised, stopped early",
    "read-grpo": "read: then GRPO in words",
    "read-hrpo": "read: then HRPO",
}


def encyclopedia() -> str:
    """What policy gradient adds to a start."""
    cells = suite_cells("encyclopedia")
    rows = [
        [
            label,
            str(len(cells[name]["seeds"])),
            figure(cells[name]),
            change(cells[name], "reward"),
            change(cells[name], "entropy"),
            change(cells[name], "latent_share"),
        ]
        for name, label in _ENCYCLOPEDIA.items()
        if name in cells
    ]
    header = ["", "seeds", "greedy accuracy % [95 %]", "sampled reward", "entropy", "latent share"]
    return table(header, rows)


def bench() -> str:
    """Queries a second."""
    reports = _data("bench_retrieval") or [{}]
    report = reports[0]
    rates = report.get("queries_per_second", {})
    names = [name.partition(", ")[2] for name in rates if name.startswith("lucene")]
    rows = [
        [name, *(f"{rates[f'{engine}, {name}']:.0f}" for engine in ("lucene", "bm25s"))]
        for name in names
    ]
    return table(["queries a second", "lucene", "bm25s"], rows)


def hrpo() -> str:
    """The short run on real questions."""
    cells = suite_cells("hrpo_retrieval")
    rows = [
        [label, figure(cells[name]), reward]
        for name, label in {"before": "before", "hrpo": "after"}.items()
        if name in cells
        for reward in [" ".join(f"{s['reward/score']:.3f}" for s in cells[name].get("curve", ()))]
    ]
    return table(["", "F1 % [95 %]", "sampled reward by step"], rows)


SECTIONS: Mapping[str, Callable[[], str]] = {
    "recall": recall,
    "reading": reading,
    "encyclopedia": encyclopedia,
    "hrpo-retrieval": hrpo,
    "bench-retrieval": bench,
}
