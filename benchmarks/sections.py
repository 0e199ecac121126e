"""What the pages show of the records: one function a section, Markdown out.

A section whose record is missing says so, or shows the rows that there are.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from latentgym.evaluation.stats import mean_interval

RECORDS = Path(__file__).parent / "records"
Cells = Mapping[str, dict[str, Any]]


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def figure(cell: dict[str, Any]) -> str:
    """Mean and interval of a cell."""
    low, high = cell["ci95"]
    return f"{cell['mean']:.2f} [{low:.1f}, {high:.1f}]"


def paper(cell: dict[str, Any]) -> str:
    """The paper's figure, if it has one."""
    return "" if cell["paper"] is None else f"{cell['paper']:.2f}"


def length(cell: dict[str, Any]) -> str:
    """Thoughts an answer, mean and interval of a cell."""
    mean, low, high = cell["thoughts"]
    return f"{mean:.2f} [{low:.1f}, {high:.1f}]"


def change(cell: dict[str, Any], name: str) -> str:
    """A number at the beginning and at the end of a cell's training, if it has it."""
    if f"{name}_before" not in cell:
        return ""
    return f"{cell[f'{name}_before']:.3f} → {cell[f'{name}_after']:.3f}"


def suite_cells(suite: str) -> Cells:
    """The cells of a suite by name; none if it has no record."""
    path = RECORDS / f"{suite}.json"
    data = json.loads(path.read_text()) if path.exists() else {"cells": []}
    return {cell["name"]: cell for cell in data["cells"]}


def named(
    cells: Cells, names: Mapping[str, str], *columns: Callable[[dict[str, Any]], str]
) -> list[list[str]]:
    """A row for each cell that there is: its label, then what each column says of it."""
    return [
        [label, *(column(cells[name]) for column in columns)]
        for name, label in names.items()
        if name in cells
    ]


def cot2_cells() -> Cells:
    """The cells of CoT2 on MNNS."""
    return suite_cells("cot2_mnns")


def cot2_supervised() -> str:
    """Supervised comparison."""
    cells = cot2_cells()
    names = {
        "cot2-w32": "CoT2, continuous supervision",
        "discrete-w32": "discrete chain of thought",
        "no-cot-w32": "no chain of thought",
    }
    header = ["MNNS, 2 layers, width 32", "accuracy %, 3 seeds [95 %]", "paper"]
    return table(header, named(cells, names, figure, paper))


def cot2_budgets() -> str:
    """Path budgets by width."""
    cells = cot2_cells()
    same = {(1, 32): "discrete-w32", (16, 32): "cot2-w32"}  # one path is the discrete chain
    rows = []
    for paths in (1, 4, 16):
        row = [str(paths)]
        for width in (16, 24, 32):
            cell = cells.get(same.get((paths, width), f"budget-{paths}-w{width}"))
            shown = f" (paper {paper(cell)})" if cell and cell["paper"] else ""
            row.append("not run" if cell is None else figure(cell) + shown)
        rows.append(row)
    return table(["paths B", "width 16", "width 24", "width 32"], rows)


def cot2_grpo() -> str:
    """Policy gradient from discrete starts."""
    cells = cot2_cells()
    rows = []
    for start in ("early-w24", "converged-w24", "early-w32", "converged-w32"):
        if f"sft-{start}" in cells:
            cell = cells[f"sft-{start}"]
            rows.append([start, "start (discrete SFT)", figure(cell), paper(cell), ""])
        for k in (1, 3, 6):
            cell = cells.get(f"grpo-{start}-k{k}")
            if cell:
                fall = f"{cell['entropy_before']:.2f} → {cell['entropy_after']:.2f}"
                rows.append([start, f"MTS-GRPO, K = {k}", figure(cell), paper(cell), fall])
    return table(["start", "", "accuracy %, 3 seeds [95 %]", "paper", "entropy"], rows)


