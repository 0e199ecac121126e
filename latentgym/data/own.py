"""Questions of the user's own, parted so that no question is both trained on and tested.

A test file may be named. Without one, rows are held out by a hash of their question: which they are
does not depend on their order, nor on what else is in the file, so a file may grow.
"""

from __future__ import annotations

import hashlib
import unicodedata
import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from latentgym.data.dataset import Dataset, DatasetSpec
from latentgym.data.files import DataError, Row, check_fields, find
from latentgym.data.maths import number_text
from latentgym.data.question import Question
from latentgym.data.sources import explicit
from latentgym.errors import Notice, did_you_mean

HOLDOUT = 0.1
"""The share of the rows that is held out by default, where there is no test file."""

MAX_ROWS, MAX_COLUMNS = 1_000_000, 1000
MAX_CHARACTERS = 2**30

_LISTS = ("steps", "forms", "choices")


def read_own(fields: Mapping[str, Any], columns: Collection[str] = ()) -> Question:
    """question, answer; perhaps steps, forms and choices, lists of texts; and any other columns.

    Args:
        fields: of the row.
        columns: that other rows have; where it has one of them not, that is None.

    Raises:
        ValueError: one of the lists is none, or the answer is no number that there is.
    """
    for name in _LISTS:
        value = fields.get(name)
        texts = isinstance(value, list) and all(isinstance(each, str) for each in value)
        if value is not None and not texts:
            raise ValueError(f"{name} must be a list of texts")
    gold = " ".join(number_text(fields["answer"]).split())
    extra = {name: fields.get(name) for name in (*columns, *fields) if name not in OWN.fields}
    return Question(fields["question"].strip(), gold, tuple(fields.get("steps") or ()), extra)


OWN = DatasetSpec(
    name="Custom",
    folder="custom",
    files={"train": ("train",), "test": ("test",)},
    read=read_own,
    fields={"question": str, "answer": (str, int, float)},
    licence="your own",
    url="",
)


@dataclass(frozen=True)
class OwnData:
    """One split of a user's questions.

    Attributes:
        questions: of the split.
        answers: all right answers of the files that were read, whatever their split.
        held_out: how the test was kept apart, in a few words, for records.
    """

    questions: Dataset
    answers: tuple[str, ...]
    held_out: str


def load_own(
    data: str | Path,
    split: str,
    *,
    test_data: str | Path | None = None,
    holdout: float | None = None,
    limit: int | None = None,
) -> OwnData:
    """Load one split of questions of the user's own.

    Args:
        data: a file, a folder with `train` and perhaps `test` files, or a hub id, whose split
            `train` is read.
        split: "train" or "test".
        test_data: the questions of the test: a file, a folder with a file `test`, or a hub id,
            whose split `test` is read. A question that is in it is left out of training.
        holdout: without a test file, the share of the questions that is held out for it; `HOLDOUT`
            by default.
        limit: how many questions to load, from the first on; all by default.

    Raises:
        DataError: no such split or place, a damaged row, no rows in the split, fewer than `limit`,
            more than `MAX_ROWS`, or both a test file and a share.
    """
    if split not in OWN.splits:
        raise DataError(f"{OWN.name} has no split {split!r}; {did_you_mean(split, OWN.splits)}")
    if test_data is None and find(Path(data).expanduser(), "test"):
        test_data = data
    if test_data is not None and holdout is not None:
        raise DataError(f"{test_data} is the test, so no rows are held out; leave holdout out.")
    if test_data is None:
        share = HOLDOUT if holdout is None else holdout
        held_out = f"{100 * share:g} % of the questions, by a hash of their text"
        found, chosen = _parted(data, split, share)
    else:
        held_out = f"the questions of {test_data}"
        found, chosen = _beside(data, split, test_data)
    here = f"{OWN.name} {split} from {found.source}"
    if limit is not None and len(chosen) < limit:
        raise DataError(f"{here} has {len(chosen)} rows; choose a limit of at most {len(chosen)}.")
    spec = replace(OWN, read=partial(read_own, columns=found.columns))
    questions = Dataset(spec, split, found.source, chosen[:limit])
    return OwnData(questions, found.answers, held_out)


