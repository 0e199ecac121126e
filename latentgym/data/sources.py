"""Finding a data set.

The order of search: an explicit `source`, the folder `$LATENTGYM_DATA/<folder>/`, the Hugging
Face hub, and last the sample in this package, of which a warning tells.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path

from latentgym.data.dataset import Dataset, DatasetSpec
from latentgym.data.files import SUFFIXES, DataError, Row, check_fields, find, read_rows
from latentgym.data.hub import HubSpec, read_hub, unusable
from latentgym.errors import did_you_mean

DATA_VARIABLE = "LATENTGYM_DATA"
SAMPLES = Path(__file__).with_name("samples")

_HUB_ID = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?")
_warned: set[str] = set()


class SampleDataWarning(UserWarning):
    """The packaged sample stands in for the real data, so that scores mean nothing."""


@dataclass(frozen=True)
class Found:
    """Where rows were found, the rows, and why no better place has them.

    Attributes:
        source: "path:...", "data:...", "hub:..." or "sample".
        rows: as they are read.
        reason: why it is a sample.
    """

    source: str
    rows: Iterable[Row]
    reason: str = ""


def load(
    spec: DatasetSpec,
    split: str,
    *,
    source: str | Path | None = None,
    limit: int | None = None,
    holdout: float = 0.0,
) -> Dataset:
    """Load one split of a data set from the first place that has it.

    Args:
        spec: the data set.
        split: the name of a split, such as "test", or its alias.
        source: where to look instead of the usual places: a file, a folder with the files of
            the data set, a hub id "owner/name" or "owner/name@revision", or "sample".
        limit: how many questions to load, from the first on; all by default.
        holdout: where the source is a file, the share of its rows, evenly spread, that all splits
            but `train` have, and `train` has not. With 0, every split has all rows.

    Returns:
        The questions. Every row has the fields it needs.

    Raises:
        DataError: no such split or source, a damaged row, fewer rows than `limit`, or rows to be
            held out of something else than a file.
    """
    if limit is not None and limit < 1:
        raise DataError(f"the limit is {limit}; give a positive number, or none for all rows.")
    split = spec.alias.get(split, split)
    if holdout and not (source is not None and Path(source).expanduser().is_file()):
        raise DataError("rows are held out of a file; give one as source, or leave holdout out.")
    found = _search(spec, split) if source is None else explicit(spec, split, source)
    checked = _checked(spec, found.rows)
    if holdout:
        checked = _part(checked, holdout, held=split != "train")
    rows = list(islice(checked, limit))
    here = f"{spec.name} {split} from {found.source}"
    if not rows and holdout:
        raise DataError(
            f"{here} has no rows, as holdout={holdout:g} leaves it none; set another holdout, or 0 "
            "for all rows in every split."
        )
    if not rows:
        raise DataError(f"{here} has no rows; choose another source or split.")
    if limit is not None and len(rows) < limit:
        raise DataError(f"{here} has {len(rows)} rows; choose a limit of at most {len(rows)}.")
    if found.source == "sample" and source is None and spec.name not in _warned:
        _warned.add(spec.name)
        warnings.warn(
            f"{spec.name}: the real data was not found, so {len(rows)} made-up questions stand "
            f"in for it and scores mean nothing; {_remedy(spec, split)} ({found.reason}).",
            SampleDataWarning,
            stacklevel=2,
        )
    return Dataset(spec, split, found.source, rows)


def _part(rows: Iterator[Row], holdout: float, *, held: bool) -> Iterator[Row]:
    """The rows that are held out, or the others."""
    for place, row in enumerate(rows):
        if (int((place + 1) * holdout) > int(place * holdout)) == held:
            yield row


def available(spec: DatasetSpec, split: str = "test") -> str:
    """Where `load` would look for a split first with success, as far as can be told unread.

    Args:
        spec: the data set.
        split: the name of a split.

    Returns:
        "data:...", "hub:...", "sample", or "generated" where there is no sample.

    Raises:
        DataError: the data set has no such split.
    """
    _check_split(spec, split)
    folder = _in_folder(spec, split)
    if folder is not None:
        return folder.source
    hub, _ = _hub_of(spec, split)
    return str(hub) if hub else "sample" if spec.sample else "generated"


def data_root() -> Path | None:
    """The folder with the data sets, `$LATENTGYM_DATA`, if it is set."""
    root = os.environ.get(DATA_VARIABLE)
    return Path(root).expanduser() if root else None


def _search(spec: DatasetSpec, split: str) -> Found:
    """The usual places, in order."""
    _check_split(spec, split)
    folder = _in_folder(spec, split)
    if folder is not None:
        return folder
    hub, reason = _hub_of(spec, split)
    if hub is not None:
        try:
            return Found(str(hub), list(read_hub(hub, split)))
        except DataError as error:
            reason = str(error)
    if spec.sample is None:
        raise DataError(
            f"{spec.name} {split} was not found; {_remedy(spec, split)}, or generate it ({reason})."
        )
    return Found("sample", _sample(spec.sample, split), reason)


def explicit(spec: DatasetSpec, split: str, source: str | Path) -> Found:
    """The place that the caller names, which must have the rows; none of them is looked at yet.

    Raises:
        DataError: there is no such place, or not that split in it.
    """
    if source == "sample" and spec.sample is not None:
        _check_split(spec, split)
        return Found("sample", _sample(spec.sample, split))
    path = Path(source).expanduser()
    if path.is_file() and not path.name.endswith(SUFFIXES):
        raise DataError(
            f"{source} is of no format that is read; give {', '.join(SUFFIXES)}: one JSON object "
            f"for each question with {', '.join(spec.fields)}."
        )
    if path.is_file():
        return Found(f"path:{source}", read_rows(path))
    if path.is_dir():
        found = _files(path, spec.files.get(split, ())) or _files(path, (split,))
        if found is None:
            wanted = " or ".join(dict.fromkeys([*spec.files.get(split, ()), split]))
            raise DataError(f"{path} has no file {wanted} ({', '.join(SUFFIXES)}); add it.")
        return Found(f"path:{source}", found)
    hub_id = _HUB_ID.fullmatch(str(source))
    if hub_id is None:
        raise DataError(f"{source} is neither a file, a folder nor a hub id; mend the source.")
    hub = spec.hub if spec.hub and spec.hub.repo == hub_id["repo"] else HubSpec(hub_id["repo"])
    hub = replace(hub, revision=hub_id["revision"] or hub.revision)
    reason = unusable()
    if reason:
        raise DataError(f"there is no file or folder {source}, and as a hub id: {reason}.")
    return Found(str(hub), read_hub(hub, split))


def _in_folder(spec: DatasetSpec, split: str) -> Found | None:
    """The files of a split under `$LATENTGYM_DATA`, or those that stand in for them."""
    root = data_root()
    if root is None:
        return None
    if rows := _files(root / spec.folder, spec.files.get(split, ())):
        return Found(f"data:{spec.folder}", rows)
    stems = spec.stand_ins.get(split, ())
    if rows := _files(root, stems):
        return Found(f"data:{'+'.join(stems)}", rows)
    return None


def _sample(sample: str | Callable[[str], Iterable[Row]], split: str) -> Iterable[Row]:
    """The rows of a packaged or a generated sample."""
    return read_rows(SAMPLES / sample) if isinstance(sample, str) else sample(split)


def _files(folder: Path, stems: tuple[str, ...]) -> Iterable[Row] | None:
    """The rows of all these files, or None unless all are there."""
    paths = [path for stem in stems if (path := find(folder, stem))]
    if not paths or len(paths) < len(stems):
        return None
    return chain.from_iterable(map(read_rows, paths))


def _hub_of(spec: DatasetSpec, split: str) -> tuple[HubSpec | None, str]:
    """The hub's copy of a split if it can be tried, else why not."""
    if spec.hub is None or split not in spec.hub.splits:
        return None, "the hub has no such split"
    reason = unusable()
    return (None, reason) if reason else (spec.hub, "")


def _check_split(spec: DatasetSpec, split: str) -> None:
    if split not in spec.splits:
        raise DataError(f"{spec.name} has no split {split!r}; {did_you_mean(split, spec.splits)}")


def _checked(spec: DatasetSpec, rows: Iterable[Row]) -> Iterator[Row]:
    for row in rows:
        check_fields(row, spec.fields)
        yield row


def _remedy(spec: DatasetSpec, split: str) -> str:
    names = " and ".join(f"{stem}.jsonl" for stem in spec.files.get(split, (split,)))
    hub = (
        f", or let `datasets` reach {spec.hub.repo} on the hub"
        if spec.hub and split in spec.hub.splits
        else ""
    )
    return f"put {names} into ${DATA_VARIABLE}/{spec.folder}/ or pass a source{hub}"
