"""Words of our own that the field has others for, and that are not to come back."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

OLD = {
    "voice": "answer head",
    "speaks_its_thoughts": "thinks_in_tokens",
    "begun": "prefix, started",
    "Reading\\(": "PrefixCache",
    "Standing": "DecodeState",
    "Tape": "Recorder",
    "Clock": "EpisodeState",
    "MarkTable": "StopMatcher",
    "answer mark": "answer marker",
    "bridge": "forced prompt",
    "cue": "prompt suffix",
    "[Rr]espondent": "answerer",
    "spoken": "plain, answer token",
    "Draws\\b(?! what)": "CounterRNG",
    "chains? (of|in) words": "thoughts in tokens, chain of thought",
}
# Words of data, and what older checkpoints hold.
EXCEPT = {"shop.py": ("bridge",), "facts.py": ("bridge",), "registry.py": ("cue",)}


def files() -> Iterator[Path]:
    for folder, ending in (("latentgym", "py"), ("benchmarks", "py"), ("examples", "py")):
        yield from sorted((ROOT / folder).rglob(f"*.{ending}"))
    yield from sorted((ROOT / "docs").rglob("*.md"))
    yield from (ROOT / "README.md", ROOT / "CONTRIBUTING.md")


@pytest.mark.parametrize("old", OLD)
def test_old_names_are_gone(old: str) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in files()
        if old not in EXCEPT.get(path.name, ())
        for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1)
        if re.search(rf"(?<!\w){old}(?!\w)", line)
    ]
    assert not found, f"say {OLD[old]}:\n" + "\n".join(found)
