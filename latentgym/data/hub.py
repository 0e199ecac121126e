"""Data sets of the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from latentgym.data.files import DataError, Row
from latentgym.system.hub import no_data


@dataclass(frozen=True)
class HubSpec:
    """Where a data set lies on the hub.

    Args:
        repo: "owner/name".
        config: the configuration ("subset") to load, if it has several.
        revision: branch, tag or commit; recorded with every result.
        splits: the hub's name of each of our splits; a split that is missing is not there.
    """

    repo: str
    config: str | None = None
    revision: str = "main"
    splits: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"hub:{self.repo}@{self.revision}"


def unusable() -> str | None:
    """Why data sets cannot be had from the hub just now, or None if they can."""
    if find_spec("datasets") is None:
        return "the package datasets is not installed"
    return no_data()


def read_hub(hub: HubSpec, split: str) -> Iterator[Row]:
    """The rows of one split, downloaded or from the local cache of `datasets`.

    Args:
        hub: the data set.
        split: our name of the split.

    Yields:
        The rows in order, numbered from 1.

    Raises:
        DataError: the hub or the data set cannot be had, for the reason given.
    """
    try:
        datasets: Any = import_module("datasets")
        table = datasets.load_dataset(
            hub.repo, hub.config, split=hub.splits.get(split, split), revision=hub.revision
        )
    # The library raises errors of half a dozen packages, and none of them is a bug of ours.
    except Exception as error:
        raise DataError(f"{hub}: {type(error).__name__}: {error}") from error
    for number, item in enumerate(table, start=1):
        yield Row(f"{hub}[{split}]", number, dict(item))
