"""A cell of a suite: one figure, the command that makes it, and where its runs are kept."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from latentgym.errors import UsageError
from latentgym.evaluation.columns import Run
from latentgym.evaluation.results import RESULT, load_result

Verb = Literal["train", "eval", "baseline"]
_WHERE = ("--backend", "--workers", "--ray-address")  # an answer is the same wherever it is made


class Knob(NamedTuple):
    """A setting that buys accuracy at a cost, such as the number of samples.

    Attributes:
        of: the cell without it, which all of its values have in common.
        name: of the setting.
        value: in this cell.
    """

    of: str
    name: str
    value: float


@dataclass(frozen=True)
class Cell:
    """One figure of a table: a command, and what the paper has."""

    part: str
    name: str
    argv: tuple[str, ...]
    paper: float | None = None
    start: str | None = None  # the cell whose model this one starts from
    curve: bool = False  # whether the record keeps the logged steps of the first seed
    seeds: tuple[int, ...] = (0,)
    knob: Knob | None = None
    of: str | None = None  # the cell whose thoughts this one replaces

    def settings(self, seed: int, start: Path | None = None) -> list[str]:
        """The command line of one seed, without where its run is kept."""
        begin = [] if start is None else ["--checkpoint", str(start)]
        chosen = "--seeds" if self.argv[0] == "eval" else "--seed"
        return [*self.argv, *begin, chosen, str(seed)]

    def command(self, out: Path, seed: int) -> list[str]:
        """The command line of one seed."""
        start = None if self.start is None else folder(out, self.start, seed)
        return [*self.settings(seed, start), "--out", str(folder(out, self.name, seed))]


def folder(out: Path, name: str, seed: int) -> Path:
    """Where a cell's run of one seed is kept."""
    return out / name / f"seed-{seed}"


def waves(cells: Sequence[Cell]) -> Iterator[list[Cell]]:
    """Cells in an order in which what starts from another cell's model comes after it.

    Raises:
        UsageError: cells start from each other.
    """
    todo = list(cells)
    while todo:
        names = {cell.name for cell in todo}
        ready = [cell for cell in todo if cell.start not in names]
        if not ready:
            raise UsageError(
                f"cells start from each other in a ring: {', '.join(sorted(names))}; let one of "
                "them start from nothing."
            )
        yield ready
        todo = [cell for cell in todo if cell.start in names]


def is_done(cell: Cell, out: Path, seed: int) -> bool:
    """Whether a cell's result is there.

    Raises:
        UsageError: there is one of other settings, or one that is damaged.
    """
    where = folder(out, cell.name, seed)
    if not (where / RESULT).exists():
        return False
    told = shlex.split(load_result(where).command)[1:]  # without the name of the program
    if not told:
        raise UsageError(
            f"{where} holds a result that does not say by which command it was made; choose "
            "another --out, or delete it."
        )
    start = None if cell.start is None else folder(Path(), cell.start, seed)
    if _plain(told, start) != cell.settings(seed, start):
        raise UsageError(
            f"{where} holds a result of other settings ({shlex.join(told)}); choose another --out, "
            "or delete it."
        )
    return True


def results_of(cells: Sequence[Cell], out: Path) -> list[Run]:
    """The results of some cells that are there, without those that are not their own."""
    found: list[Run] = []
    for cell in cells:
        for seed in cell.seeds:
            with suppress(UsageError):
                if is_done(cell, out, seed):
                    where = folder(out, cell.name, seed)
                    found.append((where, load_result(where)))
    return found


def _plain(told: Sequence[str], start: Path | None) -> list[str]:
    """A command's words without where it ran; its checkpoint as from the folder of the suite."""
    words, left = iter(told), list[str]()
    for word in words:
        if word in _WHERE:
            next(words, None)
        elif word == "--checkpoint" and start is not None:
            path = Path(next(words, ""))
            own = path.parts[-len(start.parts) :] == start.parts
            left += [word, str(start if own else path)]
        else:
            left.append(word)
    return left
