"""Writes the recorded results into README and docs, between their markers, and the pages of tasks.

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
    sections_bench,
    sections_chains,
    sections_chaos,
    sections_depth,
    sections_dynamics,
    sections_graders,
    sections_latents,
    sections_methods,
    sections_outliers,
    sections_recommendation,
    sections_retrieval,
    sections_search,
    sections_suites,
    task_pages,
)

ROOT = Path(__file__).parents[1]
SECTIONS = {
    **models.SECTIONS,
    **sections.SECTIONS,
    **sections_bench.SECTIONS,
    **sections_chains.SECTIONS,
    **sections_chaos.SECTIONS,
    **sections_depth.SECTIONS,
    **sections_dynamics.SECTIONS,
    **sections_graders.SECTIONS,
    **sections_latents.SECTIONS,
    **sections_methods.SECTIONS,
    **sections_outliers.SECTIONS,
    **sections_recommendation.SECTIONS,
    **sections_retrieval.SECTIONS,
    **sections_search.SECTIONS,
    **sections_suites.SECTIONS,
    **task_pages.SECTIONS,
}
_DOCS = (
    "analysis",
    "analysis-latents",
    "analysis-outliers",
    "dynamics",
    "engine",
    "faults",
    "graders",
    "models",
    "openrlhf",
    "recommendation",
    "results",
    "semantics",
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
    wanted = {name: filled((ROOT / name).read_text()) for name in PAGES} | task_pages.pages()
    for name, new in wanted.items():
        path = ROOT / name
        if not path.exists() or path.read_text() != new:
            stale.append(name)
            if not check:
                path.parent.mkdir(exist_ok=True)
                path.write_text(new)
    print(", ".join(stale) if stale else "all pages are what the records say")
    sys.exit(int(check and bool(stale)))


if __name__ == "__main__":
    main()
