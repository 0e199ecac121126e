"""CoT2 on MNNS (arXiv 2505.23648): supervised comparison, path budgets, MTS-GRPO, pass@k.

Every cell is a command of `latentgym`, run once per seed; a cell whose result is there is not run
again. The record holds mean and 95 % interval over seeds, the paper's figure and the command.

    python -m benchmarks.cot2_mnns --parts a b --out runs/cot2 --record benchmarks/records
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latentgym.progress import progress_bar
from latentgym.results import atomic_write, git_commit, load_result, versions
from latentgym.stats import mean_interval

WORDS, LATENT = "latent/MNNS-token", "latent/MNNS-continuous"
SUPERVISED_STEPS, GRPO_STEPS, EARLY_STEPS, CONVERGED_STEPS = 10_000, 500, 6_000, 20_000


@dataclass(frozen=True)
class Cell:
    """One figure of a table: a command, and what the paper has."""

    part: str
    name: str
    argv: tuple[str, ...]
    paper: float | None = None
    start: str | None = None  # the cell whose model this one starts from

    def command(self, out: Path, seed: int) -> list[str]:
        """The command line of one seed."""
        start = [] if self.start is None else ["--checkpoint", str(folder(out, self.start, seed))]
        chosen = "--seed" if self.argv[0] == "train" else "--seeds"
        where = ["--out", str(folder(out, self.name, seed))]
        return [*self.argv, *start, chosen, str(seed), *where]


def folder(out: Path, name: str, seed: int) -> Path:
    """Where a cell's run of one seed is kept."""
    return out / name / f"seed-{seed}"


def supervised(env: str, width: int, *more: str, steps: int = SUPERVISED_STEPS) -> tuple[str, ...]:
    """Supervised training of the two-layer two-head model of that width."""
    words = env == WORDS
    agent = ("cot", env, "--preset", "sft-tiny") if words else ("mts-grpo", env)
    model = ("--model", f"tiny:gpt2:2x2x{width}")
    return ("train", *agent, *model, "--steps", str(steps), "--save-every", "2000", *more)


def one_layer(width: int, steps: int) -> tuple[str, ...]:
    """The discrete one-layer one-head model that policy gradient starts from."""
    return (
        *("train", "cot", WORDS, "--model", f"tiny:gpt2:1x1x{width}", "--steps", str(steps)),
        *("--optimisation.lr", "1e-3", "--optimisation.weight-decay", "0.1"),
        *("--save-every", "2000"),
    )


def grpo(k: int) -> tuple[str, ...]:
    """MTS-GRPO with K samples from a discrete model; K = 1 is token GRPO."""
    return (
        *("train", "mts-grpo", LATENT, "--preset", "grpo", "--k", str(k), "-o", "arrow=true"),
        *("--steps", str(GRPO_STEPS), "--save-every", "100", "--log-every", "50"),
    )


def cells() -> Iterator[Cell]:
    """All figures."""
    yield Cell("a", "cot2-w32", supervised(LATENT, 32), paper=98.94)
    yield Cell("b", "discrete-w32", supervised(WORDS, 32), paper=84.92)
    yield Cell("b", "no-cot-w32", supervised(WORDS, 32, "-o", "think=0"), paper=68.35)
    budgets = {
        (1, 16): 55.48, (1, 24): 70.43,
        (4, 16): 64.20, (4, 24): 88.31, (4, 32): 99.04,
        (16, 16): 55.27, (16, 24): 96.56,
    }  # fmt: skip
    for (paths, width), paper in budgets.items():
        argv = supervised(LATENT, width, "-o", f"paths={paths}")
        yield Cell("c", f"budget-{paths}-w{width}", argv, paper)
    rewards = {
        24: (39.76, {1: 49.01, 3: 52.60, 6: 49.69}),
        32: (43.50, {1: 51.61, 3: 55.66, 6: 50.38}),
    }
    for width, (before, after) in rewards.items():
        for stage, steps in (("early", EARLY_STEPS), ("converged", CONVERGED_STEPS)):
            start = f"sft-{stage}-w{width}"
            early = stage == "early"
            yield Cell("d", start, one_layer(width, steps), before if early else None)
            for k, paper in after.items():
                name = f"grpo-{stage}-w{width}-k{k}"
                yield Cell("d", name, grpo(k), paper if early else None, start)
    sampled = (
        *("eval", "cot", WORDS, "--model", "tiny:gpt2:1x1x24", "--samples", "16"),
        *("--vote", "first", "--temperature", "1.0"),
    )
    yield Cell("e", "pass-at-k-discrete-w24", sampled, 30.28, "sft-early-w24")
    one_shot = (
        *("train", "mts-grpo", LATENT, "--model", "tiny:gpt2:1x1x24"),
        *("--steps", str(SUPERVISED_STEPS), "--save-every", "2000"),
    )
    yield Cell("e", "cot2-1l1h-w24", one_shot, 88.61)


