"""Figures of matplotlib, which is an extra, as files: the same bytes for the same figure."""

from __future__ import annotations

import io
from typing import Any

from latentgym.errors import UsageError


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
    with matplotlib.rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}):
        figure.savefig(buffer, format=kind, dpi=160, metadata=metadata, transparent=transparent)
    return buffer.getvalue()