def cot2_pass_at_k() -> str:
    """Samples of the discrete model against one continuous shot."""
    cells = cot2_cells()
    rows = []
    if "pass-at-k-discrete-w24" in cells:
        cell = cells["pass-at-k-discrete-w24"]
        for name, value in cell["pass_at_k"].items():
            rows.append([f"discrete, T = 1, {name}", f"{value:.2f}"])
    if "cot2-1l1h-w24" in cells:
        rows.append(["CoT2, one shot (paper 88.61)", figure(cells["cot2-1l1h-w24"])])
    return table(["1 layer, 1 head, width 24", "accuracy %"], rows)


def cot2_prosqa() -> str:
    """The search in graphs."""
    cells = suite_cells("cot2_prosqa")
    names = {
        "cot2": "CoT2, continuous supervision",
        "discrete": "discrete chain of thought",
        "no-cot": "no chain of thought",
    }
    rows = []
    for name, label in names.items():
        cell = cells.get(name)
        row = ["not run", "", ""] if cell is None else [figure(cell), str(len(cell["by_seed"]))]
        rows.append([label, *row[:2], paper(cell) if cell else ""])
    return table(["ProsQA, released test questions", "accuracy % [95 %]", "seeds", "paper"], rows)


def hybrid_hrpo() -> str:
    """HRPO beside token GRPO, and its controls."""
    cells = suite_cells("hybrid_chains")
    names = {
        "cot-early": "start: token chain, stopped early",
        "token-grpo": "token GRPO",
        "hrpo": "HRPO",
        "hrpo-word": "HRPO, gate closed when answering",
        "hrpo-zero": "HRPO, soft embedding zeroed",
        "hrpo-shuffle": "HRPO, soft embedding of another row",
        "hrpo-noise": "HRPO, noise of the same norm",
    }
    reward, share = (partial(change, name=name) for name in ("reward", "latent_share"))
    header = ["generated chains, 5 seeds", "accuracy % [95 %]", "reward", "latent share"]
    parts = [table(header, named(cells, names, figure, reward, share))]
    if {"hrpo", "token-grpo"} <= cells.keys():
        pairs = zip(cells["hrpo"]["by_seed"], cells["token-grpo"]["by_seed"], strict=True)
        mean, low, high = mean_interval([ours - theirs for ours, theirs in pairs])
        parts.append(
            f"HRPO less token GRPO, seed by seed: {mean:+.2f} points [{low:+.2f}, {high:+.2f}]."
        )
    return "\n\n".join(parts)


def hybrid_colar() -> str:
    """CoLaR at every speed, before and after policy gradient, as in the paper's Table 1."""
    cells = suite_cells("hybrid_chains")
    rows = []
    if cot := cells.get("cot"):
        rows.append(["CoT", figure(cot), length(cot), "", ""])
    for c in range(1, 6):
        row = [f"CoLaR-{c}"]
        for stage in ("sft", "grpo"):
            cell = cells.get(f"{stage}-c{c}")
            row += ["not run", ""] if cell is None else [figure(cell), length(cell)]
        rows.append(row)
    header = ["generated chains, 5 seeds", "accuracy % [95 %]", "#L", "after GRPO", "#L"]
    return table(header, rows)


def hybrid_colar_more() -> str:
    """CoLaR's controls and ablations."""
    cells = suite_cells("hybrid_chains")
    names = {
        "grpo-c2": "CoLaR-2 after GRPO",
        "colar-zero": "thoughts zeroed",
        "colar-pause": "the same pause at every step",
        "colar-shuffle": "thoughts of another row",
        "colar-noise": "noise of the same norm",
        "sft-c2": "CoLaR-2 before GRPO",
        "colar-dl": "deterministic thoughts (DL), 3 seeds",
        "colar-mp": "mean pooling (MP), 3 seeds",
        "colar-nll": "likelihood in the place of soft-MSE (NLL), 3 seeds",
    }
    return table(["", "accuracy % [95 %]", "#L"], named(cells, names, figure, length))


