"""Progress for people, with a terminal and without."""

from __future__ import annotations

import io
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from latentgym import progress
from latentgym.progress import progress_bar


def test_without_a_terminal_there_are_lines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_FIRST", 0.05)
    monkeypatch.setattr(progress, "_EVERY", 0.1)

    def next_line(end: str) -> str:
        said, until = "", time.monotonic() + 60
        while end not in said:
            assert time.monotonic() < until, f"no line after {said!r}"
            time.sleep(0.01)
            said += capsys.readouterr().err
        return said.splitlines()[-1]

    with progress_bar("training", 100, 20) as advance:
        # Nothing is done yet, and a line tells that something goes on.
        assert next_line("\n") == "training: 20 of 100"
        advance(40, "loss 0.500")
        told = next_line("loss 0.500\n")
    assert told.startswith("training: 60 of 100, ")
    assert told.endswith(" s left, loss 0.500")


def test_what_is_done_at_once_needs_no_line(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("reading", None) as advance:
        advance(3)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("total", [None, 1000])
def test_a_bar_fits_eighty_columns(total: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    terminal = Console(file=screen, force_terminal=True, width=80, color_system=None)
    monkeypatch.setattr(progress, "Console", lambda **_: terminal)
    with progress_bar("latentseek on latent/2WikiMultihopQA-hybrid", total) as advance:
        advance(250, "[red] 0.125")
    shown = [re.sub(r"\x1b\[\?*\w+", "", line) for line in re.split("[\r\n]", screen.getvalue())]
    assert any("250/" in line and "[red] 0.125" in line for line in shown)
    assert max(map(len, shown)) <= 80


@pytest.mark.parametrize(
    ("seconds", "text"), [(3.2, "3 s"), (61, "1 min 1 s"), (7260, "2 h 1 min"), (59.6, "1 min 0 s")]
)
def test_durations_are_told_as_people_do(seconds: float, text: str) -> None:
    assert progress._duration(seconds) == text


@pytest.mark.parametrize("widgets", [True, False])
def test_a_notebook_without_widgets_has_lines(
    widgets: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = []

    @contextmanager
    def noted(name: str, *_: Any) -> Iterator[Any]:
        shown.append(name)
        yield lambda *_: None

    made = SimpleNamespace(is_jupyter=True, is_terminal=False)
    monkeypatch.setattr(progress, "Console", lambda **_: made)
    monkeypatch.setattr(progress, "has_widgets", lambda: widgets)
    for name in ("_bar", "_lines"):
        monkeypatch.setattr(progress, name, partial(noted, name))
    with progress_bar("what", 3):
        pass
    assert shown == ["_bar" if widgets else "_lines"]
