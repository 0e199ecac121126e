"""Figures of matplotlib, which is an extra, as files: the same bytes for the same figure."""

from __future__ import annotations

import io
import warnings
from typing import Any

from latentgym.errors import UsageError
from latentgym.system.terminal import line


def figure_class(extra: str) -> Any:
    """matplotlib's `Figure`, which draws without a screen.

    Args:
        extra: of this package that brings matplotlib, for the message.

    Raises:
        UsageError: matplotlib is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UsageError(f"pictures need matplotlib; pip install 'latentgym[{extra}]'.") from error
    return Figure


def label(name: str, most: int) -> str:
    """A name of whoever's as a label: neither a formula, nor hidden from legends, nor too long.

    Args:
        name: taken as text.
        most: characters that are shown of it.
    """
    text = line(name, most).replace("$", r"\$")  # which matplotlib would read as mathematics
    return f" {text}" if text.startswith("_") else text


def file_of(figure: Any, name: str, kind: str, transparent: bool = False) -> bytes:
    """A figure as a file.

    Args:
        figure: of matplotlib.
        name: of the file, which no other on the same page has.
        kind: `svg` or `png`.
        transparent: whether what lies behind is seen through it.
    """
    import matplotlib

    buffer = io.BytesIO()
    # Ids within an SVG are random, and it bears the date, unless one says otherwise.
    metadata = {"Date": None} if kind == "svg" else {"Software": None}
    with (
        matplotlib.rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}),
        warnings.catch_warnings(),
    ):
        # A letter that the font lacks is a box in a PNG; in an SVG the reader's fonts have it.
        warnings.filterwarnings("ignore", "Glyph", UserWarning)
        figure.savefig(buffer, format=kind, dpi=160, metadata=metadata, transparent=transparent)
    return buffer.getvalue()
