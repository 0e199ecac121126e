"""Text for a terminal, which obeys control characters, and for rich, which obeys markup.

Names, questions, answers and paths are whoever's: all that is shown of them goes through here.
"""

from __future__ import annotations

import shutil
import sys
import textwrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.text import Text


def printable(text: str) -> str:
    """Text without the control and other invisible characters in it, but for line breaks."""
    return "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in text)


def say(text: str) -> None:
    """A line for people, on stderr: results alone go to stdout.

    On a terminal it is broken between words; elsewhere it stays one line, for whoever reads it.
    """
    text = printable(text)
    if sys.stderr.isatty():
        width = shutil.get_terminal_size().columns
        wrapped = (
            textwrap.wrap(each, width, break_long_words=False, break_on_hyphens=False)
            for each in text.splitlines()
        )
        text = "\n".join(line for lines in wrapped for line in lines or [""])
    print(text, file=sys.stderr, flush=True)


def line(text: str, most: int | None = None) -> str:
    """Printable text in one line.

    Args:
        text: whatever it is.
        most: characters that are kept of it; None for all.
    """
    one = " ".join(printable(text).split())
    return one if most is None or len(one) <= most else f"{one[: most - 1]}…"


def shown(what: object, most: int | None = None) -> Text:
    """Whatever it is in one line, for rich: neither markup nor control characters.

    Args:
        what: taken as text.
        most: characters that are shown of it.
    """
    from rich.text import Text  # here, or every message of the command line would load it

    return Text(line(str(what), most))
