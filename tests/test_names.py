"""Words of our own that the field has others for, and that are not to come back."""

from __future__ import annotations

import ast
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


_SECTION = re.compile(r"^(?:Args|Attributes):\n((?:[ ]{4}.*\n?|\n)+)", re.MULTILINE)
_NAMES = re.compile(r"^    (\w[\w, ]*):", re.MULTILINE)


def described(node: ast.FunctionDef | ast.ClassDef) -> set[str]:
    """Names of arguments and attributes that a docstring describes."""
    sections = _SECTION.findall(f"{ast.get_docstring(node) or ''}\n")
    found = [names for section in sections for names in _NAMES.findall(section)]
    return {name.strip() for names in found for name in names.split(",")}


def test_docstrings_describe_what_there_is() -> None:
    """Renamed arguments are renamed there too; of a class with a base some are the base's."""
    stale = []
    for path in sorted((ROOT / "latentgym").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef):
                there = {arg.arg for arg in ast.walk(node.args) if isinstance(arg, ast.arg)}
            elif isinstance(node, ast.ClassDef) and not node.bases:
                body = "\n".join(map(ast.unparse, node.body[1:]))
                there = set(re.findall(r"\w+", body))
            else:
                continue
            stale += [f"{path.name} {node.name}: {each}" for each in described(node) - there]
    assert not stale
