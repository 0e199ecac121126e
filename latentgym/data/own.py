"""Questions of the user's own, parted so that no question is both trained on and tested.

A test file may be named. Without one, rows are held out by a hash of their question: which they are
does not depend on their order, nor on what else is in the file, so a file may grow.
"""

from __future__ import annotations

import hashlib
import unicodedata
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from latentgym.data.dataset import Dataset, DatasetSpec
from latentgym.data.files import DataError, Row, check_fields, find
from latentgym.data.maths import number_text
from latentgym.data.question import Question
from latentgym.data.sources import Found, explicit
from latentgym.errors import Notice, did_you_mean

HOLDOUT = 0.1
"""The share of the rows that is held out by default, where there is no test file."""

MAX_ROWS = 1_000_000
MAX_CHARACTERS = 2**30

_LISTS = ("steps", "forms", "choices")


def read_own(fields: Mapping[str, Any]) -> Question:
    """question, answer; perhaps steps, forms and choices, lists of texts; and any other columns.

    Raises:
        ValueError: one of the lists is none, or the answer is no number that there is.
    """
    for name in _LISTS:
        value = fields.get(name)
        texts = isinstance(value, list) and all(isinstance(each, str) for each in value)
        if value is not None and not texts:
            raise ValueError(f"{name} must be a list of texts")
    gold = " ".join(number_text(fields["answer"]).split())
    extra = {name: value for name, value in fields.items() if name not in OWN.fields}
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
        found, chosen, answers = _parted(data, split, share)
    else:
        held_out = f"the questions of {test_data}"
        found, chosen, answers = _beside(data, split, test_data)
    here = f"{OWN.name} {split} from {found.source}"
    if limit is not None and len(chosen) < limit:
        raise DataError(f"{here} has {len(chosen)} rows; choose a limit of at most {len(chosen)}.")
    questions = Dataset(OWN, split, found.source, chosen[:limit])
    return OwnData(questions, answers, held_out)


def same_question(text: str) -> str:
    """What two texts have in common that ask the same: blanks, case and Unicode forms aside."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _parted(data: str | Path, split: str, share: float) -> tuple[Found, list[Row], tuple[str, ...]]:
    """The rows of a split of a file that has none."""
    if not share and split == "test":
        raise DataError(
            "with holdout=0 all rows are trained on, and none is left to test; name test_data, or "
            "set another holdout."
        )
    found, rows, answers = _read(data, "train")
    held = split == "test"
    chosen = {text: each for text, each in rows.items() if (place_of(text) < share) == held}
    if not chosen:
        raise DataError(
            f"holdout={share:g} leaves {split} none of the {len(rows)} questions of "
            f"{found.source}; set another holdout, or name test_data."
        )
    return found, _told(chosen), answers


def _beside(
    data: str | Path, split: str, test_data: str | Path
) -> tuple[Found, list[Row], tuple[str, ...]]:
    """The rows of a split, of which the test is a file of its own."""
    tests, tested, test_answers = _read(test_data, "test")
    found, rows, answers = _read(data, "train")
    answers = tuple(dict.fromkeys((*answers, *test_answers)))
    if split == "test":
        return tests, _told(tested), answers
    kept = {text: each for text, each in rows.items() if text not in tested}
    if not kept:
        raise DataError(
            f"all questions of {found.source} are in {test_data} too, so none is left to train "
            "on; name other data."
        )
    if both := [each[0] for text, each in rows.items() if text in tested]:
        warnings.warn(
            f"{len(both)} of the {len(rows)} questions of {found.source} are in {test_data} too, "
            f"and are left out of training; the first is {both[0].place}:{both[0].number}.",
            Notice,
            stacklevel=2,
        )
    return found, _told(kept), answers


def _read(where: str | Path, split: str) -> tuple[Found, dict[str, list[Row]], tuple[str, ...]]:
    """The rows of a place by what they ask, and all their answers.

    Raises:
        DataError: there are none, a damaged one, or too many.
    """
    found = explicit(OWN, split, where)
    rows: dict[str, list[Row]] = {}
    answers: dict[str, None] = {}
    size = 0
    for count, row in enumerate(found.rows, start=1):
        check_fields(row, OWN.fields)
        size += sum(map(_length, row.fields.values()))
        if count > MAX_ROWS or size > MAX_CHARACTERS:
            raise DataError(
                f"{found.source} has more than {MAX_ROWS:,} rows or {MAX_CHARACTERS >> 20} million "
                "characters; give a part of it."
            )
        question = Dataset(OWN, split, found.source, [row])[0]  # tells what is wrong with a row
        rows.setdefault(same_question(question.text), []).append(row)
        answers[question.gold] = None
    if not rows:
        raise DataError(f"{found.source} has no rows; write one JSON object for each question.")
    return found, rows, tuple(answers)


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