def hrpo_gsm8k() -> str:
    """The curve of HRPO on GSM8K with a language model."""
    cells = suite_cells("hrpo_gsm8k")
    if not {"hrpo", "before"} <= cells.keys():
        return "Not run."
    shown = {
        "reward/score": "reward",
        "latent/share": "latent share",
        "train/kl": "divergence",
        "train/entropy": "entropy",
        "rollout/thoughts": "thoughts",
        "train/groups_without_signal": "groups without signal",
    }
    rows = [[str(s["step"]), *(f"{s[k]:.3f}" for k in shown)] for s in cells["hrpo"]["curve"]]
    before, after = figure(cells["before"]), figure(cells["hrpo"])
    return (
        f"Test accuracy, first 40 questions: {before} before, {after} after.\n\n"
        f"{table(['step', *shown.values()], rows)}"
    )


def coconut() -> str:
    """Coconut beside its controls."""
    cells = suite_cells("coconut_chains")
    names = {
        "cot": "chain of thought in words, the start of all others",
        "coconut": "Coconut",
        "pause": "pause as thought",
        "no-thought": "without thought",
        "no-cot": "answer alone",
        "coconut-zero": "Coconut, latents zeroed when answering",
        "coconut-shuffle": "Coconut, latents of another row",
        "coconut-noise": "Coconut, noise of the same norm",
    }

    def each(cell: dict[str, Any]) -> str:
        return ", ".join(f"{value:.1f}" for value in cell["by_seed"])

    header = ["generated chains", "accuracy % [95 %]", "by seed", "paper (GPT-2, GSM8K)"]
    return table(header, named(cells, names, figure, each, paper))


def rollout_bench() -> str:
    """Speed of the engine."""
    (report,) = json.loads((RECORDS / "bench_rollout.json").read_text())
    s = report["settings"]
    rows = [[name, f"{ms:.3g}"] for name, ms in report["ms_per_step"].items()]
    ratios = [[name, f"{value:.3g}"] for name, value in report["ratios"].items()]
    scaling = report["scaling"]
    about = (
        f"{report['model']}, prompt {s['prompt']}, {s['new']} new, group {s['group']}, "
        f"{report['dtype'].removeprefix('torch.')}, {report['device']}, "
        f"{report['threads']} threads, {s['rounds']} rounds; `latentgym bench rollout`."
    )
    exponents = (
        f"Cost of a step grows with prompt length to the power {scaling['exponent_prompt']:.2f} "
        f"and with thought length to the power {scaling['exponent_thoughts']:.2f} "
        "(attention's own is at most 1)."
    )
    tables = [table(["", "ms per step"], rows), table(["ratio", "median"], ratios)]
    if "precision" in report:
        apart = [[name, f"{value:.2g}"] for name, value in report["precision"].items()]
        tables.append(table(["rollout in bfloat16 beside its replay", ""], apart))
    return "\n\n".join([about, *tables, exponents])


def train_bench() -> str:
    """A GRPO step beside a peer's."""
    (report,) = json.loads((RECORDS / "bench_train.json").read_text())
    s, ms, ratios = report["settings"], report["ms_per_step"], report["ratios"]
    stages = {"": "whole step", ", rollouts": "rollouts, graded", ", update": "replay and update"}
    names = [name for name in ms if ", " not in name]
    rows = [
        [
            name if name == "TRL" else f"latentgym {name}",
            label,
            f"{ms[name + stage] / 1000:.1f}",
            f"{ratios[f'TRL / {name}{stage}']:.1f}" if name != "TRL" else "",
        ]
        for name in names
        for stage, label in stages.items()
    ]
    about = (
        f"{report['model']}, {s['prompts']} prompts of {max(report['prompt_tokens'])} tokens, "
        f"group {s['group']}, {s['new']} tokens each, {s['micro_batch']} rows in a forward pass, "
        f"{report['dtype'].removeprefix('torch.')}, {report['device']}, {report['threads']} "
        f"threads, {s['rounds']} rounds, {report['peer']}; `latentgym bench train`."
    )
    header = ["", "stage", "seconds", "TRL's time over it"]
    return f"{about}\n\n{table(header, rows)}"


