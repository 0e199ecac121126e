"""The lines of `rollouts.jsonl.gz`, which may be anyone's: bounded, and looked at before use."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from latentgym.system.sealed import is_of, parsed

MAX_LINE = 16 * 2**20
MOST_BYTES = 4 * 2**30  # of all lines, decompressed: a small file may hold very many
MOST_LINES = 1_000_000

# What a key holds where it is there; docs/records.md says what it means.
_KINDS: Mapping[str, Any] = {
    **dict.fromkeys(("index", "seed", "n_thoughts", "n_tokens"), int),
    **dict.fromkeys(("question", "prompt_hash", "thoughts", "completion", "answer", "status"), str),
    "parsed": str | None,
    "score": float,
    "components": dict[str, float | None],
    "samples": list[float],
    "truncated": bool | None,
    "segments": list[dict[str, str]],
    "steps": list[dict[str, Any]],
    "trace": list[dict[str, Any]],
}
_STEP: Mapping[str, Any] = {
    "by": str,
    "ids": list[int],
    "tokens": list[str],
    "weights": list[float],
    **dict.fromkeys(("norm", "entropy", "gate"), float),
}


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The stored rollouts of a file, one dict each.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or none of ours; the message says where and why.
    """
    if path.exists() and not path.is_file():
        raise ValueError("it is no file")
    number, left = 0, MOST_BYTES
    try:
        with gzip.open(path, "rb") as file:
            while line := file.readline(MAX_LINE):
                number, left = number + 1, left - len(line)
                yield _rollout(line, number, left)
    except FileNotFoundError:
        raise
    except (OSError, EOFError, ValueError, zlib.error) as error:
        where = f"near line {number}: " if number else ""
        raise ValueError(f"{where}{error}") from error


def _rollout(line: bytes, number: int, left: int) -> dict[str, Any]:
    """What a line says.

    Raises:
        ValueError: nothing that an evaluation says.
    """
    if left < 0:
        raise ValueError(f"it holds more than {MOST_BYTES >> 20:,} MiB")
    if number > MOST_LINES:
        raise ValueError(f"it holds more than {MOST_LINES:,} answers")
    if len(line) == MAX_LINE and not line.endswith(b"\n"):
        raise ValueError(f"a line is longer than {MAX_LINE >> 20} MiB")
    rollout = parsed(line)
    if not isinstance(rollout, dict):
        raise ValueError("it is no JSON object")
    _check(rollout, _KINDS)
    for step in rollout.get("steps", ()):
        _check(step, _STEP)
    return rollout


def _check(data: Mapping[str, Any], kinds: Mapping[str, Any]) -> None:
    for name, kind in kinds.items():
        if name in data and not is_of(data[name], kind):
            raise ValueError(f"{name} cannot be {told(data[name])}")


def told(value: Any) -> str:
    """A value of whoever's, in a few characters."""
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:40]}..."
