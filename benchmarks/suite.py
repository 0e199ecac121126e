"""The record of a suite, which the docs' tables are made of.

python -m benchmarks.suite paper-coconut                # after latentgym suite run paper-coconut
python -m benchmarks.suite paper-hybrids --parts hrpo   # those cells alone; the others stay
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from latentgym.evaluation.results import git_commit, versions
from latentgym.evaluation.suites.cells import is_done
from latentgym.evaluation.suites.reading import read_suite
from latentgym.evaluation.suites.record import record
from latentgym.storage import atomic_write, finite

RECORDS = {
    "chain-sum": "chain_sum",
    "chains": "chains",
    "encyclopedia": "encyclopedia",
    "mnns": "mnns",
    "openrlhf": "openrlhf_mnns",
    "paper-coconut": "coconut_chains",
    "paper-cot2-mnns": "cot2_mnns",
    "paper-cot2-prosqa": "cot2_prosqa",
    "paper-hrpo-gsm8k": "hrpo_gsm8k",
    "paper-hrpo-retrieval": "hrpo_retrieval",
    "paper-hybrids": "hybrid_chains",
    "paper-latentseek": "latentseek",
    "recommendation": "recommendation",
    "retrieval": "retrieval_qa",
    "small-lm": "small_lm",
}
"""Suites whose records are kept, with the name of each."""


def main() -> None:
    """Write the record of what has been run of a suite, cells and seeds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("suite", choices=RECORDS)
    parser.add_argument("--parts", nargs="+", default=[])
    parser.add_argument("--match", default="", help="only cells whose name holds this")
    parser.add_argument("--seeds", type=int, nargs="+")
    parser.add_argument("--limit", type=int, help="questions, where it was run with --limit")
    parser.add_argument("--out", type=Path, help="folder of its runs")
    parser.add_argument("--record", type=Path, default=Path("benchmarks/records"))
    o = parser.parse_args()
    chosen = read_suite(o.suite, seeds=o.seeds, limit=o.limit).chosen(o.parts, o.match).cells
    usual = Path("runs") / o.suite
    path = o.record / f"{RECORDS[o.suite]}.json"
    old = json.loads(path.read_text())["cells"] if path.exists() else []
    out = o.out or usual
    there = {cell: [seed for seed in cell.seeds if is_done(cell, out, seed)] for cell in chosen}
    fresh = [record(cell, out, seeds, usual) for cell, seeds in there.items() if seeds]
    names = {entry["name"] for entry in fresh}
    entries = sorted(
        [entry for entry in old if entry["name"] not in names] + fresh,
        key=lambda entry: (entry["part"], entry["name"]),
    )
    o.record.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as partial:
        head = {"suite": RECORDS[o.suite], "versions": versions()}
        data = {**head, "git": git_commit(), "cells": entries}
        partial.write_text(json.dumps(finite(data), indent=1, allow_nan=False) + "\n")
    missing = {cell.name: len(cell.seeds) - len(seeds) for cell, seeds in there.items()}
    for name, count in missing.items():
        if count:
            print(f"{name}: {count} seeds were not run")
    for entry in fresh:
        paper = "" if entry["paper"] is None else f"   paper {entry['paper']:.2f}"
        low, high = entry["ci95"]
        print(f"{entry['name']:28} {entry['mean']:6.2f} [{low:.2f}, {high:.2f}]{paper}")


if __name__ == "__main__":
    main()
