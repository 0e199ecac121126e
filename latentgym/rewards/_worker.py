"""The process that judges hostile text. Run as a file of its own by `sandbox`.

Two processes: a *keeper*, which has imported what judging needs and never touches an answer,
and its forked *child*, which judges. A child that hangs or dies is replaced by a fork, in
milliseconds. What they run is a *job*, a module with two functions:

    prepare(setting: str) -> None       in the keeper: load what this setting needs; first for ""
    run(setting: str, *request: str)    in the child: judge; the result is a JSON value

This file is itself the job that compares mathematics, with no settings. It imports nothing of
the library, so that starting it costs the algebra alone.
"""

from __future__ import annotations

import json
import logging
import os
import select
import signal
import socket
import sys
from contextlib import suppress
from importlib import import_module
from typing import Any, Protocol

HEADER = 4
# Old children hold the algebra system's growing caches.
CALLS_PER_CHILD = 500
# Exercised before the first fork, so that every child is born with warm caches and modules.
_WARM_UP = (
    (r"\frac{1}{2}", "0.5"),
    (r"x^2 + 2x + 1", "(x+1)^2"),
    (r"\sqrt{8}", r"2\sqrt{2}"),
    (r"(1, 2] \cup \{3\}", r"\{3\} \cup (1,2]"),
    (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix} 1 \\ \frac{4}{2} \end{pmatrix}"),
    (r"y = 2x", "2x - y = 0"),
    (r"e^{i\pi/3}", r"\frac{1 + i\sqrt{3}}{2}"),
    (r"3 \pi", r"\cos(x) \log 2"),
)


# What a child may do beyond arithmetic: import and read files. All else that Python audits
# (processes, sockets, writing, removing, foreign functions) is refused.
_ALLOWED = frozenset(
    """
    import compile exec open marshal.loads marshal.load os.listdir os.scandir builtins.id
    code.__new__ function.__new__ object.__getattr__ object.__setattr__ object.__delattr__
    sys._getframe sys._getframemodulename sys.excepthook sys.unraisablehook
    """.split()
)
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


def compare(gold: str, answer: str) -> str:
    """Whether two expressions are "equal" or "different", or "bad_gold" or "bad_answer"."""
    math_verify: Any = import_module("math_verify")
    config = [math_verify.LatexExtractionConfig()]
    # Its own time limits use signals, and would interfere with the alarm of `_serve`.
    parsed = [
        math_verify.parse(f"${text}$", config, fallback_mode="no_fallback", parsing_timeout=None)
        for text in (gold, answer)
    ]
    if not all(parsed):
        return "bad_answer" if parsed[0] else "bad_gold"
    return "equal" if math_verify.verify(*parsed, timeout_seconds=None) else "different"


def prepare(setting: str) -> None:
    """The job that compares mathematics: load and exercise the algebra."""
    for gold, answer in _WARM_UP:
        compare(gold, answer)


def run(setting: str, *request: str) -> str:
    """The job that compares mathematics: see `compare`."""
    return compare(*request)


def _limit(memory: int) -> None:
    """Bound what a child may take; a platform may lack some of these limits."""
    import resource

    bounds = {"RLIMIT_AS": memory, "RLIMIT_FSIZE": 0, "RLIMIT_CORE": 0, "RLIMIT_NPROC": 0}
    for kind, bound in bounds.items():
        with suppress(AttributeError, ValueError, OSError):
            resource.setrlimit(getattr(resource, kind), (bound, bound))


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    """An audit hook, which no code can take off again: nothing a child runs has an effect."""
    writes = event == "open" and int(arguments[2] or 0) & _WRITES
    if event not in _ALLOWED or writes:
        raise PermissionError(f"a judged text may not do this: {event}")


def _serve(job: Job, connection: socket.socket, timeout: float, memory: int) -> None:
    """The child: answer requests until the connection closes."""
    # Holding the keeper's pipes would hide the library's end from it; closing them would let
    # the next opened file take their places, and with them what is printed.
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1):
        os.dup2(nowhere, descriptor)
    os.close(nowhere)
    _limit(memory)
    stream = connection.makefile("rwb")
    sys.addaudithook(_refuse)
    with suppress(EOFError, ConnectionError):
        while True:
            setting, *request = read_frame(stream)
            # By default this signal kills: no child outlives a dead keeper for long.
            signal.setitimer(signal.ITIMER_REAL, timeout + 1.0)
            try:
                verdict = job.run(setting, *request)
            except (MemoryError, RecursionError):
                verdict = "crash"
            signal.setitimer(signal.ITIMER_REAL, 0)
            write_frame(stream, verdict)


class Child:
    """A forked judge and the keeper's connection to it.

    Args:
        job: what it runs.
        timeout: seconds that one request may take.
        memory: bytes of address space it may take.
    """

    def __init__(self, job: Job, timeout: float, memory: int) -> None:
        mine, theirs = socket.socketpair()
        self.calls = 0
        self.pid = os.fork()
        if self.pid == 0:
            mine.close()
            try:
                _serve(job, theirs, timeout, memory)
            finally:
                os._exit(0)
        theirs.close()
        self.connection = mine
        self.stream = mine.makefile("rwb")

    def ask(self, request: Any, timeout: float) -> Any:
        """The job's result, "timeout", or "crash"; after these two the child is of no more use."""
        self.calls += 1
        try:
            write_frame(self.stream, request)
            ready, _, _ = select.select([self.connection], [], [], timeout)
            return read_frame(self.stream) if ready else "timeout"
        except (EOFError, ConnectionError):
            return "crash"

    def alive(self) -> bool:
        """Whether it still runs; if not, it is cleared away."""
        if os.waitpid(self.pid, os.WNOHANG) == (0, 0):
            return True
        self._close()
        return False

    def kill(self) -> None:
        """End it, whatever it does."""
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        self._close()

    def _close(self) -> None:
        # What a dead child did not read is still in the buffer, and cannot be flushed.
        with suppress(OSError):
            self.stream.close()
        self.connection.close()


def main(timeout: float, memory: int, module: str) -> None:
    """The keeper: relay requests from standard input to a child until the input closes.

    A request is `["prepare", setting]`, answered "ready" or with what went wrong, or
    `["run", setting, ...]`, answered with the job's result, "timeout" or "crash".
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
    child = Child(job, timeout, memory)
    write_frame(verdicts, "ready")
    with suppress(EOFError, BrokenPipeError):
        while True:
            kind, *request = read_frame(requests)
            if kind == "prepare":
                write_frame(verdicts, _prepare(job, request[0]))
                spent = True  # the running child was born without it
            else:
                # A child that was killed while idle is not this answer's fault.
                child = child if child.alive() else Child(job, timeout, memory)
                verdict = child.ask(request, timeout)
                write_frame(verdicts, verdict)
                spent = verdict in ("timeout", "crash") or child.calls >= CALLS_PER_CHILD
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


if __name__ == "__main__":
    sys.path[:] = json.loads(sys.argv[3])
    main(float(sys.argv[1]), int(sys.argv[2]), sys.argv[4])
