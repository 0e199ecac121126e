"""The journal of an evaluation: its answers as they come, so that one that was killed can go on.

JSON lines: what is evaluated, then one line for each batch of answers. A killed process leaves at
most its last line unfinished, and that is cut off.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import latentgym
from latentgym.accounting import Positions
from latentgym.answers import Answer
from latentgym.errors import UsageError, require_same

JOURNAL = "journal.jsonl"


class Journal:
    """The answers of an evaluation so far.

    Args:
        folder: where `journal.jsonl` is, or will be; None keeps none.
        identity: what is evaluated; answers to anything else do not belong in it.

    Attributes:
        answers: those that were found, by seed and question.
        wall_s: seconds that they took.

    Raises:
        UsageError: it is of another evaluation, damaged before its last line, or not writable.
    """

    def __init__(self, folder: Path | None, identity: Mapping[str, Any]) -> None:
        self.answers: dict[tuple[int, int], Answer] = {}
        self.wall_s = 0.0
        self._path = None if folder is None else folder / JOURNAL
        if self._path is None:
            return
        # As JSON gives it back: a tuple is a list there.
        asked = json.loads(json.dumps({"latentgym": latentgym.__version__, **identity}))
        with _within_reach(self._path):
            entries = _whole_lines(self._path)
        if not entries:
            self._write(self._path, asked)
            return
        # Journals from before tell costs as well, which follow from the rest.
        begun = {key: value for key, value in entries[0].items() if key != "sizes"}
        require_same(begun, asked, self._path)
        for entry in entries[1:]:
            answers = [_answer(data) for data in entry["answers"]]
            self.answers |= {(entry["seed"], answer.index): answer for answer in answers}
            self.wall_s = entry["wall_s"]

    def add(self, seed: int, answers: Sequence[Answer], wall_s: float) -> None:
        """Write a batch of answers down.

        Args:
            seed: that they were drawn with.
            answers: of the batch.
            wall_s: seconds that the whole evaluation has taken.

        Raises:
            UsageError: there is no room.
        """
        if self._path is not None:
            plain = [asdict(answer) for answer in answers]
            self._write(self._path, {"seed": seed, "wall_s": wall_s, "answers": plain})

    @staticmethod
    def _write(path: Path, entry: Mapping[str, Any]) -> None:
        with _within_reach(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a", encoding="ascii") as file:
                file.write(json.dumps(entry) + "\n")


@contextmanager
def _within_reach(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UsageError(
            f"cannot write {path} ({error.strerror or error}); make room and go on with --resume, "
            "or choose another --out."
        ) from error


def _whole_lines(path: Path) -> list[dict[str, Any]]:
    """What the lines say. The last one is cut off if it is damaged."""
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    entries, end = [], 0
    for number, line in enumerate(lines, 1):
        entry = _entry(line)
        if entry is not None:
            entries.append(entry)
            end += len(line)
        elif number == len(lines):
            os.truncate(path, end)
        else:
            raise UsageError(
                f"{path} is damaged in line {number}; delete it and evaluate again, or choose "
                "another --out."
            )
    return entries


def _entry(line: bytes) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) and line.endswith(b"\n") else None


def _answer(data: Mapping[str, Any]) -> Answer:
    """The answer of which `asdict` made this."""
    positions, samples = Positions(**data["positions"]), tuple(data["samples"])
    return Answer(**{**data, "positions": positions, "samples": samples})
