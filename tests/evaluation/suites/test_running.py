"""Running cells: in which order, how many at once, and what a failure stops."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from latentgym.errors import UsageError
from latentgym.evaluation.suites import running
from latentgym.evaluation.suites.cells import Cell, folder
from latentgym.evaluation.suites.running import Failure, Job, Workers, run_cells

CELLS = (
    Cell("", "sad", ("eval", "cot", "MNNS-token"), start="bad"),
    Cell("", "two", ("eval", "cot", "MNNS-token"), start="one", seeds=(0, 1)),
    Cell("", "one", ("train", "cot", "MNNS-token"), seeds=(0, 1)),
    Cell("", "bad", ("train", "cot", "MNNS-token")),
    Cell("", "sadder", ("eval", "cot", "MNNS-token"), start="sad"),
)

Run = Callable[..., tuple[list[Failure], list[str]]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """`run(jobs, failing)`: failures, and the jobs in the order in which they began."""

    def of(jobs: int, failing: Mapping[str, str], cells: Sequence[Cell] = CELLS) -> Any:
        began, at_once = list[str](), list[Job]()

        def act(self: Workers, job: Job, out: Path) -> str | None:
            began.append(str(job))
            at_once.append(job)
            assert len(at_once) <= jobs
            at_once.remove(job)
            return failing.get(job.cell.name)

        monkeypatch.setattr(running.Workers, "run", act)
        return run_cells(cells, tmp_path, Workers(jobs), "own"), began

    return of


@pytest.mark.parametrize("jobs", [1, 2, 8])
def test_starts_come_first_and_a_failure_stops_only_what_starts_from_it(
    jobs: int, run: Run
) -> None:
    failures, began = run(jobs, {"bad": "no room"})
    assert sorted(began) == [
        "bad seed 0",
        *(f"{n} seed {s}" for n in ("one", "two") for s in (0, 1)),
    ]
    for seed in (0, 1):
        assert began.index(f"one seed {seed}") < began.index(f"two seed {seed}")
    assert {str(failure.job): failure.why for failure in failures} == {
        "bad seed 0": "no room",
        "sad seed 0": "not run, as bad seed 0 has no result",
        "sadder seed 0": "not run, as sad seed 0 has no result",
    }


def test_what_is_there_is_not_run_again(run: Run, made: Any) -> None:
    made("one/seed-1", [1], command="latentgym train cot MNNS-token --seed 1")
    failures, began = run(1, {})
    assert failures == [] and "one seed 1" not in began and len(began) == 6


def test_a_cell_that_cannot_be_written_is_one_that_failed(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    [failure] = run_cells([Cell("", "file/below", ("eval",))], tmp_path, Workers(), "own")
    assert "cannot write" in failure.why


def test_a_command_that_leaves_no_result_has_failed(tmp_path: Path) -> None:
    [failure] = run_cells([Cell("", "help", ("envs", "--help"))], tmp_path, Workers(), "own")
    assert failure.why == "it ended without a result.json"


def test_a_start_that_is_not_chosen_must_be_there(run: Run, tmp_path: Path) -> None:
    alone = [cell for cell in CELLS if cell.name == "two"]
    (folder(tmp_path, "one", 0) / "checkpoints").mkdir(parents=True)
    with pytest.raises(UsageError, match="starts from one under seed 1, which is neither"):
        run(1, {}, alone)
    (folder(tmp_path, "one", 1) / "checkpoints").mkdir(parents=True)
    assert run(1, {}, alone) == ([], ["two seed 0", "two seed 1"])
