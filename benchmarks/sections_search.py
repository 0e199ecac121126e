"""What the pages show of searches at test time."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.sections import RECORDS, figure, paper, suite_cells, table

_TASKS = {
    "gsm8k": "GSM8K, boxed",
    "json": "GSM8K, JSON",
    "math": "MATH-500, boxed",
    "aime": "AIME 2024, boxed",
}
_METHODS = {
    "cot": "greedy chain of thought",
    "bon3": "best of 3, self-reward",
    "self": "LatentSeek, self-reward",
    "psrm": "LatentSeek, PSRM (oracle)",
}
_RIVALS = {
    "gsm8k-cot": "greedy chain of thought",
    "self-consistency": "self-consistency at the cost of LatentSeek",
    "reflection": "self-reflection",
    "gsm8k-bon3": "best of 3, self-reward",
    "gsm8k-self": "LatentSeek, self-reward",
    "confidence": "LatentSeek, confidence",
    "constant": "LatentSeek, constant reward (control)",
    "noise": "noise on the latents, self-reward (control)",
    "gsm8k-psrm": "LatentSeek, PSRM (oracle)",
    "noise-psrm": "noise on the latents, PSRM (oracle, control)",
}


def latentseek() -> str:
    """The paper's table, and what the searches did."""
    cells = suite_cells("latentseek")
    rows = [
        [label, method, str(cells[name]["n"]), figure(cells[name]), paper(cells[name])]
        for task, label in _TASKS.items()
        for kind, method in _METHODS.items()
        if (name := f"{task}-{kind}") in cells
    ]
    header = ["task", "method", "questions", "accuracy % [95 %]", "paper, mean of six models"]
    did = [
        [label, method, *_did(cells[name])]
        for task, label in _TASKS.items()
        for kind, method in _METHODS.items()
        if "search" in cells.get(name := f"{task}-{kind}", {})
    ]
    about = [
        *("task", "method", "iterations", "tokens changed a step", "reward agrees with grader, %"),
        *("gained / lost, %", "repair of format in the gain, %", "GFLOP an answer"),
    ]
    return f"{table(header, rows)}\n\n{table(about, did)}"


def _did(cell: dict[str, Any]) -> list[str]:
    search, gained = cell["search"], cell["search"]["gained"]
    return [
        f"{search['iterations']:.2f}",
        f"{search['changed']:.1f}" if search.get("changed") else "",
        f"{100 * search['first_agreement']:.1f}",
        f"{100 * gained:.1f} / {100 * search['lost']:.1f}",
        f"{100 * search['repaired'] / gained:.0f}" if gained else "",
        f"{cell['gflop']:.0f}",
    ]


def latentseek_rivals() -> str:
    """Rivals and controls on GSM8K, with what each costs."""
    cells = suite_cells("latentseek")
    rows = [
        [label, figure(cells[name]), f"{cells[name]['gflop']:.0f}"]
        for name, label in _RIVALS.items()
        if name in cells
    ]
    return table(["GSM8K, boxed", "accuracy % [95 %]", "GFLOP an answer"], rows)


def latentseek_curve() -> str:
    """The oracle's accuracy against its iterations."""
    cell = suite_cells("latentseek").get("psrm-64")
    if cell is None:
        return "No record yet."
    after = cell["after_iterations"]
    header = [f"first {cell['n']} questions of GSM8K, iterations", *after]
    return table(header, [["PSRM, accuracy %", *(f"{value:.1f}" for value in after.values())]])


def latentseek_bench() -> str:
    """The batched search beside the plain loop."""
    path = RECORDS / "bench_latentseek.json"
    if not path.exists():
        return "No record yet."
    (report,) = json.loads(path.read_text())
    s, speed, read = (
        report[name] for name in ("settings", "questions_per_minute", "positions_per_question")
    )
    ratios, shown = report["ratios"], {"self": "self-reward", "constant": "constant reward"}
    rows = [
        [
            label,
            *(f"{speed[f'{name}, {reward}']:.2f}" for name in ("plain", "latentgym")),
            f"{ratios[f'latentgym / plain, {reward}']:.1f}",
            *(f"{read[f'{name}, {reward}']:.0f}" for name in ("plain", "latentgym")),
            f"{report['gflop_per_question'][reward]:.0f}",
            f"{report['same_answers'][reward] * s['plain']:.0f} of {s['plain']}",
        ]
        for reward, label in shown.items()
    ]
    cache = "with" if s["cached_verifiers"] else "without"
    about = (
        f"{report['model']}, {report['dtype'].removeprefix('torch.')}, GSM8K "
        f"({report['source']}), {s['questions']} questions at once against {s['plain']} one after "
        f"another, {s['new']} new tokens, {s['iterations']} iterations, verifiers of "
        f"{s['verifier']} tokens (the plain loop's {cache} a cache), {report['device']}, "
        f"{report['threads']} thread{'s' * (report['threads'] > 1)}; `latentgym bench latentseek`."
    )
    header = [
        *("", "plain, questions a minute", "latentgym", "ratio"),
        *("plain, positions a question", "latentgym", "GFLOP", "same answers"),
    ]
    return f"{about}\n\n{table(header, rows)}"


SECTIONS: Mapping[str, Callable[[], str]] = {
    "bench-latentseek": latentseek_bench,
    "latentseek": latentseek,
    "latentseek-rivals": latentseek_rivals,
    "latentseek-curve": latentseek_curve,
}
