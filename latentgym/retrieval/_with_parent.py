"""Runs a command that ends with whoever started it. Run by `building`, as a script.

Its stdin is a pipe whose other end the parent holds: when that is closed, the command is killed. So
Java does not go on for hours with an index that nobody waits for.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading


def main(command: list[str]) -> int:
    """Run it; its exit code."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # meant for the parent, who closes the pipe
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    signal.signal(signal.SIGTERM, lambda *_: process.kill())

    def watch() -> None:
        os.read(0, 1)  # nothing is ever written
        process.kill()

    threading.Thread(target=watch, daemon=True).start()
    return process.wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
