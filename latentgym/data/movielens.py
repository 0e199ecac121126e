"""MovieLens as GroupLens publishes it, in the three layouts that it has had.

`ml-latest-small`, `ml-latest`, `ml-20m`, `ml-25m`, `ml-32m`: ratings.csv and movies.csv;
`ml-1m`, `ml-10M100K`: ratings.dat and movies.dat, with `::` between fields;
`ml-100k`: u.data with tabs and u.item with bars. A folder is read as well as the archive, which is
not unpacked.
"""

from __future__ import annotations

import csv
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from latentgym.data.files import MAX_LINE_BYTES, DataError, Row
from latentgym.data.interactions import (
    BEST_RATING,
    LAST_SECOND,
    Gathering,
    Interactions,
    Item,
    usable_title,
)
from latentgym.progress import progress_bar
from latentgym.text.tokenizers import one_line

_Fields = Iterator[tuple[int, Sequence[str]]]  # line numbers and what stands there
_MB = 1_000_000
_SHOWN = 200  # characters of an error, which may quote a long line
_MOST = 2**53  # of ids: what JSON readers agree on
_BOM = "\ufeff"
_AGAIN = "get the files from https://grouplens.org/datasets/movielens/ again"
_HEADERS = ("userId,movieId,rating,timestamp", "movieId,title,genres")
_GENRES = """
    unknown Action Adventure Animation Children's Comedy Crime Documentary Drama Fantasy Film-Noir
    Horror Musical Mystery Romance Sci-Fi Thriller War Western
""".split()


@dataclass(frozen=True)
class _File:
    """A file of a folder or of an archive."""

    name: str  # within it
    place: str
    size: int
    open: Callable[[], IO[bytes]]


@dataclass(frozen=True)
class _Layout:
    """How an edition is laid out: two files, what stands between their fields, what a film is.

    A comma means CSV with a header, in UTF-8; the older layouts may be in Latin-1.
    """

    ratings: str
    movies: str
    between: tuple[str, str]
    film: Callable[[Sequence[str]], tuple[str, str, str]]


def read_movielens(path: Path, max_words: int = 20) -> Interactions:
    """The ratings of films that have a usable title.

    Args:
        path: a folder or a `.zip` of MovieLens.
        max_words: films with longer titles have no usable one.

    Raises:
        DataError: nothing of the kind is there, or it is damaged.
    """
    with _files(path) as files:
        layout, ratings, movies = _choose(path, files)
        films = _films(movies, layout, max_words)
        return _ratings(ratings, layout, films)


def _ratings(file: _File, layout: _Layout, films: dict[int, Item]) -> Interactions:
    position = {film: place for place, film in enumerate(films)}
    users: dict[int, int] = {}
    found, untitled = Gathering(), 0
    for number, fields in _table(file, layout.between[0], _HEADERS[0]):
        try:
            user, film, rating, time = _rating(fields)
        except ValueError as error:
            raise Row(file.place, number, {}).fault(_why("rating", error)) from error
        place = position.get(film)
        if place is None:
            untitled += 1
            continue
        found.user.append(users.setdefault(user, len(users)))
        found.item.append(place)
        found.time.append(time)
        found.rating.append(rating)
    if not found.time:
        what = "raise --max-words" if untitled else _AGAIN
        raise DataError(
            f"{file.place} has {untitled} ratings, but none of a film with a usable title; {what}."
        )
    return found.interactions(list(users), list(films.values()), untitled)


def _rating(fields: Sequence[str]) -> tuple[int, int, float, int]:
    """User, film, rating and time.

    Raises:
        ValueError: the fields are something else.
    """
    user, film, rating, time = fields
    numbers = int(user), int(film), float(rating), int(time)
    if not 0 <= numbers[2] <= BEST_RATING:
        raise ValueError(f"{rating[:20]} is not from 0 to {BEST_RATING}")
    if not 0 <= numbers[3] <= LAST_SECOND:
        raise ValueError(f"{time[:20]} is no time in seconds since 1970")
    if not (0 <= numbers[0] <= _MOST and 0 <= numbers[1] <= _MOST):
        raise ValueError("an id is out of range")
    return numbers


def _films(file: _File, layout: _Layout, max_words: int) -> dict[int, Item]:
    """The films with usable titles."""
    films: dict[int, Item] = {}
    seen: dict[int, int] = {}
    for number, fields in _table(file, layout.between[1], _HEADERS[1]):
        try:
            text, title, genres = layout.film(fields)
            film = int(text)
            if not 0 <= film <= _MOST:
                raise ValueError(f"{text[:20]} is no id")
        except ValueError as error:
            raise Row(file.place, number, {}).fault(_why("film", error)) from error
        if film in seen:
            raise Row(file.place, number, {}).fault(f"the film {film} is that of line {seen[film]}")
        seen[film] = number
        usable = usable_title(title, max_words)
        if usable is not None:
            films[film] = Item(usable, film, {"genres": " ".join(genres.split())})
    return films


def _why(thing: str, error: ValueError) -> str:
    return f"this is no {thing} ({str(error)[:_SHOWN]})"


def _table(file: _File, by: str, header: str) -> _Fields:
    """Line numbers and fields of a file, without blank lines and the header that CSV has."""
    with _readable(file.place), file.open() as lines:
        if by == ",":
            yield from _csv(file, lines, header)
            return
        for number, line in enumerate(_lines(file, lines, latin=True), start=1):
            if line.strip():
                yield number, line.rstrip("\r\n").split(by)


