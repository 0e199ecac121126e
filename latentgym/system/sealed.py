"""What is written is what is read: JSON with a seal, and hashes of the files beside it.

A seal is the SHA-256 of all else in a JSON object, as its last key. It finds a damaged disk, half a
copy or a slip in an editor. It is no signature: whoever means to deceive can seal anew.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from hashlib import sha256
from math import isfinite
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from latentgym.errors import Notice
from latentgym.storage import cache_folder

SEAL = "sha256"
_MOST_BYTES = 64 * 2**20
_MOST_DEPTH = 64
_NESTING = {dict, list}
_MOST_NUMBER = 10**300


class UnverifiedWarning(Notice):
    """What was read has no seal, so nothing says whether it is what was written."""


def sealed(data: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """JSON data with its seal.

    Args:
        data: keys are texts.
        before: what comes before it, such as the seal of the line above; it is sealed with it.
    """
    return {**data, SEAL: _seal(data, before)}


def opened(data: dict[str, Any], before: str = "") -> bool:
    """Take the seal off: whether there was one.

    Args:
        data: what `sealed` gave, after it was written and read.
        before: as it was given there.

    Raises:
        ValueError: it is not the data's.
    """
    if SEAL not in data:
        return False
    if data.pop(SEAL) != _seal(data, before):
        raise ValueError("it is not what was written: its SHA-256 differs")
    return True


def _seal(data: Mapping[str, Any], before: str) -> str:
    # Through JSON once before, or keys that are numbers would be sorted as numbers.
    plain = json.loads(json.dumps(data))
    return sha256(f"{before}{json.dumps(plain, sort_keys=True)}".encode("ascii")).hexdigest()


def parsed(text: bytes) -> Any:
    """What JSON says, which may be anyone's.

    Raises:
        ValueError: it is damaged, or nested without end.
    """
    try:
        value = json.loads(text)
        _bounded(value, _MOST_DEPTH)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    return value


def _bounded(value: Any, left: int) -> None:
    if left < 0:
        raise RecursionError
    if type(value) not in _NESTING:
        return
    inner = value.values() if type(value) is dict else value
    if _NESTING.isdisjoint(map(type, inner)):
        return  # most are long lists of numbers
    for each in inner:
        if type(each) in _NESTING:
            _bounded(each, left - 1)


def read_sealed(path: Path) -> tuple[dict[str, Any], bool]:
    """A sealed object of a file: what it says, and whether there was a seal.

    Raises:
        ValueError: it is damaged, no object, or larger than anything that is written here.
        OSError: it cannot be read.
    """
    if path.exists() and not path.is_file():
        raise ValueError("it is no file")  # a pipe would be waited for
    with path.open("rb") as file:
        text = file.read(_MOST_BYTES + 1)
    if len(text) > _MOST_BYTES:
        raise ValueError(f"it is larger than {_MOST_BYTES >> 20} MiB")
    data = parsed(text)
    if not isinstance(data, dict):
        raise ValueError("it is no JSON object")
    return data, opened(data)


def is_of(value: Any, kind: Any) -> bool:
    """Whether JSON data is of a type, such as `dict[str, float] | None`; numbers are finite."""
    return _check_of(kind)(value)


@cache
def _check_of(kind: Any) -> Callable[[Any], bool]:
    """`is_of` for one type, which is taken apart once: records have millions of numbers."""
    if kind is Any:
        return lambda value: True
    if kind is float:
        return _finite
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Literal:
        return lambda value: any(value == each and type(value) is type(each) for each in inner)
    if origin in (Union, UnionType):
        checks = [_check_of(each) for each in inner]
        return lambda value: any(check(value) for check in checks)
    if origin is list:
        of_item = _check_of(inner[0])
        return lambda value: isinstance(value, list) and all(map(of_item, value))
    if origin is dict:
        of_value = _check_of(inner[1])
        return lambda value: isinstance(value, dict) and all(map(of_value, value.values()))
    return lambda value: type(value) is kind


def _finite(value: Any) -> bool:
    if isinstance(value, float):
        return isfinite(value)
    # Beyond, no float holds it.
    return type(value) is int and abs(value) < _MOST_NUMBER


def note_unverified(what: str) -> None:
    """Say that something has no seal."""
    warnings.warn(
        f"{what} was written before there were hashes, so it is not verified.",
        UnverifiedWarning,
        stacklevel=3,
    )


def digest(path: Path) -> str:
    """The SHA-256 of a file."""
    found = sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            found.update(block)
    return found.hexdigest()


def digests(folder: Path) -> dict[str, str]:
    """The SHA-256 of every file in a folder, by its path within."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): digest(path) for path in files}


def damaged(folder: Path, files: Mapping[str, str]) -> str | None:
    """The first file of a folder that is not what was written; None if all are.

    What was right is not read again until a size or time differs: there may be gigabytes of it.

    Args:
        folder: of which `digests` was taken.
        files: what it gave.
    """
    try:
        states = [[name, files[name], _state(folder / name)] for name in sorted(files)]
    except OSError as error:
        return str(Path(error.filename).relative_to(folder))
    what = json.dumps([str(folder.resolve()), states])
    seen = cache_folder() / "verified" / sha256(what.encode("ascii")).hexdigest()[:32]
    if seen.is_file():
        return None
    for name, written in files.items():
        if digest(folder / name) != written:
            return name
    with suppress(OSError):  # without a cache it is read again
        seen.parent.mkdir(parents=True, exist_ok=True)
        seen.touch()
    return None


def _state(path: Path) -> list[int]:
    state = path.stat()
    return [state.st_size, state.st_mtime_ns, state.st_ino]