def language_model() -> str:
    """A language model as it is, words against mixtures."""
    rows = []
    for path in sorted((RECORDS / "smollm2").glob("*.json")):
        r = json.loads(path.read_text())
        low, high = r["accuracy_ci95"]
        rows.append(
            [
                r["task"],
                r["agent"] if r["control"] is None else f"{r['agent']} ({r['control']})",
                str(r["n"]),
                f"{100 * r['accuracy']:.1f} [{100 * low:.1f}, {100 * high:.1f}]",
                f"{r['thoughts_mean']:.0f}",
                f"{r['flops_per_answer'] / 1e9:.0f}",
            ]
        )
    header = ["SmolLM2-135M-Instruct", "agent", "n", "accuracy % [95 %]", "thoughts", "GFLOP"]
    return table(header, rows)


def openrlhf() -> str:
    """The OpenRLHF backend: what it learns, and how fast."""
    parts = []
    path = RECORDS / "openrlhf_mnns.json"
    if path.exists():
        cells = {cell["name"]: cell for cell in json.loads(path.read_text())["cells"]}
        names = {"start": "start (discrete SFT)", "local": "local backend"}
        names["openrlhf-2"] = "OpenRLHF, 2 workers on the CPU"
        rows = named(cells, names, figure)
        about = "MTS-GRPO on MNNS, 100 steps; `latentgym suite run openrlhf`."
        parts += [about, table(["", "accuracy %, 3 seeds [95 %]"], rows)]
    path = RECORDS / "openrlhf_scaling.json"
    if path.exists():
        report = json.loads(path.read_text())
        s = report["settings"]
        rows = [
            [
                f"OpenRLHF, workers: {row['workers']}" if row["workers"] else "local backend",
                f"{row['step_s']:.2f}",
                f"{row['rollout_s']:.2f}",
                ", ".join(map(str, row["worker_mb"])),
            ]
            for row in report["rows"]
        ]
        about = (
            f"Seconds per step and most memory per worker on two cores: {s['model']}, "
            f"{s['prompts']} questions of {s['group']} episodes, MNNS; "
            "`python -m benchmarks.openrlhf_scaling`."
        )
        parts += [about, table(["", "s per step", "of it rollout", "MiB per worker"], rows)]
    return "\n\n".join(parts)


def headline() -> str:
    """Speed, as the README tells it."""
    (report,) = json.loads((RECORDS / "bench_rollout.json").read_text())
    ratio = report["ratios"]
    speed = (
        f"Rollouts on two shared CPU cores (SmolLM2-135M, prompt 256, 64 new, group 8, fp32): "
        f"{ratio['generate / token rollout']:.1f} times transformers' `generate`, "
        f"{ratio['no cache / token rollout']:.0f} times a loop without cache; a step of "
        f"multi-token thoughts costs {ratio['mts-8 step / token step']:.2f} of a token step."
    )
    (report,) = json.loads((RECORDS / "bench_train.json").read_text())
    step = (
        f"A GRPO step in words on the same model (2 prompts, group 8, 64 tokens) takes TRL "
        f"{report['ratios']['TRL / cot']:.1f} times as long as this library."
    )
    return f"{speed} {step}"


SECTIONS: Mapping[str, Callable[[], str]] = {
    "results": headline,
    "bench": rollout_bench,
    "bench-train": train_bench,
    "cot2-supervised": cot2_supervised,
    "cot2-budgets": cot2_budgets,
    "cot2-grpo": cot2_grpo,
    "cot2-pass-at-k": cot2_pass_at_k,
    "cot2-prosqa": cot2_prosqa,
    "hybrid-hrpo": hybrid_hrpo,
    "hybrid-colar": hybrid_colar,
    "hrpo-gsm8k": hrpo_gsm8k,
    "hybrid-colar-more": hybrid_colar_more,
    "coconut": coconut,
    "language-model": language_model,
    "openrlhf": openrlhf,
}
