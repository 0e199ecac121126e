"""Reward functions of a user's own, which the workers of a cluster import."""

from __future__ import annotations

import asyncio
import zlib
from typing import Any


async def low(completions: list[str], **columns: Any) -> list[float]:
    """Some number that a text has."""
    await asyncio.sleep(0)
    return [zlib.crc32(text.encode()) % 7 / 7 for text in completions]


def some(index: list[int], completions: list[str]) -> list[float | None]:
    """Of every other question."""
    pairs = zip(index, completions, strict=True)
    return [len(text) % 2 if number % 2 else None for number, text in pairs]


def fails(index: list[int]) -> list[float]:
    """Always."""
    raise LookupError("no judge")
