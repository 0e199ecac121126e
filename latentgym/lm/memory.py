"""Whether there is room, asked before it is taken."""

from __future__ import annotations

import re
from pathlib import Path

import torch

from latentgym.errors import UsageError

_GB = 1e9


def free_bytes(device: torch.device) -> int | None:
    """Memory that is free on a device; None where nobody tells."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        told = Path("/proc/meminfo").read_text("ascii")
    except OSError:  # no Linux
        return None
    found = re.search(r"^MemAvailable:\s+(\d+) kB", told, re.MULTILINE)
    return int(found[1]) * 1024 if found else None


def require(needed: int, device: torch.device, what: str, instead: str) -> None:
    """Raise `UsageError` unless a device has that much memory left.

    Args:
        needed: bytes.
        device: where.
        what: takes it.
        instead: what to do where there is too little.
    """
    free = free_bytes(device)
    if free is not None and needed > free:
        raise UsageError(
            f"{what} may take {needed / _GB:.1f} GB on {device}, which has {free / _GB:.1f} GB "
            f"free; {instead}."
        )
