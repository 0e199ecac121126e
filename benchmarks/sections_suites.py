"""What the pages show of the suites that compare methods: `mnns`, `small-lm`, `chain-sum`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from benchmarks.sections import Cells, figure, named, suite_cells, table
from latentgym.evaluation.columns import short
from latentgym.evaluation.equal_cost import at_cost, equal_costs
from latentgym.evaluation.stats import mean_interval

MNNS = {
    "start": "supervised chain, stopped early: the start of all others",
    "votes-samples-2": "votes of 2",
    "votes-samples-4": "votes of 4",
    "votes-samples-8": "votes of 8",
    "votes-samples-16": "votes of 16",
    "best-of-n-samples-2": "best of 2, by confidence",
    "best-of-n-samples-4": "best of 4",
    "best-of-n-samples-8": "best of 8",
    "best-of-n-samples-16": "best of 16",
    "latentseek-iterations-1": "LatentSeek, 1 iteration",
    "latentseek-iterations-2": "LatentSeek, 2 iterations",
    "latentseek-iterations-4": "LatentSeek, 4 iterations",
    "latentseek-iterations-8": "LatentSeek, 8 iterations",
    "soft-thinking": "Soft Thinking, no training",
    "swireasoning": "SwiReasoning, no training",
    "ltpo-steps-0": "LTPO, no steps",
    "ltpo-steps-1": "LTPO, 1 step",
    "ltpo-steps-10": "LTPO, 10 steps",
    "cot": "chain of thought, trained on",
    "cot2": "CoT2, continuous supervision",
    "coconut": "Coconut",
    "colar": "CoLaR, supervised",
    "latentr3": "LatentR3, supervised",
    "token-grpo": "GRPO over tokens",
    "hrpo": "HRPO",
    "tarpo": "TARPO",
    "mts-grpo": "MTS-GRPO (CoT2)",
    "multiplex": "Multiplex Thinking",
    "soft-grpo": "SofT-GRPO",
    "soft-tokens": "Soft Tokens",
}
"""Cells of `mnns` that are no controls, with what they are called."""
HEADLINE = ("start", "votes-samples-16", "soft-thinking", "swireasoning", "cot", "cot2")
HEADLINE += ("coconut", "colar", "latentr3", "token-grpo", "hrpo", "tarpo", "mts-grpo")
HEADLINE += ("multiplex", "soft-grpo", "soft-tokens")
"""Those of them that the README shows."""
CONTROLS = ("word", "zero", "shuffle", "noise")
GAIN = "points over the start, paired by seed"
_TASKS = ("RG_chain_sum", "RG_products", "RG_gcd", "RG_letter_counting")
_METHODS = {
    "cot": "greedy chain of thought",
    "votes-samples-2": "votes of 2",
    "votes-samples-4": "votes of 4",
    "soft-thinking": "Soft Thinking",
    "best-of-n-samples-2": "best of 2, self-reward",
    "best-of-n-samples-4": "best of 4, self-reward",
    "latentseek-iterations-1": "LatentSeek, 1 iteration",
    "latentseek-iterations-2": "LatentSeek, 2 iterations",
}
_KNOBS = {
    "votes-samples": "votes",
    "best-of-n-samples": "best of n",
    "latentseek-iterations": "LatentSeek",
    "ltpo-steps": "LTPO",
}
_FREE = {
    "cot": "greedy chain of thought",
    "at-once": "no chain: the answer at once",
    "votes-2": "votes of 2",
    "votes-4": "votes of 4",
    "soft-thinking": "Soft Thinking",
    "cold-stop": "Soft Thinking with cold stop",
    "swireasoning": "SwiReasoning",
    "ltpo-0": "LTPO, no steps: 8 padding tokens",
    "ltpo-10": "LTPO, 10 steps",
    "ltpo-40": "LTPO, 40 steps",
    "ltpo-reserved-0": "LTPO, no steps: 8 reserved tokens",
    "ltpo-reserved-10": "LTPO, reserved tokens, 10 steps",
    "latentseek-1": "LatentSeek, 1 iteration",
}


def every_method(suite: str, task: str, labels: Mapping[str, str], *, apart: bool = False) -> str:
    """Cells of a suite that all go on from its start, beside that.

    Args:
        suite: the name of its record.
        task: for the header.
        labels: what cells are called.
        apart: the starts of the seeds are so unlike that accuracies are told for each.
    """
    cells = suite_cells(suite)
    accuracy = by_seed if apart else figure
    columns = (accuracy, partial(gain, cells["start"]), flop, thoughts)
    header = [f"{task}, every method from one start, 3 seeds"]
    header += ["accuracy % by seed" if apart else "accuracy % [95 %]", GAIN]
    header += ["FLOP an answer", "thoughts, of all samples"]
    return table(header, named(cells, labels, *columns))


def with_controls(suite: str, labels: Mapping[str, str]) -> str:
    """What replacing the thoughts of a suite's cells changes, where that was run."""
    cells = suite_cells(suite)
    there = [c for c in CONTROLS if any(f"{name}-{c}" in cells for name in labels)]
    rows = [
        [label, *(paired(cells, f"{name}-{control}") for control in there)]
        for name, label in labels.items()
        if any(f"{name}-{control}" in cells for control in there)
    ]
    return table(["points with other thoughts [95 %]", *there], rows)


def mnns_equal_cost() -> str:
    """Methods with a knob at equal cost."""
    cells = suite_cells("mnns")
    points = {
        label: [(cells[name]["flops"], cells[name]["mean"]) for name in names]
        for label, names in curves(cells).items()
    }
    costs = equal_costs(points)
    rows = []
    for label in _KNOBS.values():
        read = [at_cost(points[label], cost) for cost in costs]
        rows.append([label, *("" if value is None else f"{value:.2f}" for value in read)])
    return table(["accuracy % at FLOP an answer", *map(short, costs)], rows)


