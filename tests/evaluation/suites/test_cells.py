"""Cells of a suite: their order, and whether the result of one is there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from latentgym.errors import UsageError
from latentgym.evaluation.suites.cells import Cell, folder, is_done, waves


def test_cells_come_after_what_they_start_from() -> None:
    chain = [Cell("a", "z", (), start="y"), Cell("a", "y", (), start="x"), Cell("a", "x", ())]
    assert [[cell.name for cell in wave] for wave in waves(chain)] == [["x"], ["y"], ["z"]]
    # A start that is not among the chosen cells has been run before.
    assert [[cell.name for cell in wave] for wave in waves(chain[:1])] == [["z"]]


def test_a_result_is_done_by_the_command_that_made_it(made: Any, tmp_path: Path) -> None:
    cell = Cell("p", "b", ("eval", "cot", "MNNS-token", "--limit", "2"), start="a/x")
    command = "latentgym eval cot MNNS-token --limit 2 --checkpoint {} --seeds 0"
    assert not is_done(cell, tmp_path, 0)
    for checkpoint in ("elsewhere/a/x/seed-0", str(folder(tmp_path, "a/x", 0))):
        made("b/seed-0", [1, 0], command=command.format(checkpoint))
        assert is_done(cell, tmp_path, 0)
    made("b/seed-0", [1, 0], command=f"{command.format('a/x/seed-0')} --backend ray --workers 2")
    assert is_done(cell, tmp_path, 0)
    for other in (
        command.format("a/x/seed-1"),
        command.format("b/x/seed-0"),
        command.format("a/x/seed-0").replace("--limit 2", "--limit 3"),
    ):
        made("b/seed-0", [1, 0], command=other)
        with pytest.raises(UsageError, match=r"result of other settings \(eval cot"):
            is_done(cell, tmp_path, 0)
    made("b/seed-0", [1, 0])
    with pytest.raises(UsageError, match="does not say by which command"):
        is_done(cell, tmp_path, 0)
