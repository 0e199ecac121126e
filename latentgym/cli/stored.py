"""The stored results that a command is about."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from latentgym.errors import UsageError
from latentgym.evaluation.columns import Run
from latentgym.evaluation.results import find_results
from latentgym.system.terminal import say


def stored_results(folders: Sequence[Path]) -> list[Run]:
    """All records in some folders and below; those that cannot be read are told and left out.

    Raises:
        UsageError: there are none, or none of them can be read.
    """
    refused = list[UsageError]()
    found = find_results(folders, refused.append)
    if not found and refused:
        raise refused[0]
    if not found:
        named = ", ".join(map(str, folders))
        raise UsageError(f"no results in {named}; run latentgym eval ... --out DIR first.")
    for error in refused:
        say(f"left out: {error}")
    return found