def run(cell: Cell, out: Path, seed: int) -> None:
    """Run a cell for one seed unless its result is there; a killed run goes on."""
    where = folder(out, cell.name, seed)
    if (where / "result.json").exists():
        return
    command = cell.command(out, seed)
    if command[0] == "train":
        command.append("--resume")
    where.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-c", "from latentgym.cli.main import run; run()", *command],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr[-2000:]}")


def record(cell: Cell, out: Path, seeds: Sequence[int]) -> dict[str, Any]:
    """Mean and interval of a cell over seeds, in per cent, with its metrics."""
    results = [load_result(folder(out, cell.name, seed)) for seed in seeds]
    accuracies = [100 * r.accuracy for r in results]
    mean, low, high = mean_interval(accuracies)
    metrics = {
        name: 100 * sum(r.metrics[name] for r in results) / len(results)
        for name in results[0].metrics
        if name.startswith("pass@")
    }
    return {
        "part": cell.part,
        "name": cell.name,
        "mean": round(mean, 2),
        "ci95": [round(low, 2), round(high, 2)],
        "by_seed": [round(a, 2) for a in accuracies],
        "paper": cell.paper,
        **({"pass_at_k": {k: round(v, 2) for k, v in metrics.items()}} if metrics else {}),
        **entropies(cell, out, seeds),
        "command": " ".join(["latentgym", *cell.command(Path("runs/cot2"), 0)]),
    }


def entropies(cell: Cell, out: Path, seeds: Sequence[int]) -> dict[str, Any]:
    """Mean entropy of the policy's steps at the beginning and the end of policy gradient."""
    if "grpo" not in cell.name:
        return {}
    first, last = [], []
    for seed in seeds:
        lines = (folder(out, cell.name, seed) / "metrics.jsonl").read_text().splitlines()
        values = [json.loads(line)["train/entropy"] for line in lines]
        first.append(values[0])
        last.append(sum(values[-3:]) / 3)
    return {
        "entropy_before": round(sum(first) / len(first), 4),
        "entropy_after": round(sum(last) / len(last), 4),
    }


def main() -> None:
    """Run the chosen parts and write the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", nargs="+", default=list("abcde"), choices=list("abcde"))
    parser.add_argument("--match", default="", help="only cells whose name holds this")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=1, help="processes at once")
    parser.add_argument("--out", type=Path, default=Path("runs/cot2"))
    parser.add_argument("--record", type=Path, default=Path("benchmarks/records"))
    o = parser.parse_args()
    chosen = [cell for cell in cells() if cell.part in o.parts and o.match in cell.name]
    with (
        progress_bar("cot2 on MNNS", len(chosen) * len(o.seeds)) as advance,
        ThreadPoolExecutor(o.jobs) as pool,
    ):
        # What starts from another cell's model comes after it.
        for wave in (
            [c for c in chosen if c.start is None],
            [c for c in chosen if c.start is not None],
        ):
            jobs = [(cell, seed) for cell in wave for seed in o.seeds]
            for _ in pool.map(lambda job: run(job[0], o.out, job[1]), jobs):
                advance(1)
    path = o.record / "cot2_mnns.json"
    old = json.loads(path.read_text())["cells"] if path.exists() else []
    fresh = [record(cell, o.out, o.seeds) for cell in chosen]
    names = {entry["name"] for entry in fresh}
    entries = sorted(
        [entry for entry in old if entry["name"] not in names] + fresh,
        key=lambda entry: (entry["part"], entry["name"]),
    )
    o.record.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as partial:
        about = {"suite": "cot2_mnns", "seeds": o.seeds, "versions": versions()}
        data = {**about, "git": git_commit(), "cells": entries}
        partial.write_text(json.dumps(data, indent=1) + "\n")
    for entry in fresh:
        paper = "" if entry["paper"] is None else f"   paper {entry['paper']:.2f}"
        low, high = entry["ci95"]
        print(f"{entry['name']:28} {entry['mean']:6.2f} [{low:.2f}, {high:.2f}]{paper}")


if __name__ == "__main__":
    main()