def small_lm() -> str:
    """A language model as it is, on easy tasks."""
    cells = suite_cells("small_lm")

    def shown(title: str, column: Callable[[dict[str, Any]], str]) -> str:
        rows = [
            [label, *(_at(cells, f"{name}/{task}", column) for task in _TASKS)]
            for name, label in _METHODS.items()
        ]
        return table([title, *_TASKS], rows)

    return f"{shown('accuracy % [95 %]', figure)}\n\n{shown('FLOP an answer', flop)}"


def small_lm_controls() -> str:
    """What replacing the mixtures of Soft Thinking changes."""
    cells = suite_cells("small_lm")
    rows = [
        [control, *(paired(cells, f"soft-thinking-{control}/{task}") for task in _TASKS)]
        for control in CONTROLS
    ]
    return table(["Soft Thinking with, points [95 %]", *_TASKS], rows)


def small_lm_free() -> str:
    """What needs no training, on more questions of one task."""
    cells = suite_cells("small_lm")
    names = {f"free/{name}": label for name, label in _FREE.items()}
    votes = [cells[f"free/{name}"] for name in ("cot", "votes-2", "votes-4")]
    points = [(cell["flops"], cell["mean"]) for cell in votes]

    def beside(cell: dict[str, Any]) -> str:
        value = None if cell in votes else at_cost(points, cell["flops"])
        return "" if value is None else f"{value:.2f}"

    rows = named(cells, names, figure, flop, beside, thoughts)
    header = ["RG_letter_counting, 200 questions", "accuracy % [95 %]", "FLOP an answer"]
    return table([*header, "votes at that cost", "thoughts, of all samples"], rows)


def seeds(cell: dict[str, Any]) -> str:
    """How many a cell has."""
    return str(len(cell["seeds"]))


def by_seed(cell: dict[str, Any]) -> str:
    """Accuracy of each seed."""
    return ", ".join(f"{share:.1f}" for share in cell["by_seed"])


def flop(cell: dict[str, Any]) -> str:
    """FLOPs an answer."""
    return short(cell["flops"])


def thoughts(cell: dict[str, Any]) -> str:
    """Thoughts an answer, of all its samples."""
    return f"{cell['thoughts'][0]:.1f}"


def gain(start: dict[str, Any], cell: dict[str, Any]) -> str:
    """Points that a cell has more than its start, paired by seed, as text."""
    return "" if cell is start else "{:+.2f} [{:+.1f}, {:+.1f}]".format(*gained(start, cell))


def gained(start: dict[str, Any], cell: dict[str, Any]) -> tuple[float, float, float]:
    """Those points, with their interval."""
    return more(cell["by_seed"], start["by_seed"])


def more(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float, float]:
    """How much more one has than another, mean and interval over seeds that are paired."""
    return mean_interval([own - its for own, its in zip(ours, theirs, strict=True)])


def _at(cells: Cells, name: str, shown: Callable[[dict[str, Any]], str]) -> str:
    return shown(cells[name]) if name in cells else "not run"


def paired(cells: Cells, name: str) -> str:
    """A control less its method."""
    if name not in cells:
        return ""
    mean, low, high = cells[name]["paired"]
    return f"{mean:+.2f} [{low:+.1f}, {high:+.1f}]"


def curves(cells: Cells) -> dict[str, list[str]]:
    """Cells of `mnns` by what they are called: the values of a knob, by cost, or one."""
    found: dict[str, list[str]] = {}
    for name, label in MNNS.items():
        if name in cells:
            found.setdefault(_KNOBS.get(name.rpartition("-")[0], label), []).append(name)
    for own in found.values():
        own.sort(key=lambda name: cells[name]["flops"])
    return found


CHAIN_SUM = {
    "words": "as it is, in words",
    "mixtures": "as it is, Soft Thinking",
    "grpo": "GRPO over tokens",
    "hrpo": "HRPO",
    "mts-grpo": "MTS-GRPO (CoT2), temperature 1",
    "mts-grpo-cool": "MTS-GRPO, temperature .5",
}
"""Cells of `chain-sum` that are no controls, with what they are called."""


def chain_sum() -> str:
    """A language model that learns: what it knows of held-out questions before and after."""
    cells = suite_cells("chain_sum")
    columns = (seeds, figure, _rise, flop)
    header = ["SmolLM2-135M on sums of two numbers", "seeds", "greedy, test % [95 %]"]
    rows = named(cells, CHAIN_SUM, *columns)
    return table([*header, "reward of samples, first and last steps", "FLOP an answer"], rows)


def _rise(cell: dict[str, Any]) -> str:
    if "reward_before" not in cell:
        return ""
    return f"{cell['reward_before']:.2f} → {cell['reward_after']:.2f}"


SECTIONS: Mapping[str, Callable[[], str]] = {
    "chain-sum": chain_sum,
    "chain-sum-controls": partial(with_controls, "chain_sum", CHAIN_SUM),
    "mnns": partial(every_method, "mnns", "MNNS", MNNS),
    "mnns-controls": partial(with_controls, "mnns", MNNS),
    "mnns-equal-cost": mnns_equal_cost,
    "mnns-headline": partial(every_method, "mnns", "MNNS", {n: MNNS[n] for n in HEADLINE}),
    "small-lm": small_lm,
    "small-lm-controls": small_lm_controls,
    "small-lm-free": small_lm_free,
}
