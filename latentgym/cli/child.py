"""A command of `latentgym` that ends in order when its parent is gone.

Run as `python -m latentgym.cli.child COMMAND ...`. Its stdin is a pipe whose other end the parent
holds. When that is closed, however the parent ended, the command is terminated, and keeps what it
has written as on any other day.
"""

from __future__ import annotations

import os
import signal
import threading

from latentgym.cli.main import run


def _watch() -> None:
    os.read(0, 1)  # nothing is ever written
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    threading.Thread(target=_watch, daemon=True, name="parent").start()
    run()
