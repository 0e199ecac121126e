"""Commands that are killed, or find the disk full, and are started again."""

from __future__ import annotations

import contextlib
import random
import time
from pathlib import Path
from typing import Any

from benchmarks.chaos.commands import Command, run
from benchmarks.chaos.tally import Tally

_WORKPLACE = ".latentgym-*"
_SECONDS = 10.0  # in which what belongs to a killed command must have ended


class Breaks:
    """Breaks one command in a way, and compares with one that was left alone.

    Args:
        command: which.
        folder: to work in.
        rng: of the moments.
    """

    def __init__(self, command: Command, folder: Path, rng: random.Random) -> None:
        self.command, self.folder, self.rng = command, folder, rng
        self._made = 0
        whole = folder / "whole"
        run(command.words(folder / "first"))  # what is imported once and for all
        end = run(command.words(whole))
        if end.code:
            raise RuntimeError(f"{command.name} fails by itself: {end.said}")
        self.seconds, self.expected = end.seconds, command.made(whole)
        self.largest = max(path.stat().st_size for path in whole.rglob("*") if path.is_file())

    def kills(self, tries: int) -> Tally:
        """Kill it so many times at random moments, up to three times before it may end."""
        tally = Tally(f"killed: {self.command.name}")
        while tally.tries < tries:
            out, killed, fault = self._out(), 0, None
            while killed < 3 and tally.tries + killed < tries:
                end = run(self.command.words(out), seconds=self.rng.uniform(0, self.seconds))
                fault = fault or end.fault or self._stray()
                if end.code >= 0:
                    break
                killed += 1
            tally.add(fault or self._fault_in_the_end(out, finished=end.code == 0), max(1, killed))
        return tally

    def full_disks(self, tries: int) -> Tally:
        """Let no file grow beyond a random size, then beyond none."""
        tally = Tally(f"disk full: {self.command.name}")
        for _ in range(tries):
            out = self._out()
            # As likely among the first bytes as among the last thousands.
            most = int(self.largest ** self.rng.random()) - 1
            end = run(self.command.words(out), most_bytes=most)
            fault = end.fault
            if end.code == 2 and "cannot write" not in end.said and "room" not in end.said:
                fault = fault or f"it says {end.said.strip()[-200:]}"
            tally.add(fault or self._fault_in_the_end(out, finished=end.code == 0))
        return tally

    def _stray(self) -> str | None:
        """A process that outlives the command, if there is one."""
        deadline = time.monotonic() + _SECONDS
        while found := _processes(str(self.folder)):
            if time.monotonic() > deadline:
                return f"it leaves a process behind: {found[0][:200]}"
            time.sleep(0.05)
        return None

    def _out(self) -> Path:
        self._made += 1
        return self.folder / f"{self._made:04d}" / "out"

    def _fault_in_the_end(self, out: Path, *, finished: bool) -> str | None:
        """Let it end if it has not; what is wrong then."""
        if not finished:
            end = run(self.command.words(out))
            if end.code and not _is_done(end.said):
                return f"it does not go on: {end.said.strip()[-300:]}"
        made: Any = self.command.made(out)
        if made != self.expected:
            return f"it made something else in {out}"
        left = list(out.parent.rglob(_WORKPLACE))
        return f"{left[0]} is left behind" if left else None


def _processes(word: str) -> list[str]:
    """Command lines in which a word stands."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            line = path.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
            found += [line] if word in line else []
    return found


def _is_done(said: str) -> bool:
    """Whether it was killed after its work was done."""
    return "holds a result already" in said or "is there already" in said
