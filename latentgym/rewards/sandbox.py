"""Comparing two expressions in a process that may be killed.

Symbolic equality of hostile text can run for ever or fill the memory, and a time limit by
signal works in no thread but the main one. So it runs in a process of its own (`_worker`), one
for each process that grades.
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
from pathlib import Path
from typing import IO, Literal, cast

from latentgym.rewards._worker import read_frame, write_frame
from latentgym.rewards.grade import GraderError

Verdict = Literal["equal", "different", "bad_gold", "bad_answer", "timeout", "crash"]

_WORKER = Path(__file__).with_name("_worker.py")
_START_SECONDS = 60.0
# How much later than its own limit the keeper may answer before it is given up itself.
_GRACE_SECONDS = 5.0
_REMEMBERED = 4096


class Sandbox:
    """Decides whether two LaTeX expressions are equal; safe to share between threads.

    The worker starts with the first comparison (about a second) and ends with this process; a
    forked copy of this process starts its own. Make one and keep it.

    Args:
        timeout: wall-clock seconds that one comparison may take.
        memory: bytes of address space that the comparing process may take.
    """

    def __init__(self, timeout: float = 0.75, memory: int = 1 << 30) -> None:
        self.timeout = timeout
        self.memory = memory
        self._lock = threading.Lock()
        self._keeper: subprocess.Popen[bytes] | None = None
        # The samples of a group often give the same answer. Timeouts are not remembered, as
        # they may be the machine's fault.
        self._known: dict[tuple[str, str], Verdict] = {}
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forget)
        atexit.register(self.close)

    def start(self) -> None:
        """Start the worker, if it does not run, and wait until it is ready.

        Raises:
            GraderError: it cannot start, for example because math-verify is missing.
        """
        with self._lock:
            self._running()

    def compare(self, gold: str, answer: str) -> Verdict:
        """Compare two expressions.

        Args:
            gold: the right one.
            answer: the one to judge.

        Returns:
            "equal" or "different"; "bad_gold" or "bad_answer" if that one cannot be parsed;
            "timeout"; or "crash" if comparing took more memory or stack than there is.

        Raises:
            GraderError: the worker cannot start, or was ended from outside again and again.
        """
        with self._lock:
            known = self._known.get((gold, answer))
            if known is not None:
                return known
            # The keeper never touches an answer, so its death is not the answer's fault.
            for _ in range(3):
                with suppress(EOFError, OSError):
                    return self._ask(gold, answer)
                self._stop()
            raise GraderError("the process that compares mathematics was killed three times")

    def close(self) -> None:
        """End the worker. A later comparison starts a new one."""
        with self._lock:
            self._stop()

    def _ask(self, gold: str, answer: str) -> Verdict:
        keeper = self._running()
        write_frame(_pipe(keeper.stdin), [gold, answer])
        message = self._receive(keeper, self.timeout + _GRACE_SECONDS)
        if message is None:
            self._stop()
            return "timeout"
        verdict = cast(Verdict, message)
        if verdict != "timeout":
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[gold, answer] = verdict
        return verdict

    def _running(self) -> subprocess.Popen[bytes]:
        """The keeper, started if need be."""
        if self._keeper is not None:
            return self._keeper
        if not hasattr(os, "fork"):
            raise GraderError("comparing mathematics needs fork: use Linux, macOS or WSL")
        arguments = (str(self.timeout), str(self.memory), json.dumps(sys.path))
        keeper = subprocess.Popen(
            [sys.executable, "-W", "ignore", str(_WORKER), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            # The order in which the algebra visits terms, and so its time, depends on the hash.
            env={**os.environ, "PYTHONHASHSEED": "0"},
        )
        self._keeper = keeper
        try:
            hello = self._receive(keeper, _START_SECONDS)
        except EOFError:
            hello = None
        if hello != "ready":
            self._stop()
            raise GraderError(
                f"the process that compares mathematics did not start ({hello or 'no answer'}); "
                "install it with: pip install math-verify"
            )
        return keeper

    def _receive(self, keeper: subprocess.Popen[bytes], seconds: float) -> str | None:
        """The keeper's next message, or None if it does not come in time."""
        pipe = _pipe(keeper.stdout)
        # Not select.select, which cannot watch the high descriptors of a process with many files.
        with selectors.DefaultSelector() as selector:
            selector.register(pipe, selectors.EVENT_READ)
            return str(read_frame(pipe)) if selector.select(seconds) else None

    def _stop(self) -> None:
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
