"""Writes the recorded results into README and docs, between their markers.

python -m benchmarks.report            # after a suite or `latentgym bench ... --json` has run
python -m benchmarks.report --check    # exit code 1 if a page is not what the records say
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from benchmarks import (
    models,
    sections,
    sections_chaos,
    sections_graders,
    sections_recommendation,
    sections_retrieval,
    sections_search,
)

ROOT = Path(__file__).parents[1]
SECTIONS = {
    **models.SECTIONS,
    **sections.SECTIONS,
    **sections_chaos.SECTIONS,
    **sections_graders.SECTIONS,
    **sections_recommendation.SECTIONS,
    **sections_retrieval.SECTIONS,
    **sections_search.SECTIONS,
}
_DOCS = (
    "engine",
    "faults",
    "graders",
    "models",
    "openrlhf",
    "recommendation",
    "results",
    "training",
)
PAGES = ("README.md", *(f"docs/{page}.md" for page in _DOCS))


def filled(text: str) -> str:
    """A page with every marked section as the records say."""

    def section(match: re.Match[str]) -> str:
        name = match[1]
        return f"<!-- {name} -->\n{SECTIONS[name]()}\n<!-- /{name} -->"

    return re.sub(r"<!-- ([\w-]+) -->\n.*?<!-- /\1 -->", section, text, flags=re.DOTALL)


def main() -> None:
    """Fill or check the pages."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    stale = []
    for name in PAGES:
        path = ROOT / name
        old = path.read_text()
        new = filled(old)
        if new != old:
            stale.append(name)
            if not check:
                path.write_text(new)
    print(", ".join(stale) if stale else "all pages are what the records say")
    sys.exit(int(check and bool(stale)))


if __name__ == "__main__":
    main()
