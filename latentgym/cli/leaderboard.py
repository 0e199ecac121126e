"""`latentgym leaderboard`: results as a table."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import tyro
from rich.console import Console
from rich.table import Table

from latentgym.cli.options import emit, parse, say
from latentgym.errors import UsageError
from latentgym.results import Result, find_results
from latentgym.terminal import shown

_RANKING = ("hr@5", "ndcg@5")  # shown where answers are rankings; accuracy is HR@1


@dataclass(frozen=True)
class LeaderboardOptions:
    """Options of the leaderboard."""

    folders: tyro.conf.Positional[list[Path]] = field(default_factory=lambda: [Path("runs")])
    """Folders with results, searched with all below."""
    json: bool = False
    """Print one JSON line last."""


def main(argv: Sequence[str]) -> int:
    """Show all results in some folders; records that cannot be read are told and left out."""
    options = parse(LeaderboardOptions, argv, "leaderboard", "Table of results.")
    found = find_results(options.folders, lambda error: say(f"left out: {error}"))
    if not found:
        folders = ", ".join(map(str, options.folders))
        raise UsageError(f"no results in {folders}; run latentgym eval ... --out DIR first.")
    show(found)
    emit({"results": [vars(result) for _, result in found]}, options.json)
    return 0


def show(found: Sequence[tuple[Path, Result]]) -> None:
    """Print a table of runs on stderr, best first within each task.

    Args:
        found: folder and record of each run.
    """
    console = Console(stderr=True, width=None if sys.stderr.isatty() else 150, emoji=False)
    table = Table(box=None, pad_edge=False, header_style="bold")
    ranking = [k for k in _RANKING if any(k in r.metrics for _, r in found)]
    for name, justify in (
        ("task", "left"),
        ("run", "left"),
        ("agent", "left"),
        ("model", "left"),
        ("n", "right"),
        ("seeds", "right"),
        ("accuracy %", "right"),
        ("95 %", "left"),
        *((f"{name.upper()} %", "right") for name in ranking),
        ("thoughts", "right"),
        ("tokens", "right"),
        ("GFLOP", "right"),
        ("answers/s", "right"),
    ):
        table.add_column(name, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    for folder, r in sorted(found, key=lambda pair: (pair[1].task, -pair[1].accuracy)):
        low, high = r.accuracy_ci95
        table.add_row(
            shown(_task(r)),
            shown(folder.name),
            shown(_agent(r)),
            shown(r.model),
            str(r.n),
            str(len(r.seeds)),
            f"{100 * r.accuracy:.2f}",
            shown(f"[{100 * low:.1f}, {100 * high:.1f}]"),
            *(f"{100 * r.metrics[name]:.2f}" if name in r.metrics else "" for name in ranking),
            f"{r.thoughts_mean:.1f}",
            f"{r.tokens_mean:.1f}",
            f"{r.flops_per_answer / 1e9:.3g}",
            f"{r.answers_per_s:.3g}",
        )
    console.print(table)
    if any(r.source == "sample" for _, r in found):
        console.print("* on the packaged sample, which is not the real data set: no result.")
    for folder, r in found:
        if r.trained_on:
            console.print(f"{folder.name}: {r.trained_on} of {r.n} questions were trained on.")
    if any(r.oracle for _, r in found):
        console.print("(oracle) looks at the gold answers to choose: an upper bound, no result.")


def _agent(result: Result) -> str:
    marks = [*([result.control] if result.control else []), *(["oracle"] if result.oracle else [])]
    return f"{result.agent} ({', '.join(marks)})" if marks else result.agent


def _task(result: Result) -> str:
    mark = "*" if result.source == "sample" else ""
    return f"{result.task}{mark} ({result.family})"
