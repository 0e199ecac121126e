"""The command line of a suite: `python -m benchmarks.NAME --parts ... --seeds ...`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from latentgym.evaluation.results import git_commit, versions
from latentgym.evaluation.suite import Cell, record, run, waves
from latentgym.progress import progress_bar
from latentgym.storage import atomic_write


def main(
    suite: str, about: str, cells: Sequence[Cell], runs: Path, seeds: Sequence[int] = (0, 1, 2)
) -> None:
    """Run the chosen parts of a suite and write its record.

    Args:
        suite: name of the record.
        about: what `--help` says.
        cells: all of its figures.
        runs: where its runs are kept unless told otherwise.
        seeds: which there are unless told otherwise.
    """
    parts = sorted({cell.part for cell in cells})
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--parts", nargs="+", default=parts, choices=parts)
    parser.add_argument("--match", default="", help="only cells whose name holds this")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(seeds))
    parser.add_argument("--jobs", type=int, default=1, help="processes at once")
    parser.add_argument("--out", type=Path, default=runs)
    parser.add_argument("--record", type=Path, default=Path("benchmarks/records"))
    o = parser.parse_args()
    chosen = [cell for cell in cells if cell.part in o.parts and o.match in cell.name]
    with (
        progress_bar(suite, len(chosen) * len(o.seeds)) as advance,
        ThreadPoolExecutor(o.jobs) as pool,
    ):
        for wave in waves(chosen):
            jobs = [(cell, seed) for cell in wave for seed in o.seeds]
            for _ in pool.map(lambda job: run(job[0], o.out, job[1]), jobs):
                advance(1)
    path = o.record / f"{suite}.json"
    old = json.loads(path.read_text())["cells"] if path.exists() else []
    fresh = [record(cell, o.out, o.seeds, runs) for cell in chosen]
    names = {entry["name"] for entry in fresh}
    entries = sorted(
        [entry for entry in old if entry["name"] not in names] + fresh,
        key=lambda entry: (entry["part"], entry["name"]),
    )
    o.record.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as partial:
        head = {"suite": suite, "versions": versions()}
        data = {**head, "git": git_commit(), "cells": entries}
        partial.write_text(json.dumps(data, indent=1) + "\n")
    for entry in fresh:
        paper = "" if entry["paper"] is None else f"   paper {entry['paper']:.2f}"
        low, high = entry["ci95"]
        print(f"{entry['name']:28} {entry['mean']:6.2f} [{low:.2f}, {high:.2f}]{paper}")
