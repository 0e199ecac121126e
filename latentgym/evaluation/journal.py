"""The journal of an evaluation: its answers as they come, so that one that was killed can go on.

JSON lines: what is evaluated, then one line for each batch of answers. Each is sealed together
with the line above, so that none can be changed, lost or moved unseen. A killed process leaves at
most its last line unfinished, and that is cut off.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import latentgym
from latentgym.errors import UsageError, require_same
from latentgym.evaluation.accounting import Positions
from latentgym.evaluation.answers import Answer
from latentgym.registry import current
from latentgym.storage import finite, to_json, writable
from latentgym.system.sealed import SEAL, is_of, note_unverified, opened, parsed, sealed

JOURNAL = "journal.jsonl"
_FIRST = ""  # stands for the seal of the line before the first


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
        self._last: str | None = _FIRST  # seal of the last line; None in journals from before
        self._path = None if folder is None else folder / JOURNAL
        if self._path is None:
            return
        # As JSON gives it back: a tuple is a list there.
        asked = json.loads(json.dumps({"latentgym": latentgym.__version__, **identity}))
        with _within_reach(self._path):
            entries, self._last = _whole_lines(self._path)
        if not entries:
            self._write(self._path, asked)
            return
        # Journals from before tell costs as well, which follow from the rest.
        started = {key: value for key, value in entries[0].items() if key != "sizes"}
        if isinstance(config := started.get("config"), dict):
            started["config"] = {**config, "agent": current(config.get("agent"))}
        require_same(started, asked, self._path)
        if self._last is None:
            note_unverified(str(self._path))
        for number, entry in enumerate(entries[1:], start=2):
            try:
                answers = [_answer(data) for data in entry["answers"]]
                self.answers |= {(int(entry["seed"]), answer.index): answer for answer in answers}
                self.wall_s = float(entry["wall_s"])
            except (LookupError, TypeError, ValueError) as error:
                raise _damaged(self._path, number) from error

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

    def _write(self, path: Path, entry: Mapping[str, Any]) -> None:
        entry = finite(entry)
        if self._last is not None:
            entry = sealed(entry, self._last)
            self._last = entry[SEAL]
        with _within_reach(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a", encoding="ascii") as file:
                file.write(to_json(entry) + "\n")


def _within_reach(path: Path) -> AbstractContextManager[None]:
    return writable(path, "choose another --out; --resume goes on with what is written")


def _whole_lines(path: Path) -> tuple[list[dict[str, Any]], str | None]:
    """What the lines say, and the seal of the last, which is cut off if it is damaged."""
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    seal: str | None = _FIRST
    entries, end = list[dict[str, Any]](), 0
    for number, line in enumerate(lines, 1):
        try:
            entry, seal = _entry(line, seal)
        except ValueError:
            if number < len(lines):
                raise _damaged(path, number) from None
            os.truncate(path, end)
        else:
            entries.append(entry)
            end += len(line)
    return entries, seal


def _entry(line: bytes, before: str | None) -> tuple[dict[str, Any], str | None]:
    """What a line says, and its seal.

    Raises:
        ValueError: it is damaged, or not the one that was written behind the line before.
    """
    entry = parsed(line)
    if not isinstance(entry, dict) or not line.endswith(b"\n"):
        raise ValueError("no whole line")
    seal = entry.get(SEAL)
    verified = opened(entry, before or "")
    if before != _FIRST and verified != (before is not None):
        raise ValueError("all lines are sealed, or none")
    return entry, seal


def _damaged(path: Path, line: int) -> UsageError:
    return UsageError(
        f"{path} is damaged in line {line}; delete it and evaluate again, or choose another --out."
    )


def _answer(data: Mapping[str, Any]) -> Answer:
    """The answer of which `asdict` made this.

    Raises:
        LookupError, TypeError: it is none.
    """
    kinds = ("info", dict[str, Any]), ("positions", dict[str, float]), ("samples", list[float])
    if not all(is_of(data[key], kind) for key, kind in kinds) or (
        not is_of(data["info"]["score"], float)
    ):
        raise TypeError("no answer")
    positions, samples = Positions(**data["positions"]), tuple(data["samples"])
    return Answer(**{**data, "positions": positions, "samples": samples})
