"""rich's console, for output whose reader may leave, as `head` does."""

from __future__ import annotations

import rich.console


class Console(rich.console.Console):
    """Says so to its caller when the reader has left; rich's own ends the process with code 1."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError
