"""The clock of benchmarks."""

from __future__ import annotations

import time

import torch


def clock_of(device: torch.device) -> str:
    """What `now` tells: `cpu` is the time that this process computed, `wall` is the wall's.

    On a processor that others use too, one thread's own time is what can be compared; of several
    threads it would be their sum.
    """
    return "cpu" if device.type == "cpu" and torch.get_num_threads() == 1 else "wall"


def now(device: torch.device) -> float:
    """Milliseconds, after the device has caught up."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    seconds = time.process_time() if clock_of(device) == "cpu" else time.perf_counter()
    return seconds * 1000
