"""The process that works on hostile input; `process` starts it.

Two processes: a *keeper*, which has imported what the work needs and never touches a request,
and its forked *child*, which does. A child that hangs or dies is replaced by a fork, in
milliseconds. What they run is a *job*, a module with two functions:

    prepare(setting: str) -> None       in the keeper: load what this setting needs; first for ""
    run(setting: str, *request: str)    in the child: the work; the result is a JSON value

The limit is of the processor's time, so that a verdict does not depend on what else the machine is
busy with: the child's timer kills it there. Code in the child could stop that timer. So the keeper
has a clock that the child cannot touch, and behind it the library one that ends a keeper that is
late; as time on the clock tells little on a busy machine, both wait `PATIENCE` times the limit.

Each request bears a number drawn at random, and its reply the same one, so that a reply that comes
late, or that hostile input has forged, answers no other request.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import select
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from typing import Any, Protocol

from latentgym.system.bounded._confine import call_filter, confine

HEADER = 4
# Old children hold the algebra system's growing caches.
CALLS_PER_CHILD = 500
# How often a request is made whose child something else has killed.
TRIES = 3
ENDED = ("timeout", "crash", "killed")
# How many times its limit a request may take by the clock: a busy machine gives a share of a core.
PATIENCE = 10
# Signals that the system or a person sends; hostile input ends its process in other ways.
_OUTSIDE = (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT)
_TIMERS = (signal.SIGPROF, signal.SIGALRM)
# What a child may do beyond arithmetic: import and read files. All else that Python audits
# (processes, sockets, writing, removing, foreign functions) is refused.
_ALLOWED = frozenset(
    """
    import compile exec open marshal.loads marshal.load os.listdir os.scandir builtins.id
    array.__new__ code.__new__ function.__new__
    object.__getattr__ object.__setattr__ object.__delattr__
    sys._getframe sys._getframemodulename sys.excepthook sys.unraisablehook
    """.split()
)
# Set by a refusal: libraries may catch the error and go on as if nothing had been asked.
_refused = False
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Job(Protocol):
    """What the worker runs; a module is one."""

    def prepare(self, setting: str, /) -> None: ...
    def run(self, setting: str, /, *request: str) -> Any: ...


class ByteStream(Protocol):
    """What frames travel on: a buffered pipe or socket file."""

    def read(self, size: int, /) -> bytes: ...
    def write(self, data: bytes, /) -> int: ...
    def flush(self) -> None: ...


def new_number() -> int:
    """A number for a request that nothing can guess."""
    return secrets.randbits(62)


def read_frame(stream: ByteStream) -> Any:
    """One length-prefixed JSON value; raises EOFError at the end of the stream."""
    header = stream.read(HEADER)
    body = stream.read(int.from_bytes(header, "big")) if len(header) == HEADER else b""
    if not body:
        raise EOFError
    return json.loads(body)


def write_frame(stream: ByteStream, value: Any) -> None:
    """Write one length-prefixed JSON value."""
    body = json.dumps(value).encode("ascii")
    stream.write(len(body).to_bytes(HEADER, "big") + body)
    stream.flush()


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    """An audit hook, which no code can take off again: nothing a child runs has an effect."""
    global _refused
    writes = event == "open" and int(arguments[2] or 0) & _WRITES
    if event not in _ALLOWED or writes:
        _refused = True
        raise PermissionError(f"this may not be done here: {event}")


def _serve(job: Job, connection: socket.socket, timeout: float, memory: int, keeper: int) -> None:
    """The child: answer requests until the connection closes."""
    global _refused
    # Holding the keeper's pipes would hide the library's end from it; closing them would let
    # the next opened file take their places, and with them what is printed.
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1):
        os.dup2(nowhere, descriptor)
    os.close(nowhere)
    confine(memory, int(CALLS_PER_CHILD * (timeout + 1.0)), keeper)
    stream = connection.makefile("rwb")
    sys.addaudithook(_refuse)
    with suppress(EOFError, ConnectionError):
        while True:
            number, setting, *request = read_frame(stream)
            _refused = False
            # By default these kill. A program passes on what it ignores and blocks, a request too.
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _TIMERS)
            for by in _TIMERS:
                signal.signal(by, signal.SIG_DFL)
            signal.setitimer(signal.ITIMER_PROF, timeout)
            # No child outlives a dead keeper for long.
            signal.setitimer(signal.ITIMER_REAL, PATIENCE * timeout + 1.0)
            try:
                verdict = job.run(setting, *request)
            except (MemoryError, RecursionError):
                verdict = "crash"
            for timer in (signal.ITIMER_PROF, signal.ITIMER_REAL):
                signal.setitimer(timer, 0)
            write_frame(stream, [number, "refused" if _refused else verdict])


class Child:
    """A forked worker and the keeper's connection to it.

    Args:
        job: what it runs.
        timeout: seconds of the processor that one request may take.
        memory: bytes of address space it may take.
    """

    def __init__(self, job: Job, timeout: float, memory: int) -> None:
        mine, theirs = socket.socketpair()
        self.calls, keeper = 0, os.getpid()
        self.ended = False
        self.pid = os.fork()
        if self.pid == 0:
            mine.close()
            try:
                _serve(job, theirs, timeout, memory, keeper)
            finally:
                os._exit(0)
        theirs.close()
        self.connection = mine
        self.stream = mine.makefile("rwb")

    def ask(self, request: Sequence[Any], timeout: float) -> Any:
        """The job's result on a request, or what became of the child, which is of no more use then.

        Returns:
            The result; "timeout"; "crash" if the request ended the child or made it reply out of
            turn; or "killed" if something else ended it.
        """
        self.calls += 1
        number = new_number()
        try:
            write_frame(self.stream, [number, *request])
            ready, _, _ = select.select([self.connection], [], [], PATIENCE * timeout)
            if not ready:
                return "timeout"
            replied, verdict = read_frame(self.stream)
            return verdict if replied == number else "crash"
        except (EOFError, ConnectionError):
            _, status = os.waitpid(self.pid, 0)
            self.ended = True
            by = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
            return "timeout" if by in _TIMERS else "killed" if by in _OUTSIDE else "crash"
        except (TypeError, ValueError):
            return "crash"  # no frame

    def alive(self) -> bool:
        """Whether it still runs; if not, it is cleared away."""
        if not self.ended and os.waitpid(self.pid, os.WNOHANG) == (0, 0):
            return True
        self.ended = True
        self._close()
        return False

    def kill(self) -> None:
        """End it, whatever it does."""
        if not self.ended:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self.ended = True
        self._close()

    def _close(self) -> None:
        # What a dead child did not read is still in the buffer, and cannot be flushed.
        with suppress(OSError):
            self.stream.close()
        self.connection.close()


def main(timeout: float, memory: int, module: str) -> None:
    """The keeper: relay requests from standard input to a child until the input closes.

    A request is `["prepare", setting]`, answered "ready" or with what went wrong, or
    `["run", number, setting, ...]`, answered with `[number, result]`: see `Child.ask`.
    """
    requests, verdicts = sys.stdin.buffer, sys.stdout.buffer
    logging.disable(logging.CRITICAL)
    # A terminal's Ctrl-C is for the program that uses the library, which closes the input.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # What a library prints while it loads must not stand between the frames.
    sys.stdout = sys.stderr
    try:
        job: Any = import_module(module)
        job.prepare("")
    except ImportError as error:
        write_frame(verdicts, f"import: {error}")
        return
    call_filter()  # once, for all children
    child = Child(job, timeout, memory)
    write_frame(verdicts, "ready")
    with suppress(EOFError, BrokenPipeError):
        while True:
            kind, *request = read_frame(requests)
            if kind == "prepare":
                write_frame(verdicts, _prepare(job, request[0]))
                spent = True  # the running child was born without it
            else:
                number, *asked = request
                verdict = "killed"
                for attempt in range(TRIES):
                    # A child that was killed, idle or not, is not the request's fault; one that
                    # died otherwise may have died while it was idle, so there is a second try.
                    child = child if child.alive() else Child(job, timeout, memory)
                    verdict = child.ask(asked, timeout)
                    if verdict != "killed" and not (
                        verdict == "crash" and child.ended and not attempt
                    ):
                        break
                write_frame(verdicts, [number, verdict])
                spent = verdict in ENDED or child.calls >= CALLS_PER_CHILD
            if spent:
                child.kill()
                child = Child(job, timeout, memory)
    child.kill()


def _prepare(job: Job, setting: str) -> str:
    try:
        job.prepare(setting)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "ready"
