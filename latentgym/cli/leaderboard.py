"""`latentgym leaderboard`: results as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import tyro

from latentgym.cli.options import emit, output, parse, say
from latentgym.cli.tables import show
from latentgym.errors import UsageError, did_you_mean
from latentgym.evaluation.columns import BY_NAME
from latentgym.evaluation.results import find_results


@dataclass(frozen=True)
class LeaderboardOptions:
    """Options of the leaderboard."""

    folders: tyro.conf.Positional[list[Path]] = field(default_factory=lambda: [Path("runs")])
    """Folders with results, searched with all below."""
    sort: str = "accuracy"
    """Sort rows by this column: shares from the largest, other numbers from the smallest."""
    json: bool = False
    """Print one JSON line instead of the table."""


def main(argv: Sequence[str]) -> int:
    """Show all results in some folders; records that cannot be read are told and left out."""
    options = parse(LeaderboardOptions, argv, "leaderboard", "Table of results.")
    if options.sort not in BY_NAME:
        raise UsageError(f"no column {options.sort!r}; {did_you_mean(options.sort, BY_NAME)}")
    found = find_results(options.folders, lambda error: say(f"left out: {error}"))
    if not found:
        folders = ", ".join(map(str, options.folders))
        raise UsageError(f"no results in {folders}; run latentgym eval ... --out DIR first.")
    show(found, output(options.json), options.sort)
    emit({"results": [vars(result) for _, result in found]}, options.json)
    return 0