def _csv(file: _File, lines: IO[bytes], header: str) -> _Fields:
    table = csv.reader(_lines(file, lines, latin=False), strict=True)
    begin = 1  # of the row, which a quote that nobody closes draws out
    try:
        first = ",".join(next(table, ()))
        if first != header:
            raise DataError(
                f"{file.place}:1: the first line must be {header}, not {first[:60]!r}; {_AGAIN}."
            )
        begin = table.line_num + 1
        for fields in table:
            if fields:
                yield begin, fields
            begin = table.line_num + 1
    except csv.Error as error:
        raise Row(file.place, begin, {}).fault(f"this is no CSV ({error})") from error


def _lines(file: _File, lines: IO[bytes], latin: bool) -> Iterator[str]:
    """The lines as text, with a progress bar; what is not UTF-8 may be in Latin-1."""
    number = read = done = 0
    with progress_bar(f"read {file.name}, MB", file.size // _MB) as advance:
        # The bound keeps a damaged file, or a small one that unpacks without end, out of memory.
        while line := lines.readline(MAX_LINE_BYTES + 1):
            number += 1
            read += len(line)
            if len(line) > MAX_LINE_BYTES:
                raise DataError(f"{file.place}:{number}: longer than 10 MB; {_AGAIN}.")
            if read // _MB > done:
                advance(read // _MB - done)
                done = read // _MB
            try:
                text = line.decode("utf-8")
            except UnicodeDecodeError as error:
                if not latin:
                    raise Row(file.place, number, {}).fault(f"not UTF-8 ({error})") from error
                text = line.decode("latin-1")
            yield text.removeprefix(_BOM) if number == 1 else text


def _plain_film(fields: Sequence[str]) -> tuple[str, str, str]:
    id, title, genres = fields
    return id, title, genres


def _flagged_film(fields: Sequence[str]) -> tuple[str, str, str]:
    """A film of ml-100k: id, title, two dates, an address, and a flag for each genre."""
    id, title, _, _, _, *flags = fields
    if len(flags) != len(_GENRES):
        raise ValueError(f"{len(fields)} fields, not {5 + len(_GENRES)}")
    return id, title, "|".join(g for g, flag in zip(_GENRES, flags, strict=True) if flag == "1")


_LAYOUTS = (
    _Layout("ratings.csv", "movies.csv", (",", ","), _plain_film),
    _Layout("ratings.dat", "movies.dat", ("::", "::"), _plain_film),
    _Layout("u.data", "u.item", ("\t", "|"), _flagged_film),
)


def _choose(path: Path, files: Sequence[_File]) -> tuple[_Layout, _File, _File]:
    """The layout, the ratings and the films, which must be there once.

    Raises:
        DataError: there are none, or several.
    """
    by_name = {file.name: file for file in files}
    found = []
    for name, ratings in by_name.items():
        for layout in _LAYOUTS:
            folder, _, last = name.rpartition("/")
            if last == layout.ratings:
                films = f"{folder}/{layout.movies}" if folder else layout.movies
                if films not in by_name:
                    raise DataError(f"{path} has {name}, but not {films}; {_AGAIN}.")
                found.append((layout, ratings, by_name[films]))
    if not found:
        names = " or ".join(f"{layout.ratings} and {layout.movies}" for layout in _LAYOUTS)
        raise DataError(f"{path} has no {names}; give the folder or the .zip of MovieLens.")
    if len(found) > 1:
        several = " and ".join(sorted(ratings.name for _, ratings, _ in found))
        raise DataError(f"{path} has {several}; give the folder of one of them.")
    return found[0]


@contextmanager
def _files(path: Path) -> Iterator[list[_File]]:
    """The files of a folder and its folders, or of an archive.

    Raises:
        DataError: it is neither, or the archive is damaged or has a path that leads out of it.
    """
    if path.is_dir():
        names = [name for layout in _LAYOUTS for name in (layout.ratings, layout.movies)]
        found = [file for name in names for file in (path / name, *sorted(path.glob(f"*/{name}")))]
        yield [_of_folder(path, file) for file in found if file.is_file()]
        return
    if not path.exists():
        raise DataError(f"there is no {path}; give the folder or the .zip of MovieLens.")
    if not zipfile.is_zipfile(path):
        raise DataError(
            f"{path} is neither a folder nor a zip archive, or it is damaged; {_AGAIN}."
        )
    with _readable(str(path)):
        archive = zipfile.ZipFile(path)
    with archive:
        for info in archive.infolist():
            if info.filename.startswith(("/", "\\")) or ".." in re.split(r"[/\\]", info.filename):
                raise DataError(
                    f"{path} has a path that leads out of it, {info.filename[:80]!r}; {_AGAIN}."
                )
        yield [_of_archive(path, archive, info) for info in archive.infolist()]


def _of_folder(folder: Path, file: Path) -> _File:
    name = file.relative_to(folder).as_posix()
    return _File(name, str(file), file.stat().st_size, lambda: file.open("rb"))


def _of_archive(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> _File:
    name = one_line(info.filename)  # for terminals: the name is whoever's
    return _File(name, f"{path}[{name}]", info.file_size, lambda: archive.open(info))


@contextmanager
def _readable(place: str) -> Iterator[None]:
    """Within it, what cannot be opened, read or unpacked is a `DataError`."""
    try:
        yield
    # An archive with a password is a RuntimeError, an unknown packing a NotImplementedError.
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile, RuntimeError) as error:
        raise DataError(f"{place}: {error}; {_AGAIN}.") from error