def same_question(text: str) -> str:
    """What two texts have in common that ask the same: blanks, case and Unicode forms aside."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


@dataclass(frozen=True)
class _Read:
    """What a place holds.

    Attributes:
        source: of it.
        rows: by what they ask.
        answers: all that there are.
        columns: that its rows have, all or some of them.
    """

    source: str
    rows: Mapping[str, list[Row]]
    answers: tuple[str, ...]
    columns: tuple[str, ...]


def _parted(data: str | Path, split: str, share: float) -> tuple[_Read, list[Row]]:
    """The rows of a split of a file that has none."""
    if not share and split == "test":
        raise DataError(
            "with holdout=0 all rows are trained on, and none is left to test; name test_data, or "
            "set another holdout."
        )
    found, held = _read(data, "train"), split == "test"
    chosen = {text: each for text, each in found.rows.items() if (place_of(text) < share) == held}
    if not chosen:
        raise DataError(
            f"holdout={share:g} leaves {split} none of the {len(found.rows)} questions of "
            f"{found.source}; set another holdout, or name test_data."
        )
    return found, _told(chosen)


def _beside(data: str | Path, split: str, test_data: str | Path) -> tuple[_Read, list[Row]]:
    """The rows of a split, of which the test is a file of its own."""
    tests, found = _read(test_data, "test"), _read(data, "train")
    answers = tuple(dict.fromkeys((*found.answers, *tests.answers)))
    columns = tuple(dict.fromkeys((*found.columns, *tests.columns)))
    tests, found = (replace(each, answers=answers, columns=columns) for each in (tests, found))
    if split == "test":
        return tests, _told(tests.rows)
    kept = {text: each for text, each in found.rows.items() if text not in tests.rows}
    if not kept:
        raise DataError(
            f"all questions of {found.source} are in {test_data} too, so none is left to train "
            "on; name other data."
        )
    if both := [each[0] for text, each in found.rows.items() if text in tests.rows]:
        warnings.warn(
            f"{len(both)} of the {len(found.rows)} questions of {found.source} are in {test_data} "
            f"too, and are left out of training; the first is {both[0].place}:{both[0].number}.",
            Notice,
            stacklevel=2,
        )
    return found, _told(kept)


def _read(where: str | Path, split: str) -> _Read:
    """All rows of a place.

    Raises:
        DataError: there are none, a damaged one, or too many.
    """
    found = explicit(OWN, split, where)
    rows: dict[str, list[Row]] = {}
    answers: dict[str, None] = {}
    columns: dict[str, None] = {}
    size = 0
    for count, row in enumerate(found.rows, start=1):
        check_fields(row, OWN.fields)
        size += sum(map(_length, row.fields.values()))
        columns |= dict.fromkeys(row.fields)
        if count > MAX_ROWS or size > MAX_CHARACTERS or len(columns) > MAX_COLUMNS:
            raise DataError(
                f"{found.source} has more than {MAX_ROWS:,} rows, {MAX_COLUMNS:,} columns or "
                f"{MAX_CHARACTERS >> 20} million characters; give a part of it."
            )
        question = Dataset(OWN, split, found.source, [row])[0]  # tells what is wrong with a row
        rows.setdefault(same_question(question.text), []).append(row)
        answers[question.gold] = None
    if not rows:
        raise DataError(f"{found.source} has no rows; write one JSON object for each question.")
    return _Read(found.source, rows, tuple(answers), tuple(columns))


def _told(rows: Mapping[str, list[Row]]) -> list[Row]:
    """All these rows in their order; that some ask the same is said."""
    again = [row for same in rows.values() for row in same[1:]]
    if again:
        first = min(again, key=lambda row: row.number)
        warnings.warn(
            f"{len(again)} rows ask what a row before them asks, and count as often as they are "
            f"there; the first is {first.place}:{first.number}.",
            Notice,
            stacklevel=2,
        )
    return sorted(chain.from_iterable(rows.values()), key=lambda row: row.number)


def _length(value: Any) -> int:
    return len(value if isinstance(value, str) else repr(value))


def place_of(text: str) -> float:
    """A number in [0, 1) that a text has by itself."""
    data = text.encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.sha256(data).digest()[:6], "big") / 2**48
