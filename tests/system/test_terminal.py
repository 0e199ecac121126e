"""Whatever a name spells, a terminal shows it and does nothing else."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

from latentgym.cli.main import main
from latentgym.cli.options import emit
from latentgym.progress import progress_bar
from latentgym.system.terminal import printable, say, shown

HOSTILE = "\x1b[31mred\x1b]0;title\x07\x9b2J [bold]b[/] [/red] :smile: \u202ereversed\\ \ud800"


def harmless(text: str) -> bool:
    return all(c.isprintable() or c == "\n" for c in text)


@given(st.text())
def test_a_cell_shows_what_it_is_given(text: str) -> None:
    # A mark that goes with the character before it, alone, is nothing to see.
    assume(not text.strip() or cell_len(printable(text)) > 0)
    out = io.StringIO()
    table = Table(box=None)
    table.add_column(no_wrap=True)
    table.add_row(shown(text))
    Console(file=out, width=10_000, emoji=False, force_terminal=False).print(table)
    assert out.getvalue().strip() == " ".join(printable(text).split()).strip()
    assert harmless(out.getvalue())


def test_on_a_terminal_lines_are_broken_between_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = f"{'word ' * 30}/a/path-that-is/{'x' * 90}\n\nand more"
    say(text)
    assert capsys.readouterr().err == text + "\n"
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    say(text)
    told = capsys.readouterr().err
    assert told.split() == text.split()
    assert all(len(line) <= 80 or " " not in line for line in told.splitlines())
    assert "" in told.splitlines() and max(map(len, told.splitlines())) > 80


def test_long_texts_are_cut() -> None:
    assert str(shown("x" * 10, 4)) == "xxx…" and str(shown("x" * 4, 4)) == "x" * 4


def test_lines_for_people_and_programs_hold_no_control_character(
    capsys: pytest.CaptureFixture[str],
) -> None:
    say(HOSTILE)
    emit({"name": HOSTILE}, True)
    captured = capsys.readouterr()
    assert harmless(captured.err) and harmless(captured.out)
    assert json.loads(captured.out) == {"name": HOSTILE}


def test_a_progress_bar_takes_any_name(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    with progress_bar(HOSTILE, 1) as advance:
        advance(1, HOSTILE)
    assert "\x1b]0;" not in capsys.readouterr().err


def test_no_command_obeys_a_question(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "[red]rows.jsonl"
    path.write_text(json.dumps({"question": HOSTILE, "answer": f"{HOSTILE} #### 4"}))
    assert main(["info", "GSM8K-token", "-o", f"source={path}", "--split", "test"]) == 0
    captured = capsys.readouterr()
    assert harmless(captured.out) and harmless(captured.err)
    assert "[bold]b[/] [/red] :smile:" in captured.out
