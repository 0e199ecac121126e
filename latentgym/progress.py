"""Progress of anything that takes more than a few seconds, on stderr."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TypeAlias

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from latentgym.system.console import Console
from latentgym.system.terminal import printable

Advance: TypeAlias = "Callable[..., None]"
"""`advance(n=1, note="")`: so many are done, and what to show beside."""

_BAR, _REST = 8, 22  # columns of the bar; of slash, rate, time left and the blanks between all
_FIRST, _EVERY = 4.0, 30.0  # seconds until the first line, and between lines


def has_widgets() -> bool:
    """Whether a notebook can redraw a bar: without, rich warns at each and prints every state."""
    return find_spec("ipywidgets") is not None


@contextmanager
def progress_bar(what: str, total: int | None, done: int = 0) -> Iterator[Advance]:
    """A progress bar with rate and time left.

    On a terminal, and in a notebook with `ipywidgets`, it is a bar; elsewhere, as in a log file, a
    line after four seconds and then one every half a minute. Without a known total it counts.

    Args:
        what: is going on.
        total: of what is counted; None where it is not known.
        done: how many of them were done before.

    Yields:
        A function (advance, note).
    """
    console = Console(stderr=True)
    drawn = has_widgets() if console.is_jupyter else console.is_terminal
    shown = _bar if drawn else _lines
    with shown(console, what, total, done) as advance:
        yield advance


@contextmanager
def _bar(console: Console, what: str, total: int | None, done: int) -> Iterator[Advance]:
    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=_BAR),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[note]}", markup=False),
        console=console,
        transient=total is None,
    )
    room = max(10, console.width - _BAR - 2 * len(str(total or 10**5)) - _REST)
    name = _cut(printable(what), room // 2)
    task = bar.add_task(name, total=total, completed=done, note="", rate="")

    def advance(n: int = 1, note: str = "") -> None:
        bar.update(task, advance=n, note=_cut(printable(note), room - len(name)))
        speed = bar.tasks[0].speed
        bar.update(task, rate=_rate(speed) if speed else "")

    with bar:
        yield advance


@contextmanager
def _lines(_: Console, what: str, total: int | None, done: int) -> Iterator[Advance]:
    started, first, last = time.monotonic(), done, ""
    over = threading.Event()

    def advance(n: int = 1, note: str = "") -> None:
        nonlocal done, last
        done, last = done + n, note or last

    def tell() -> None:
        wait = _FIRST
        while not over.wait(wait):  # a thread of its own, as a single step may take minutes
            wait = _EVERY
            parts = [f"{done}" if total is None else f"{done} of {total}"]
            if total is None and not done:
                parts = ["under way"]
            rate = (done - first) / (time.monotonic() - started)
            if rate:
                parts.append(_rate(rate))
                if total is not None:
                    parts.append(f"{_duration((total - done) / rate)} left")
            print(f"{what}: {', '.join([*parts, *([last] if last else [])])}", file=sys.stderr)
            sys.stderr.flush()

    thread = threading.Thread(target=tell, daemon=True, name="progress")
    thread.start()
    try:
        yield advance
    finally:
        over.set()
        thread.join()


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def _rate(speed: float) -> str:
    """How many in a second, or where that is little, in a minute."""
    return f"{speed:.1f}/s" if speed >= 0.95 else f"{60 * speed:.1f}/min"


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
