"""What a data set is, and its questions once it is loaded."""

from __future__ import annotations

import hashlib
import json
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, overload

from latentgym.data.files import Row
from latentgym.data.hub import HubSpec
from latentgym.data.question import Question

SAMPLE_LICENCE = "Apache-2.0, made for latentgym"


@dataclass(frozen=True)
class DatasetSpec:
    """What a data set is and where it may be found.

    Args:
        name: its name, as in the environment id.
        folder: the folder under `$LATENTGYM_DATA`.
        files: for each split the files in that folder that make it up, read one after the
            other; paths without suffix, as any of `.jsonl`, `.jsonl.gz`, `.json` and `.json.gz`
            will do.
        read: makes a question of a row's fields; a ValueError or LookupError marks a bad row.
        fields: the fields that every row must have, with their types.
        licence: of the data.
        url: the home of the data.
        alias: names of splits that stand for others: where the answers of the test set are secret,
            `test` is the dev set.
        hub: where the hub has it, if it does.
        sample: file name of the sample in this package, or a function that makes its rows from the
            name of a split; None where the environment generates questions.
        stand_ins: for some splits the files to read if the folder lacks the true ones, as paths
            under `$LATENTGYM_DATA` without suffix; the source of the data then names them.
    """

    name: str
    folder: str
    files: Mapping[str, tuple[str, ...]]
    read: Callable[[Mapping[str, Any]], Question]
    fields: Mapping[str, type | tuple[type, ...]]
    licence: str
    url: str
    alias: Mapping[str, str] = field(default_factory=dict)
    hub: HubSpec | None = None
    sample: str | Callable[[str], Iterable[Row]] | None = None
    stand_ins: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def splits(self) -> tuple[str, ...]:
        """The names of the splits that there can be."""
        return tuple(dict.fromkeys([*self.files, *(self.hub.splits if self.hub else ())]))


def licence_of(spec: DatasetSpec, source: str) -> str:
    """The licence of data: that of the data set, where it comes from a place of the data set's."""
    kind, _, where = source.partition(":")
    known = {"path": "your own", "sample": SAMPLE_LICENCE, "generated": "generated"}
    if kind == "hub" and where.partition("@")[0] != (spec.hub.repo if spec.hub else None):
        return f"see {where}"
    return known.get(kind, spec.licence)


class Dataset(Sequence[Question]):
    """The questions of one split. A question is made of its row when it is asked for.

    Args:
        spec: what the data set is.
        split: which part of it this is.
        source: where it was found: "path:...", "data:...", "hub:..." or "sample".
        rows: the raw rows.
    """

    def __init__(self, spec: DatasetSpec, split: str, source: str, rows: Sequence[Row]) -> None:
        self.spec = spec
        self.split = split
        self.source = source
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Question: ...
    @overload
    def __getitem__(self, index: slice) -> Dataset: ...
    def __getitem__(self, index: int | slice) -> Question | Dataset:
        """The question at a position; for a slice, a Dataset.

        Raises:
            DataError: the row has its fields, but no question can be made of them.
        """
        if isinstance(index, slice):
            return Dataset(self.spec, self.split, self.source, self._rows[index])
        row = self._rows[operator.index(index)]
        try:
            question = self.spec.read(row.fields)
        except (LookupError, TypeError, ValueError) as error:
            raise row.fault(f"this makes no question of {self.spec.name} ({error})") from error
        return replace(question, place=f"{row.place}:{row.number}")

    def row(self, index: int) -> Row:
        """The raw row of a question."""
        return self._rows[index]

    @property
    def licence(self) -> str:
        """Of the data."""
        return licence_of(self.spec, self.source)

    def __repr__(self) -> str:
        return f"<{self.spec.name} {self.split}: {len(self)} questions from {self.source}>"

    @cached_property
    def hash(self) -> str:
        """16 hex digits of the SHA-256 of all questions and gold answers, in order."""
        digest = hashlib.sha256()
        for question in self:
            digest.update(json.dumps([question.text, question.gold]).encode("ascii"))
        return digest.hexdigest()[:16]
