"""The memory benchmark: what is foreseen holds for what is measured, and fits 80 columns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from latentgym.cli.benches.memory import LAYOUTS, layout, run
from latentgym.cli.benches.settings import MemoryBench
from latentgym.cli.benches.tables import foreseen_tables, in_bytes, measured_tables
from latentgym.cli.main import main
from latentgym.errors import UsageError

SMALL: dict[str, Any] = {"prompt": 64, "new": 16, "group": 4, "micro_batch": 4}


def test_small_models_are_measured_beside_the_formula(tmp_path: Path) -> None:
    target = tmp_path / "bench.json"
    words = ["--layouts", "0.5B", "--models", "tiny:llama:2x2x32", "tiny:gpt2:2x2x32"]
    words += ["--prompt", "64", "--new", "16", "--group", "4", "--micro-batch", "4"]
    assert main(["bench", "memory", *words, "--json", str(target)]) == 0
    (report,) = json.loads(target.read_text())
    what = [(found["model"], found["what"]) for found in report["measured"]]
    for name in ("tiny:llama:2x2x32", "tiny:gpt2:2x2x32"):
        for each in ("rollout", "update", "update, recomputed"):
            assert (name, each) in what
    assert all(0.75 < found["ratio"] < 1.35 for found in report["measured"])
    assert report["foreseen"].keys() == {"0.5B"}


@pytest.mark.parametrize(
    ("name", "published"),
    [("0.5B", 494_032_768), ("1.5B", 1_543_714_304), ("3B", 3_085_938_688), ("7B", 7_615_616_512)],
)
def test_layouts_are_those_that_are_published(name: str, published: int) -> None:
    assert layout(name).parameters == published


def test_parts_add_up() -> None:
    found = run(MemoryBench(layouts=("0.5B",), measure=False, **SMALL))
    parts = found["foreseen"]["0.5B"]
    assert found["measured"] == [] and all(value > 0 for value in parts.values())
    stands = sum(parts[name] for name in ("weights, trained", "gradients", "AdamW"))
    assert stands < parts["in all: training, recomputed"] <= parts["in all: training"]
    assert parts["in all: LoRA"] < parts["in all: training"] / 2
    assert parts["weights, trained"] == 2 * parts["weights, bfloat16"]
    assert parts["cache, a prompt"] == 64 * parts["cache, a row and step"]


def test_mistakes_are_one_sentence() -> None:
    with pytest.raises(UsageError, match="did you mean '7B'"):
        layout("7b")
    with pytest.raises(UsageError, match="is more than the 16 rows"):
        run(MemoryBench(micro_batch=17))


def test_tables_fit_the_terminal() -> None:
    report = run(MemoryBench(layouts=tuple(LAYOUTS)[:4], measure=False, **SMALL))
    report["measured"] = [
        {
            "model": "tiny:llama:4x4x128",
            "dtype": "bfloat16",
            "what": "update, recomputed",
            "measured_bytes": 123.0,
            "foreseen_bytes": 123456.0,
            "ratio": 1.0,
        }
    ]
    console = Console(width=80)
    with console.capture() as capture:
        for tables in (foreseen_tables, measured_tables):
            for table in tables(report):
                console.print(table)
    text = capture.get()
    assert "…" not in text and max(map(len, text.splitlines())) <= 80
    assert "123 kB" in text and "123 B" in text


@pytest.mark.parametrize(
    ("number", "text"),
    [(5, "5 B"), (1500, "1.50 kB"), (22e6, "22.0 MB"), (144e9, "144 GB"), (1440e9, "1.44 TB")],
)
def test_bytes_are_told_in_units(number: float, text: str) -> None:
    assert in_bytes(number) == text
