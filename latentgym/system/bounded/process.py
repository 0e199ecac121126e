"""Work on hostile input in a process that may be killed.

Symbolic equality of hostile text, or a chat template, can run for ever or fill the memory, and a
time limit by signal works in no thread but the main one. So it runs in a process of its own
(`_worker`), one for each process that wants it. What runs there is a *job*, named by its module.
"""

from __future__ import annotations

import atexit
import json
import os
import selectors
import subprocess
import sys
import threading
from contextlib import suppress
from typing import IO, Any, ClassVar

from latentgym.system.bounded._worker import (
    ENDED,
    PATIENCE,
    TRIES,
    new_number,
    read_frame,
    write_frame,
)

# What is imported is what this process would import.
_WORKER = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from latentgym.system.bounded._worker import main
main(float(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
"""
_START_SECONDS = 60.0
# How much later than its own limit the keeper may answer before it is given up itself.
_GRACE_SECONDS = 5.0
_REMEMBERED = 4096
_REMEMBERED_LENGTH = 1 << 14
_MAX_SETTINGS = 64
# Numerical libraries reserve address space for each thread, and a worker has one.
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


class BoundedError(RuntimeError):
    """The process cannot be had, or is ended from outside again and again."""


class BoundedProcess:
    """Runs a job on hostile input within bounds; safe to share between threads.

    The worker starts with the first request (a second or two) and ends with this process; a
    forked copy of this process starts its own. Make one and keep it.

    Args:
        job: importable name of the job's module (see `_worker`).
        does: what it does, for messages, such as "judges answers".
        needs: the package that the job needs, as pip knows it.
        timeout: seconds of the processor that one request may take; by the clock it may take ten
            times as long, as a busy machine gives it a share of a core only.
        memory: bytes of address space that the process may take.

    Attributes:
        error: what is raised where the process is at fault.
    """

    error: ClassVar[type[Exception]] = BoundedError

    def __init__(
        self, job: str, *, does: str, needs: str, timeout: float = 0.75, memory: int = 1 << 30
    ) -> None:
        self.job, self.does, self.needs = job, does, needs
        self.timeout, self.memory = timeout, memory
        self._lock = threading.Lock()
        self._keeper: subprocess.Popen[bytes] | None = None
        # The samples of a group often give the same answer. How a process ended is not remembered,
        # as it may be the machine's fault.
        self._known: dict[tuple[str, ...], Any] = {}
        self._prepared: set[str] = set()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forget)
        atexit.register(self.close)

    def start(self) -> None:
        """Start the worker, if it does not run, and wait until it is ready.

        Raises:
            BoundedError: it cannot start, for example because a package is missing.
        """
        with self._lock:
            try:
                self._running()
            except BaseException:
                self._stop()
                raise

    def call(self, setting: str, *request: str) -> Any:
        """The job's result on a request.

        Args:
            setting: what the job prepares once, without a limit on time or memory.
            request: hostile input, and what it is worked on with.

        Returns:
            What the job returns, a JSON value; "timeout"; "refused" if it met what may not be done
            there, whatever became of it; or "crash" if it took more memory or stack than there is,
            or ended its process.

        Raises:
            BoundedError: the worker cannot start, was ended from outside again and again, or
                cannot prepare the setting.
        """
        with self._lock:
            key = (setting, *request)
            if key in self._known:
                return self._known[key]
            # The keeper never touches a request, so its death is not the request's fault.
            verdict: Any = "killed"
            for _ in range(TRIES):
                try:
                    verdict = self._ask(key)
                    break
                except BaseException as error:
                    # After Ctrl-C, what is still to come would be taken for the next answer.
                    self._stop()
                    if not isinstance(error, EOFError | OSError):
                        raise
            if verdict == "killed":
                raise self.error(
                    f"the process that {self.does} was killed again and again; is memory short?"
                )
            return verdict

    def close(self) -> None:
        """End the worker. A later request starts a new one."""
        with self._lock:
            self._stop()

    def _ask(self, key: tuple[str, ...]) -> Any:
        keeper = self._ready_for(key[0])
        number = new_number()
        write_frame(_pipe(keeper.stdin), ["run", number, *key])
        reply = self._receive(keeper, PATIENCE * self.timeout + _GRACE_SECONDS)
        if reply is None or reply[0] != number:
            self._stop()
            return "timeout"
        verdict = reply[1]
        if verdict not in ENDED and sum(map(len, key)) <= _REMEMBERED_LENGTH:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[key] = verdict
        return verdict

    def _ready_for(self, setting: str) -> subprocess.Popen[bytes]:
        """The keeper, with the setting prepared."""
        if len(self._prepared) >= _MAX_SETTINGS and setting not in self._prepared:
            self._stop()  # the keeper holds what it prepared until it ends
        keeper = self._running()
        if setting and setting not in self._prepared:
            write_frame(_pipe(keeper.stdin), ["prepare", setting])
            said = self._receive(keeper, _START_SECONDS)
            if said != "ready":
                self._stop()
                raise self.error(f"the setting cannot be prepared ({said or 'no answer'})")
            self._prepared.add(setting)
        return keeper

    def _running(self) -> subprocess.Popen[bytes]:
        """The keeper, started if need be."""
        if self._keeper is not None:
            return self._keeper
        if not hasattr(os, "fork"):
            raise self.error(f"what {self.does} needs fork: use Linux, macOS or WSL")
        arguments = (json.dumps(sys.path), str(self.timeout), str(self.memory), self.job)
        keeper = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", _WORKER, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            # The order in which algebra visits terms, and so its time, depends on the hash.
            env={**os.environ, **_ONE_THREAD, "PYTHONHASHSEED": "0"},
        )
        self._keeper = keeper
        try:
            hello = self._receive(keeper, _START_SECONDS)
        except EOFError:
            hello = None
        if hello != "ready":
            self._stop()
            raise self.error(
                f"the process that {self.does} did not start ({hello or 'no answer'}); install "
                f"what it needs with: pip install {self.needs}"
            )
        return keeper

    def _receive(self, keeper: subprocess.Popen[bytes], seconds: float) -> Any:
        """The keeper's next message, or None if it does not come in time."""
        pipe = _pipe(keeper.stdout)
        # Not select.select, which cannot watch the high descriptors of a process with many files.
        with selectors.DefaultSelector() as selector:
            selector.register(pipe, selectors.EVENT_READ)
            return read_frame(pipe) if selector.select(seconds) else None

    def _stop(self) -> None:
        self._prepared.clear()
        keeper, self._keeper = self._keeper, None
        if keeper is None:
            return
        with suppress(OSError):
            _pipe(keeper.stdin).close()
        try:
            keeper.wait(timeout=2 * self.timeout)
        except subprocess.TimeoutExpired:
            keeper.kill()
            keeper.wait()
        _pipe(keeper.stdout).close()

    def _forget(self) -> None:
        """In a forked child: leave the parent's worker alone, and the lock as new."""
        self._lock = threading.Lock()
        self._prepared = set()
        keeper, self._keeper = self._keeper, None
        if keeper is None:
            return
        # Closing would flush what another thread was just writing, into the parent's pipe.
        nowhere = os.open(os.devnull, os.O_RDWR)
        for pipe in (_pipe(keeper.stdin), _pipe(keeper.stdout)):
            os.dup2(nowhere, pipe.fileno(), inheritable=False)
            pipe.close()
        os.close(nowhere)
        # It is not this process's child, so it must not wait for it.
        keeper.returncode = 0


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None
    return pipe
