"""Progress bars for anything that takes more than a few seconds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from latentgym.terminal import printable


@contextmanager
def progress_bar(what: str, total: int | None, done: int = 0) -> Iterator[Any]:
    """A progress bar on stderr with rate and time left; silent where that is no terminal.

    Without a known total it counts, and shows that something is going on.

    Yields:
        A function (advance, note).
    """
    console = Console(stderr=True)
    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[note]}", markup=False),
        console=console,
        disable=not console.is_terminal,
        transient=False,
    )
    task = bar.add_task(printable(what), total=total, completed=done, note="", rate="")

    def advance(n: int = 1, note: str = "") -> None:
        bar.update(task, advance=n, note=printable(note))
        speed = bar.tasks[0].speed
        bar.update(task, rate=f"{speed:.1f}/s" if speed else "")

    with bar:
        yield advance
