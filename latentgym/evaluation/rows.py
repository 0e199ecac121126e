"""What is told of the rows of a table of results, in the terminal and on the page alike."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from latentgym.evaluation.columns import Run, run_name
from latentgym.system.terminal import line


def asked(run: Run) -> tuple[str, str, str]:
    """What the rows of one table have in common: task, split and source of the questions."""
    r = run[1]
    return r.task, r.split, r.source


def in_place(run: Run) -> tuple[bool, tuple[str, str, str]]:
    """Where a run's table stands: by what is asked, and what is made up after all others."""
    return run[1].source == "sample", asked(run)


def names(runs: Sequence[Run]) -> dict[Path, str]:
    """A name of each run that no other has: its folder's, behind those above it where need be."""
    # Names of files may be anything, and two of them the same once they can be shown.
    parts = {folder: tuple(map(line, folder.resolve().parts)) for folder, _ in runs}
    found, left = {folder: line(run_name(folder)) for folder in parts}, list(parts)
    for depth in range(1, max(map(len, parts.values()))):
        taken = Counter(own[-depth:] for own in parts.values())
        for folder in [folder for folder in left if taken[parts[folder][-depth:]] == 1]:
            left.remove(folder)
            if depth > len(Path(found[folder]).parts):
                found[folder] = "/".join(parts[folder][-depth:])
    for number, folder in enumerate(left if len(left) > 1 else [], start=1):
        found[folder] = f"{'/'.join(parts[folder])} ({number})"
    return found


def best(runs: Sequence[Run]) -> set[Path]:
    """Of the runs of one table the best without gold, and those whose interval reaches its own.

    Made-up questions have no best, nor has a run that is alone.
    """
    own = [(f, r) for f, r in runs if r.control is None and not r.oracle and r.source != "sample"]
    if len(own) < 2:
        return set()
    _, top = max(own, key=lambda run: run[1].accuracy)
    return {f for f, r in own if r.accuracy_ci95[1] >= top.accuracy_ci95[0]}


def notes(runs: Sequence[Run], named: Mapping[Path, str]) -> Iterator[str]:
    """What to know before comparing rows, apart from `fairness.cautions`."""
    if any(r.source == "sample" for _, r in runs):
        yield "sample: made-up questions in the place of the real data, so these are no results."
    for folder, r in runs:
        if r.trained_on:
            yield f"{named[folder]}: {r.trained_on} of {r.n} questions were trained on."
    if any(r.oracle for _, r in runs):
        yield "oracle: looks at the gold answers to choose, so it is an upper bound."
