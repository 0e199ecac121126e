"""`latentgym leaderboard`: results as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from latentgym.cli.check import check
from latentgym.cli.exports import ExportOptions, write_exports
from latentgym.cli.options import emit, output, parse
from latentgym.cli.page import PageOptions
from latentgym.cli.stored import stored_results
from latentgym.cli.tables import show
from latentgym.errors import UsageError, did_you_mean
from latentgym.evaluation.columns import BY_NAME


@dataclass(frozen=True)
class LeaderboardOptions:
    """Options of the leaderboard."""

    folders: tyro.conf.Positional[list[Path]] = field(default_factory=lambda: [Path("runs")])
    """Folders with results, searched with all below."""
    sort: str = "accuracy"
    """Sort rows by this column: shares from the largest, other numbers from the smallest."""
    page: Annotated[PageOptions, tyro.conf.arg(name="")] = field(default_factory=PageOptions)
    json: bool = False
    """Print one JSON line instead of the table."""
    exports: Annotated[ExportOptions, tyro.conf.arg(name="")] = field(default_factory=ExportOptions)


def main(argv: Sequence[str]) -> int:
    """Show all results in some folders; records that cannot be read are told and left out."""
    options = parse(LeaderboardOptions, argv, "leaderboard", "Table of results.")
    if options.exports.check:
        return check(options.folders, options.json)
    if options.sort not in BY_NAME:
        raise UsageError(f"no column {options.sort!r}; {did_you_mean(options.sort, BY_NAME)}")
    found = stored_results(options.folders)
    options.page.write(found)
    write_exports(found, options.exports)
    show(found, output(options.json), options.sort)
    emit({"results": [vars(result) for _, result in found]}, options.json)
    return 0
