"""One process at a time in the folder of a run; whoever comes second is told who is there."""

from __future__ import annotations

import json
import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import IO

from latentgym.errors import Notice, UsageError
from latentgym.storage import AT_ONCE, take_lock

LOCK = ".lock"


@contextmanager
def in_use(folder: Path | None) -> Iterator[None]:
    """Within it, the folder is this process's alone.

    The operating system gives the lock back when its process ends, however it ends, so the lock of
    a dead process is none; the file that it leaves says only who had it. Where a file system has no
    locks, as some networks' have not, a warning says so.

    Args:
        folder: of a run; made if it is not there. None locks nothing.

    Raises:
        UsageError: another process has it, or the folder cannot be written.
    """
    if folder is None:
        yield
        return
    try:
        new = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        file = _locked(folder / LOCK)
    except OSError as error:
        raise UsageError(
            f"cannot write to {folder} ({error.strerror or error}); choose another --out."
        ) from error
    with file:
        about = {"pid": os.getpid(), "host": socket.gethostname(), "since": _now()}
        with suppress(OSError):  # a full disk: the lock is held all the same
            file.truncate(0)
            file.write(json.dumps(about).encode("ascii"))
        try:
            yield
        finally:
            (folder / LOCK).unlink(missing_ok=True)  # while it is held: nobody else's goes
            if new and not any(folder.iterdir()):
                folder.rmdir()  # what was refused leaves nothing


def _locked(path: Path) -> IO[bytes]:
    while True:
        file = path.open("ab+", buffering=0)
        try:
            if not take_lock(file, AT_ONCE):
                warnings.warn(
                    f"the file system of {path.parent} has no locks, so another process that works "
                    "there is not noticed; see that there is none.",
                    Notice,
                    stacklevel=4,
                )
        except BlockingIOError as error:
            with file:
                raise UsageError(
                    f"{path.parent} is in use by {_holder(file)}; wait for it, or choose another "
                    "--out."
                ) from error
        except OSError:
            file.close()
            raise
        if path.exists() and os.path.samestat(path.stat(), os.fstat(file.fileno())):
            return file
        file.close()  # its holder was just leaving, and took the name with it


def _holder(file: IO[bytes]) -> str:
    file.seek(0)
    try:
        about = json.loads(file.read(1000))
        return f"process {int(about['pid'])} on {about['host']!r} since {about['since']!r}"
    except (ValueError, LookupError, TypeError):
        return "another process"


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def fresh_folder(out: Path, marker: str, resume: bool) -> None:
    """Refuse to overwrite what an earlier run left.

    Raises:
        UsageError: `out` holds `marker` and the run is not resumed.
    """
    if not resume and (out / marker).exists():
        raise UsageError(
            f"{out} holds an earlier run; choose another --out, delete it, or go on with --resume."
        )
