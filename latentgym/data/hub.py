"""The Hugging Face hub, tried quickly: without a network it must cost seconds, not minutes."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any
from urllib.parse import urlsplit

from latentgym.data.files import DataError, Row

PROBE_SECONDS = 2.0
_ON = frozenset({"1", "true", "yes", "on"})
_PROXIES = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")


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
    if off := _switched_off("HF_DATASETS_OFFLINE"):
        return off
    if find_spec("datasets") is None:
        return "the package datasets is not installed"
    return _out_of_reach()


def no_models() -> str | None:
    """Why models cannot be had from the hub just now, or None if they can."""
    return _switched_off("TRANSFORMERS_OFFLINE") or _out_of_reach()


def _switched_off(name: str) -> str | None:
    for each in ("LATENTGYM_OFFLINE", "HF_HUB_OFFLINE", name):
        if os.environ.get(each, "").lower() in _ON:
            return f"{each} is set"
    return None


def _out_of_reach() -> str | None:
    address = next((os.environ[name] for name in _PROXIES if os.environ.get(name)), None)
    address = address or os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    return None if _reachable(address) else f"{address} cannot be reached"


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


@lru_cache(maxsize=8)
def _reachable(address: str) -> bool:
    """Whether a connection can be made, name lookup included, within `PROBE_SECONDS`."""
    parts = urlsplit(address if "//" in address else f"//{address}")
    port = parts.port or (80 if parts.scheme == "http" else 443)
    connected = threading.Event()

    def connect() -> None:
        try:
            socket.create_connection((parts.hostname or "", port), PROBE_SECONDS).close()
            connected.set()
        except OSError:
            pass

    # A name lookup has no time limit of its own, hence the thread that may be left behind.
    probe = threading.Thread(target=connect, daemon=True)
    probe.start()
    probe.join(PROBE_SECONDS)
    return connected.is_set()
