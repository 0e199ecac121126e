"""Reading a corpus, so that every fault is reported with its file and line."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from latentgym.data.files import DataError, Row, read_rows
from latentgym.data.passage import Passage


def read_corpus(path: Path) -> Iterator[Passage]:
    """The passages of a `.jsonl` or `.json` file, plain or gzipped.

    Each row has an id (`id` or `_id`, a text or a whole number), and either `contents` (a title in
    quotes on its first line, then the text; or the text alone), as pyserini and FlashRAG have
    it, or `text` and perhaps `title`, as BEIR has it.

    Raises:
        DataError: a damaged row, an id that is there twice, or no rows; it says where.
    """
    if not path.is_file():
        raise DataError(f"there is no corpus {path}; give a .jsonl, .jsonl.gz or .json file.")
    seen: dict[str, int] = {}
    for row in read_rows(path):
        passage = _passage(row)
        if passage.id in seen:
            raise row.fault(f"the id {passage.id!r} is that of row {seen[passage.id]} too")
        seen[passage.id] = row.number
        yield passage
    if not seen:
        raise DataError(f"{path} has no passages; give a corpus with at least one.")


def _passage(row: Row) -> Passage:
    fields = row.fields
    name = "_id" if "_id" in fields and "id" not in fields else "id"
    id = fields.get(name)
    if isinstance(id, bool) or not isinstance(id, str | int) or not str(id).strip():
        raise row.fault(f"the field {name!r} must be a text or a whole number")
    whole = "contents" in fields
    body = _text(row, "contents" if whole else "text")
    title = "" if whole or "title" not in fields else _text(row, "title", blank=True)
    if whole:
        title, body = titled(body)
    if not body.strip():
        raise row.fault("the passage has no text after its title")
    return Passage(_valid(str(id)), " ".join(_valid(title).split()), _valid(body))


def _text(row: Row, name: str, blank: bool = False) -> str:
    value = row.fields.get(name)
    if not isinstance(value, str) or not (blank or value.strip()):
        have = ", ".join(sorted(row.fields)[:12]) or "none"
        raise row.fault(f"the field {name!r} must be a text that is not blank (there are {have})")
    return value


def titled(contents: str) -> tuple[str, str]:
    """Title and text of contents; the title stands in quotes on the first line, if there is one."""
    first, line_break, rest = contents.partition("\n")
    first = first.strip()
    if line_break and len(first) > 1 and first[0] == first[-1] == '"':
        return first[1:-1], rest
    return "", contents


def contents(passage: Passage) -> str:
    """Title and text as one, the inverse of `titled`."""
    # An empty title line keeps a text apart that begins like one.
    bare = not passage.title and titled(passage.text) == ("", passage.text)
    return passage.text if bare else f'"{passage.title}"\n{passage.text}'


def _valid(text: str) -> str:
    """Text that every index can hold: no half of a surrogate pair, and no NUL."""
    return text.encode("utf-8", "replace").decode("utf-8").replace("\0", " ")


class Fingerprint:
    """Of a corpus: 16 hex digits of the SHA-256 of its passages in order."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def add(self, passage: Passage) -> None:
        """Take in the next passage."""
        line = json.dumps([passage.id, passage.title, passage.text])
        self._digest.update(line.encode("ascii"))

    def __str__(self) -> str:
        return self._digest.hexdigest()[:16]


def fingerprint(passages: Iterable[Passage]) -> str:
    """That of a whole corpus."""
    found = Fingerprint()
    for passage in passages:
        found.add(passage)
    return str(found)
