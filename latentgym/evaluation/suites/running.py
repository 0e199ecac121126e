"""Runs the cells of a suite, each in a process of its own, so many at once.

What is there is not run again, and what was killed goes on. A cell that fails does not stop the
others; those that start from it are not run.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from latentgym.errors import UsageError
from latentgym.evaluation.results import RESULT
from latentgym.evaluation.suites.cells import Cell, folder, is_done, waves
from latentgym.progress import progress_bar
from latentgym.storage import writable

LOG = "log.txt"
_PATIENCE = 30.0  # seconds for a command to end in order


class Job(NamedTuple):
    """A cell under one seed."""

    cell: Cell
    seed: int

    def __str__(self) -> str:
        return f"{self.cell.name} seed {self.seed}"


class Failure(NamedTuple):
    """A job without a result, and why."""

    job: Job
    why: str


@dataclass
class Workers:
    """Who runs the commands.

    Attributes:
        jobs: commands at once, which share the processors.
        ray: workers of an evaluation on Ray; None evaluates in the command's own process.
    """

    jobs: int = 1
    ray: int | None = None
    _running: set[subprocess.Popen[bytes]] = field(default_factory=set)

    def words(self, cell: Cell) -> list[str]:
        """What a cell's command says of them."""
        # Shuffled thoughts are swapped within a batch, so they stay in one process.
        if self.ray is None or cell.argv[0] != "eval" or "shuffle" in cell.argv:
            return []
        return ["--backend", "ray", "--workers", str(self.ray)]

    def run(self, job: Job, out: Path) -> str | None:
        """Run a command to its end; why it failed, or None."""
        where = folder(out, job.cell.name, job.seed)
        command = [*job.cell.command(out, job.seed), *self.words(job.cell), "--resume"]
        try:
            with writable(where):
                where.mkdir(parents=True, exist_ok=True)
                log = (where / LOG).open("wb")
        except UsageError as error:
            return str(error)
        with log, self._started(command, log.fileno()) as process:
            code = process.wait()
        if code == 0:
            return None if (where / RESULT).exists() else f"it ended without a {RESULT}"
        return _reason(where / LOG, code)

    @contextmanager
    def _started(self, command: Sequence[str], log: int) -> Iterator[subprocess.Popen[bytes]]:
        threads = str(max(1, len(os.sched_getaffinity(0)) // self.jobs))
        with subprocess.Popen(
            [sys.executable, "-m", "latentgym.cli.child", *command],
            stdin=subprocess.PIPE,  # when it is closed, the command ends
            stdout=log,
            stderr=log,
            start_new_session=True,  # an interrupt from the keyboard is for this process alone
            env={"OMP_NUM_THREADS": threads, **os.environ},
        ) as process:
            self._running.add(process)
            try:
                yield process
            finally:
                self._running.discard(process)

    def stop(self) -> None:
        """End what is running, in order where that does not take too long."""
        processes = list(self._running)
        for process in processes:
            if process.stdin is not None:
                process.stdin.close()
        for process in processes:
            with suppress(subprocess.TimeoutExpired):
                process.wait(_PATIENCE)
            process.kill()


def run_cells(cells: Sequence[Cell], out: Path, workers: Workers, name: str) -> list[Failure]:
    """Run what has no result yet, whatever is started from before what starts from it.

    Args:
        cells: to run, under their seeds. A start that is not among them has been run before.
        out: folder of the suite's runs.
        workers: who runs them.
        name: of the suite, for its progress.

    Returns:
        What failed, and what was not run because of that.

    Raises:
        UsageError: a result that is there is of other settings, or damaged; nothing has been run.
    """
    jobs = [Job(cell, seed) for wave in waves(cells) for cell in wave for seed in cell.seeds]
    todo = [job for job in jobs if not is_done(job.cell, out, job.seed)]
    _check_starts(todo, jobs, out)
    failed: dict[tuple[str, int], Failure] = {}
    running: dict[Future[str | None], Job] = {}
    with (
        progress_bar(name, len(jobs), len(jobs) - len(todo)) as advance,
        ThreadPoolExecutor(workers.jobs) as pool,
    ):

        def end(job: Job, why: str | None) -> None:
            if why is not None:
                failed[job.cell.name, job.seed] = Failure(job, why)
            advance(1, _under_way(running))

        try:
            while todo or running:
                for job in _ready(todo, running, workers.jobs):
                    todo.remove(job)
                    before = failed.get((job.cell.start or "", job.seed))
                    if before is not None:
                        end(job, f"not run, as {before.job} has no result")
                        continue
                    running[pool.submit(workers.run, job, out)] = job
                    advance(0, _under_way(running))
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    end(running.pop(future), future.result())
        finally:
            workers.stop()
    return list(failed.values())


def run(cell: Cell, out: Path, seed: int) -> None:
    """Run a cell for one seed unless its result is there; a killed run goes on.

    Raises:
        UsageError: it failed.
    """
    if is_done(cell, out, seed):
        return
    if (why := Workers().run(Job(cell, seed), out)) is not None:
        raise UsageError(f"{cell.name} seed {seed} failed: {why}")


def _check_starts(todo: Sequence[Job], jobs: Sequence[Job], out: Path) -> None:
    """Refuse a start that is neither run now nor there.

    Raises:
        UsageError: there is one.
    """
    known = {(job.cell.name, job.seed) for job in jobs}
    for cell, seed in todo:
        if cell.start is None or (cell.start, seed) in known:
            continue
        where = folder(out, cell.start, seed)
        if not (where / "checkpoints").exists():
            raise UsageError(
                f"{cell.name} starts from {cell.start} under seed {seed}, which is neither chosen "
                f"nor in {where}; run it under that seed too."
            )


def _ready(todo: Sequence[Job], running: dict[Future[str | None], Job], most: int) -> list[Job]:
    """What can be started now: there is room, and what it starts from is not still to come."""
    coming = {(job.cell.name, job.seed) for job in [*todo, *running.values()]}
    free = [job for job in todo if (job.cell.start, job.seed) not in coming]
    return free[: most - len(running)]


def _under_way(running: dict[Future[str | None], Job]) -> str:
    return ", ".join(map(str, running.values()))


def _reason(log: Path, code: int) -> str:
    """The sentence with which a command failed."""
    if code < 0:
        return f"it was killed (signal {-code})"
    lines = [line for line in log.read_text("utf-8", "replace").splitlines() if line.strip()]
    own = [line.partition(": ")[2] for line in lines if line.startswith("latentgym ")]
    return (own or lines or [f"it ended with code {code}"])[-1][:500]
