"""Reading rows from JSON files, so that every fault is reported with its file and line."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple, NoReturn, cast

from latentgym.errors import LatentGymError

MAX_LINE_BYTES = 10 * 2**20
MAX_JSON_BYTES = 512 * 2**20
SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".json.gz")


class DataError(LatentGymError, ValueError):
    """Data that cannot be found or read; the message says where, and what to do."""


class Row(NamedTuple):
    """One raw record and where it was read: a file, or a data set of the hub, and a number."""

    place: str
    number: int
    fields: Mapping[str, Any]

    def fault(self, what: str) -> DataError:
        """The error for this row."""
        return DataError(f"{self.place}:{self.number}: {what}; mend or delete the row.")


def find(folder: Path, stem: str) -> Path | None:
    """The file of a stem ("train", "sub/train") in a folder, with any suffix we read."""
    candidates = (folder / f"{stem}{suffix}" for suffix in SUFFIXES)
    return next((path for path in candidates if path.is_file()), None)


def read_rows(path: Path) -> Iterator[Row]:
    """The rows of a `.jsonl` or `.json` file, plain or gzipped.

    Args:
        path: the file; JSON Lines, or one JSON array of objects.

    Yields:
        The rows in order; their numbers are line numbers, in an array positions from 1.

    Raises:
        DataError: the file is missing, unreadable or damaged.
    """
    opener = gzip.open if path.name.endswith(".gz") else open
    reader = _array if path.name.removesuffix(".gz").endswith(".json") else json_lines
    with readable(path), opener(path, "rb") as file:
        yield from reader(str(path), cast(IO[bytes], file))


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Within it, a file that cannot be opened, read or unpacked is a `DataError`."""
    try:
        yield
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: {error}; get the file again.") from error


def check_fields(row: Row, required: Mapping[str, type | tuple[type, ...]]) -> None:
    """Raise a `DataError` unless the row has these fields, of these types, and none is blank."""
    for name, kind in required.items():
        if name not in row.fields:
            have = ", ".join(sorted(row.fields)[:12])
            raise row.fault(f"the field {name!r} is missing (there are {have or 'none'})")
        value = row.fields[name]
        if not isinstance(value, kind) or isinstance(value, bool):
            raise row.fault(f"the field {name!r} is of the wrong type, {type(value).__name__}")
        if isinstance(value, str) and not value.strip():
            raise row.fault(f"the field {name!r} is blank")


def json_lines(place: str, file: IO[bytes]) -> Iterator[Row]:
    """The rows of an open file of JSON Lines, one line in memory at a time.

    Raises:
        DataError: a damaged or endless line.
    """
    number = 0
    # The bound keeps a damaged file, or a small one that unpacks without end, out of memory.
    while line := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(line) > MAX_LINE_BYTES:
            raise DataError(f"{place}:{number}: longer than 10 MB; this is not JSON Lines.")
        if line.strip():
            yield _row(place, number, _decode(line, place, number))


def _array(place: str, file: IO[bytes]) -> Iterator[Row]:
    text = file.read(MAX_JSON_BYTES + 1)
    if len(text) > MAX_JSON_BYTES:
        raise DataError(f"{place}: longer than 512 MB; convert it to JSON Lines.")
    items = _decode(text, place, 1)
    if not isinstance(items, Sequence) or isinstance(items, str):
        raise DataError(f"{place}:1: not an array of objects; convert it to JSON Lines.")
    for number, item in enumerate(items, start=1):
        yield _row(place, number, item)


def _decode(text: bytes, place: str, number: int) -> Any:
    try:
        # As `json.loads` does it, without a new decoder for each line.
        return _DECODER.decode(text.decode(json.detect_encoding(text), "surrogatepass"))
    except (ValueError, RecursionError) as error:
        raise Row(place, number, {}).fault(f"not valid JSON ({error})") from error


def _row(place: str, number: int, item: Any) -> Row:
    if not isinstance(item, dict):
        raise Row(place, number, {}).fault(f"a JSON object is expected, not {type(item).__name__}")
    return Row(place, number, item)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a number")


_DECODER = json.JSONDecoder(parse_constant=_refuse)
