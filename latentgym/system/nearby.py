"""What stands where somebody looked for a run or a model: for messages about what does not."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

_FILES = ("result.json", "manifest.json", "checkpoints", "config.json")  # of runs and models
_MOST_ENTRIES = 1000  # that are looked at
_MOST_NAMED = 8


def runs_in(folder: Path) -> list[str]:
    """The names of the runs and models in a folder; none where there is no such folder."""
    try:
        entries = sorted(islice(folder.iterdir(), _MOST_ENTRIES))
        return [entry.name for entry in entries if any((entry / name).exists() for name in _FILES)]
    except OSError:
        return []


def no_folder(path: Path) -> str:
    """That a path is no folder, with the runs and models beside where it would be.

    The beginning of a sentence, without its full stop.
    """
    if path.is_file():
        return f"{path} is a file, not a folder"
    return f"there is no folder {path}{_has(path.parent)}"


def none_itself(folder: Path, what: str) -> str:
    """That a folder holds no such thing itself, with the runs and models in it."""
    return f"{folder} holds no {what} itself{_has(folder)}"


def _has(folder: Path) -> str:
    named = runs_in(folder)
    if not named:
        return ""
    more = f" and {len(named) - _MOST_NAMED} more" if len(named) > _MOST_NAMED else ""
    return f"; {folder}/ has {', '.join(named[:_MOST_NAMED])}{more}"
