"""`latentgym bench [NAME ...]`."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from latentgym.cli.options import parse, say
from latentgym.errors import UsageError, did_you_mean
from latentgym.results import git_commit, versions
from latentgym.storage import atomic_write, writable
from latentgym.terminal import shown

# Each benchmark's module has a dataclass of options and `run(options) -> dict`.
BENCHES = {
    "latentseek": ("latentgym.bench.latentseek", "LatentSeekBench"),
    "recommend": ("latentgym.bench.recommend", "RecommendBench"),
    "retrieval": ("latentgym.bench.retrieval", "RetrievalBench"),
    "rollout": ("latentgym.bench.rollout", "RolloutBench"),
    "train": ("latentgym.bench.train", "TrainBench"),
}
# Figures by name that a report may have, and what they are.
TABLES = {
    "ms_per_step": "ms per step",
    "seconds": "seconds",
    "queries_per_second": "queries per second",
    "questions_per_minute": "questions per minute",
    "users_per_second": "users per second",
    "positions_per_user": "forward positions per user",
    "positions_per_question": "forward positions per question",
    "ratios": "ratio",
    "same_answers": "share of equal answers",
}


def main(argv: Sequence[str]) -> int:
    """Run benchmarks by name; all of them without one. `--json FILE` also writes the figures."""
    words = list(argv)
    target = _take_json(words)
    names = []
    while words and not words[0].startswith("-"):
        names.append(words.pop(0))
    for name in names:
        if name not in BENCHES:
            raise UsageError(f"no benchmark {name!r}; {did_you_mean(name, BENCHES)}")
    reports = []
    for name in names or list(BENCHES):
        module_name, options_name = BENCHES[name]
        module = importlib.import_module(module_name)
        about = (module.__doc__ or "").strip()
        options = parse(getattr(module, options_name), words, f"bench {name}", about)
        report = {**module.run(options), "versions": versions(), "git": git_commit()}
        _show(report)
        reports.append(report)
        if target is not None:  # after each, so that none is lost with one that fails
            with writable(target, "give --json another file"), atomic_write(target) as partial:
                partial.write_text(json.dumps(reports, indent=2) + "\n")
            say(f"wrote {target}")
    return 0


def _take_json(words: list[str]) -> Path | None:
    for i, word in enumerate(words):
        if word.startswith("--json="):
            return Path(words.pop(i).partition("=")[2])
        if word == "--json":
            if i + 1 == len(words):
                raise UsageError("--json needs a file to write to.")
            del words[i]
            return Path(words.pop(i))
    return None


def _show(report: dict[str, Any]) -> None:
    # Without emoji, or ":llama:" in a model's name becomes one.
    console = Console(width=None if sys.stdout.isatty() else 100, emoji=False)
    settings = ", ".join(f"{k} {v}" for k, v in report["settings"].items())
    about = shown(f"  {settings}; {report['device']}")
    console.print(Text.assemble((report["bench"], "bold"), " ", about))
    for key, title in TABLES.items():
        if key not in report:
            continue
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("")
        table.add_column(title, justify="right")
        for name, value in report[key].items():
            table.add_row(shown(name), f"{value:.3g}")
        console.print(table)
    for name, value in report["scaling"].items():
        if isinstance(value, dict):
            value = ", ".join(f"{k}: {v:.3g}" for k, v in value.items())
        else:
            value = f"{value:.2f}"
        console.print(shown(f"{name}: {value}"))
