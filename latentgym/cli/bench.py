"""`latentgym bench [NAME ...]`."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from latentgym.cli.benches.tables import WIDE
from latentgym.cli.options import emit, output, parse
from latentgym.errors import UsageError, did_you_mean
from latentgym.evaluation.results import git_commit, versions
from latentgym.storage import atomic_write, to_json, writable
from latentgym.system.console import Console
from latentgym.system.terminal import say, shown

# Each benchmark's module has `run(settings) -> dict`, its settings are in `benches.settings`.
BENCHES = {
    "dynamics": (
        "latentgym.cli.benches.dynamics",
        "DynamicsBench",
        "a model inside the environment against the engine and n copies",
    ),
    "latentseek": (
        "latentgym.cli.benches.latentseek",
        "LatentSeekBench",
        "the batched search against one question at a time",
    ),
    "memory": (
        "latentgym.cli.benches.memory",
        "MemoryBench",
        "what fits: memory of rollouts and updates, foreseen and measured",
    ),
    "recommend": (
        "latentgym.cli.benches.recommend",
        "RecommendBench",
        "ranking a catalogue against generate with allowed prefixes",
    ),
    "retrieval": ("latentgym.cli.benches.retrieval", "RetrievalBench", "Lucene beside bm25s"),
    "rollout": (
        "latentgym.cli.benches.rollout",
        "RolloutBench",
        "the engine against transformers' generate and the machine",
    ),
    "train": ("latentgym.cli.benches.train", "TrainBench", "a GRPO step against TRL's"),
}
# Figures by name that a report may have, and what they are.
TABLES = {
    "ms_per_step": "ms per step",
    "seconds": "seconds",
    "steps_per_second": "environment steps per second",
    "queries_per_second": "queries per second",
    "questions_per_minute": "questions per minute",
    "users_per_second": "users per second",
    "positions_per_user": "forward positions per user",
    "positions_per_question": "forward positions per question",
    "ratios": "ratio",
    "precision": "rollout in bfloat16 beside its replay",
    "same_answers": "share of equal answers",
}


def main(argv: Sequence[str]) -> int:
    """Run benchmarks by name or `all`, or list them.

    `--json` prints their figures as one line and nothing else, `--json FILE` writes them to a file.
    """
    words = list(argv)
    as_json, target = _take_json(words)
    names = [word for word in words if word == "all" or word in BENCHES]
    rest = [word for word in words if word not in names]
    if rest and not rest[0].startswith("-"):
        raise UsageError(f"no benchmark {rest[0]!r}; {did_you_mean(rest[0], [*BENCHES, 'all'])}")
    if not names:
        return _list(rest)
    if target is not None and target.parent and not target.parent.is_dir():
        raise UsageError(f"there is no folder {target.parent} for {target.name}; make it first.")
    reports = []
    for name in BENCHES if "all" in names else names:
        module_name, options_name, _ = BENCHES[name]
        settings = getattr(importlib.import_module("latentgym.cli.benches.settings"), options_name)
        options = parse(settings, rest, f"bench {name}", inspect.getdoc(settings) or "")
        found = importlib.import_module(module_name).run(options)
        report = {**found, "versions": versions(), "git": git_commit()}
        _show(report, output(as_json))
        reports.append(report)
        if target is not None:  # after each, so that none is lost with one that fails
            with writable(target), atomic_write(target) as partial:
                partial.write_text(to_json(reports, indent=2) + "\n")
            say(f"wrote {target}")
    emit({"reports": reports}, as_json)
    return 0


def _list(options: Sequence[str]) -> int:
    """Say which benchmarks there are."""
    if options and not {"-h", "--help"} & {*options}:
        raise UsageError(
            f"{options[0]} goes with a benchmark; name one of {', '.join(BENCHES)}, or all."
        )
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("benchmark", "what is measured"):
        table.add_column(name)
    for name, (_, _, about) in BENCHES.items():
        table.add_row(name, about)
    console = output()
    console.print("usage: latentgym bench NAME ... | all [options] [--json [FILE]]\n", markup=False)
    console.print(table)
    console.print("\nlatentgym bench NAME --help shows the options of one.")
    console.print("--json prints the figures as JSON alone, --json FILE writes them to a file.")
    return 0


def _take_json(words: list[str]) -> tuple[bool, Path | None]:
    """Whether JSON goes to stdout, as with all commands, and the file that it goes to."""
    for i, word in enumerate(words):
        if word.startswith("--json="):
            return False, Path(words.pop(i).partition("=")[2])
        if word == "--json":
            del words[i]
            behind = words[i] if i < len(words) else "-"
            if behind.startswith("-") or behind in (*BENCHES, "all"):
                return True, None
            return False, Path(words.pop(i))
    return False, None


def _plain(value: Any) -> str:
    """A setting as one would write it on the command line."""
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _show(report: dict[str, Any], console: Console) -> None:
    settings = ", ".join(f"{k} {_plain(v)}" for k, v in report["settings"].items())
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
    for key in (key for key in WIDE if key in report):
        for table in WIDE[key](report):
            console.print(table)
    for note in report.get("notes", []):
        console.print(shown(note))
    for name, value in report["scaling"].items():
        if isinstance(value, dict):
            value = ", ".join(f"{k}: {v:.3g}" for k, v in value.items())
        else:
            value = f"{value:.2f}"
        console.print(shown(f"{name}: {value}"))
