"""The progress bars of transformers and of the hub's client."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any


@contextmanager
def without_loading_bars() -> Iterator[None]:
    """Within it transformers draws no bars over weights that it loads; downloads have theirs."""
    hub: Any = import_module("huggingface_hub.utils")
    logging: Any = import_module("transformers.utils.logging")
    drawn, hidden = logging.is_progress_bar_enabled(), hub.are_progress_bars_disabled()
    logging.disable_progress_bar()  # of downloads too
    if not hidden:
        hub.enable_progress_bars()
    try:
        yield
    finally:
        if drawn:
            logging.enable_progress_bar()
        if hidden:
            hub.disable_progress_bars()
