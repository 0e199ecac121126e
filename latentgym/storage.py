"""Files that are complete or not there, and the folder where things are kept between runs.

What is under way lies in a folder of its own, `.latentgym-...`, beside what it will be. Whoever
writes holds a lock in it, which the system takes back when its process ends, however that ends. So
what a dead process has left is known by its lock, where the number of a process may be another's
by now, or one of another container; the next to write beside it clears it away.
"""

from __future__ import annotations

import errno
import fcntl
import gzip
import io
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any, cast

from latentgym.errors import UsageError, told

_WORKPLACE = ".latentgym-"
_LOCK = "lock"
_LEVEL = 6  # of gzip: more costs twice the time for two percent
AT_ONCE = fcntl.LOCK_EX | fcntl.LOCK_NB
_NO_LOCKS = (errno.ENOTSUP, errno.ENOSYS, errno.ENOLCK, errno.EINVAL)  # of some file systems


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Write a file or a folder to the path that this gives; it becomes `path` if all goes well.

    A folder that stood there is gone for a moment before the new one has its name.

    Args:
        path: what will be there; the folder that it is in must be there already.

    Raises:
        OSError: it cannot be written.
    """
    with _workplace(path.parent) as work:
        # Not its own name, by which others might find it before it is whole.
        partial = work / "".join(["partial", *path.suffixes])
        yield partial
        try:
            os.replace(partial, path)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            path.rename(work / "before")
            os.replace(partial, path)


@contextmanager
def gzipped(path: Path) -> Iterator[IO[bytes]]:
    """A gzipped file to write, whose bytes depend neither on its name nor on the hour."""
    with (
        path.open("wb") as raw,
        gzip.GzipFile("", "wb", _LEVEL, raw, mtime=0) as packer,
        io.BufferedWriter(cast(io.RawIOBase, packer), 1 << 20) as file,
    ):
        yield file


def discard(path: Path) -> None:
    """Delete a file or a folder, which is there whole or not at all meanwhile."""
    with _workplace(path.parent) as work, suppress(FileNotFoundError):
        path.rename(work / "discarded")


def clear(folder: Path) -> None:
    """Clear away what processes that have ended were writing in a folder."""
    for left in folder.glob(f"{_WORKPLACE}*"):
        # What cannot be locked is still being written, or lies where there are no locks.
        with suppress(OSError), (left / _LOCK).open("w") as lock:
            fcntl.flock(lock, AT_ONCE)
            shutil.rmtree(left)


@contextmanager
def _workplace(folder: Path) -> Iterator[Path]:
    clear(folder)
    with ExitStack() as stack:
        while True:
            work = Path(tempfile.mkdtemp(prefix=_WORKPLACE, dir=folder))
            try:
                take_lock(stack.enter_context((work / _LOCK).open("w")), AT_ONCE)
            except (FileNotFoundError, BlockingIOError):
                continue  # another process took it for one that was left, before it was locked
            break
        try:
            yield work
        finally:
            shutil.rmtree(work, ignore_errors=True)


def take_lock(file: IO[Any], how: int) -> bool:
    """Lock a file, until it is closed; whether its file system has locks at all.

    Args:
        file: open.
        how: as `fcntl.flock` takes it.

    Raises:
        BlockingIOError: another process has the lock, and `how` says not to wait.
    """
    try:
        fcntl.flock(file, how)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        return False
    return True


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Within it, no other process holds the lock of that name; waits for those that do.

    Where there are no locks nobody waits: what two make then, the last to finish puts there whole.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        take_lock(file, fcntl.LOCK_EX)  # given back when the file is closed, or its process ends
        yield


def to_json(data: Any, indent: int | None = None) -> str:
    """JSON that every reader takes, and every terminal: in ASCII, without NaN.

    Args:
        data: anything JSON can say; see `finite`.
        indent: spaces of each level; None gives a single line.
    """
    try:
        return json.dumps(data, indent=indent, allow_nan=False)
    except ValueError:
        return json.dumps(finite(data), indent=indent, allow_nan=False)


def finite(data: Any) -> Any:
    """Data whose numbers that are not finite are None: JSON has no form for them."""
    if isinstance(data, Mapping):
        return {key: finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


@contextmanager
def writable(path: Path, instead: str = "choose another --out") -> Iterator[None]:
    """Within it, what cannot be written is told in a sentence.

    Args:
        path: what is written.
        instead: what to do if no room can be made.

    Raises:
        UsageError: the disk is full, or does not let itself be written.
    """
    try:
        yield
    except OSError as error:
        raise UsageError(
            f"cannot write {path} ({error.strerror or error}); make room, or {instead}."
        ) from error


def folder_named(path: str | Path) -> Path:
    """A folder that a user has named in Python, where no shell has expanded its `~`.

    Raises:
        UsageError: no file system can have it.
    """
    if "\0" in str(path):
        raise UsageError(f"{told(str(path))} is no path; give one without NUL characters.")
    return Path(path).expanduser()


def cache_folder() -> Path:
    """Where converted models and indexes are kept.

    `$LATENTGYM_CACHE`, or `latentgym` in the user's cache folder.
    """
    given = os.environ.get("LATENTGYM_CACHE")
    if given:
        return Path(given)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "latentgym"


@contextmanager
def writable_cache() -> Iterator[None]:
    """`writable`, for what goes into the cache folder."""
    with writable(cache_folder(), "let $LATENTGYM_CACHE be another folder"):
        yield
