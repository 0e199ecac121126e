"""The record of a suite: mean and 95 % interval over seeds, the paper's figure, the command."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from latentgym.errors import UsageError
from latentgym.evaluation.comparison import compare
from latentgym.evaluation.results import (
    METRICS,
    Result,
    accuracy_interval,
    load_result,
    load_rollouts,
)
from latentgym.evaluation.stats import mean_interval, seed_interval
from latentgym.evaluation.suites.cells import Cell, folder


def record(cell: Cell, out: Path, seeds: Sequence[int], shown: Path) -> dict[str, Any]:
    """Mean and interval of a cell over seeds, in per cent; thoughts an answer, with their interval.

    Args:
        cell: the cell.
        out: folder of the suite's runs.
        seeds: which of them.
        shown: the folder that the recorded command names.
    """
    results = [load_result(folder(out, cell.name, seed)) for seed in seeds]
    accuracies, n = [r.accuracy for r in results], min(r.n for r in results)
    mean, low, high = accuracy_interval(results)
    more: dict[str, Any] = {
        name: _mean(_each(results, key))
        for name, key in _ANSWERS.items()
        if key in results[0].metrics
    }
    ranking = {
        name: [round(value, 4) for value in seed_interval(_each(results, name), n)]
        for name in _RANKING
        if name in results[0].metrics
    }
    if ranking:
        if len(results) == 1:  # over the questions
            more["ranking_ci95"] = {n: results[0].metrics_ci95[n] for n in ranking}
        more["ndcg_by_seed"] = [round(value, 4) for value in _each(results, "ndcg@5")]
    lengths = [r.forward_positions["thought"] for r in results]
    latents, samples, right = (
        {name: _each(results, name) for name in _names(results) if name.startswith(group)}
        for group in ("latent/", "samples/", "pass@")
    )
    if right:
        more["pass_at_k"] = {k: round(100 * statistics.fmean(v), 2) for k, v in right.items()}
        more["pass_at_k_by_seed"] = {
            k: [round(100 * x, 2) for x in v] for k, v in right.items() if len(v) == len(results)
        }
    if samples:
        more["samples"] = {name: _mean(values) for name, values in samples.items()}
    return {
        "part": cell.part,
        "name": cell.name,
        "mean": round(100 * mean, 2),
        "ci95": [round(100 * low, 2), round(100 * high, 2)],
        "by_seed": [round(100 * a, 2) for a in accuracies],
        "seeds": list(seeds),
        "n": n,
        "paper": cell.paper,
        **more,
        **({"ranking": ranking} if ranking else {}),
        "thoughts": [round(value, 2) for value in mean_interval(lengths)],
        **({"latents": {name: _mean(v) for name, v in latents.items()}} if latents else {}),
        "flops": _mean(r.flops_per_answer for r in results),
        **_paired(cell, out, seeds),
        **_search(cell, out, seeds),
        **curves(cell, out, seeds),
        **({"curve": _logged(cell, out, seeds[0])} if cell.curve else {}),
        **({"reward_by_step": _rewards(cell, out, seeds)} if cell.curve else {}),
        "command": " ".join(["latentgym", *cell.command(shown, 0)]),
    }


def _paired(cell: Cell, out: Path, seeds: Sequence[int]) -> dict[str, Any]:
    """Of a control: points that it has more than its method, paired by question and seed."""
    if cell.of is None:
        return {}
    ours, theirs = (
        [(where, load_result(where)) for where in (folder(out, name, seed) for seed in seeds)]
        for name in (cell.name, cell.of)
    )
    d = compare(ours, theirs, cell.of).difference
    return {"paired": [round(100 * value, 2) for value in (d.mean, d.low, d.high)]}


def _search(cell: Cell, out: Path, seeds: Sequence[int]) -> dict[str, Any]:
    """Of a search at test time: its numbers, what it cost, and what it has after k iterations."""
    results = [load_result(folder(out, cell.name, seed)) for seed in seeds]
    if cell.argv[0] != "eval":
        return {}
    cost = {"gflop": _mean(r.flops_per_answer / 1e9 for r in results)}
    names = [name for name in _names(results) if name.startswith("search/")]
    if not names:
        return cost
    search = {n.removeprefix("search/"): _mean(_each(results, n)) for n in names}
    spent = {
        k: _mean(r.forward_positions[k] for r in results) for k in results[0].forward_positions
    }
    traces = [row["trace"] for s in seeds for row in load_rollouts(folder(out, cell.name, s))]
    most = max(tried["iteration"] for trace in traces for tried in trace)
    after = [0, *(2**i for i in range(most.bit_length())), most]
    right = {
        k: 100 * _mean([t["score"] for t in trace if t["iteration"] <= k][-1] for trace in traces)
        for k in sorted(set(after))
        if k <= most
    }
    return {**cost, "search": search, "positions": spent, "after_iterations": right}


def _names(results: Sequence[Result]) -> list[str]:
    """Of all metrics; one that few answers have, such as what a search changed, is not in all."""
    return list(dict.fromkeys(name for result in results for name in result.metrics))


def _each(results: Sequence[Result], name: str) -> list[float]:
    """A metric of every result that has it; those that were not finite are null in a record."""
    values = [result.metrics[name] for result in results if name in result.metrics]
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        raise UsageError(f"{name} is not finite in every result; it has no mean.")
    return known


def _mean(values: Iterable[float]) -> float:
    return round(statistics.fmean(values), 4)


# Of what was answered, beside the score.
_ANSWERS = {"f1": "reward/f1", "calls": "calls"}
_RANKING = ("hr@1", "hr@5", "hr@10", "hr@20", "ndcg@5", "ndcg@10", "ndcg@20", "mrr")
_CURVES = {
    "entropy": "train/entropy",
    "reward": "reward/score",
    "latent_share": "latent/share",
    "calls": "rollout/calls",
}


def curves(cell: Cell, out: Path, seeds: Sequence[int]) -> dict[str, Any]:
    """Entropy, reward and HRPO's latent share at the beginning and the end of policy gradient.

    Means over seeds of the first logged steps and of the last, of the policy that samples.
    """
    found: dict[str, Any] = {}
    for name, key in _CURVES.items():
        first, last = [], []
        for seed in seeds:
            values = [line[key] for line in _logged(cell, out, seed) if key in line]
            first += [sum(values[:3]) / 3] if values else []
            last += [sum(values[-3:]) / 3] if values else []
        if first:
            found[f"{name}_before"] = round(sum(first) / len(first), 4)
            found[f"{name}_after"] = round(sum(last) / len(last), 4)
    return found


def _rewards(cell: Cell, out: Path, seeds: Sequence[int]) -> list[list[float]]:
    """The reward of every logged step, of each seed."""
    key = "reward/score"
    return [[line[key] for line in _logged(cell, out, s) if key in line] for s in seeds]


def _logged(cell: Cell, out: Path, seed: int) -> list[dict[str, float]]:
    """The logged steps of a run, to four digits; none for an evaluation."""
    path = folder(out, cell.name, seed) / METRICS
    lines = path.read_text().splitlines() if path.exists() else []
    return [{k: round(v, 4) for k, v in json.loads(line).items()} for line in lines]
