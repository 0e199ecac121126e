"""The columns of tables of results: of the terminal's, the page's, and those in files."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from latentgym.evaluation.results import TROUBLES, Result

Run = tuple[Path, Result]
"""The folder of a result, and the result."""

Value = str | float | int | bool | None
Kind = Literal["text", "share", "count", "number", "flag"]


@dataclass(frozen=True)
class Column:
    """A column of a table of results.

    Attributes:
        name: in files and addresses, such as `latent_share`.
        title: above the column.
        about: what it is, with its unit, for whoever asks.
        kind: text; a share in [0, 1], shown in per cent; a whole number; any number; yes or no.
        value: of a run; None where it has none.
    """

    name: str
    title: str
    about: str
    kind: Kind
    value: Callable[[Run], Value]


def run_name(folder: Path) -> str:
    """The name of a run: its folder's, with the one above where it is named by its seed alone."""
    name = folder.name or folder.resolve().name or str(folder)
    above = folder.resolve().parent.name
    return f"{above}/{name}" if above and re.fullmatch(r"seed-\d+", name) else name


def malformed(r: Result) -> float:
    """Share of the answers that could not be compared: none given, not readable, too long."""
    return sum(r.metrics.get(f"status/{status}") or 0.0 for status in TROUBLES)


def _metric(name: str) -> Callable[[Run], Value]:
    return lambda run: run[1].metrics.get(name)


@dataclass(frozen=True)
class Cost:
    """What an answer costs.

    Attributes:
        title: in sentences.
        of: the cost of a run, a mean over its answers.
    """

    title: str
    of: Callable[[Result], float]


COSTS: Mapping[str, Cost] = {
    "flops": Cost("FLOP", lambda r: r.flops_per_answer),
    "positions": Cost("forward positions", lambda r: sum(r.forward_positions.values())),
    "seconds": Cost("seconds", lambda r: 1 / r.answers_per_s if r.answers_per_s else math.nan),
}
"""By name. The first two are counted, seconds are those of the machine."""


def _cost(name: str) -> Callable[[Run], Value]:
    return lambda run: COSTS[name].of(run[1])


COLUMNS = (
    Column("run", "run", "folder of the run", "text", lambda run: run_name(run[0])),
    Column("agent", "agent", "method", "text", lambda run: run[1].agent),
    Column("model", "model", "language model", "text", lambda run: run[1].model),
    Column("task", "task", "task", "text", lambda run: run[1].task),
    Column("split", "split", "split of the questions", "text", lambda run: run[1].split),
    Column("source", "source", "where the questions are from", "text", lambda run: run[1].source),
    Column("family", "family", "what actions are", "text", lambda run: run[1].family),
    Column("env", "environment", "id of the environment", "text", lambda run: run[1].env),
    Column("control", "control", "what replaced thoughts", "text", lambda run: run[1].control),
    Column("trained", "trained", "from a checkpoint", "flag", lambda run: bool(run[1].checkpoint)),
    Column("oracle", "oracle", "gold chose the answer", "flag", lambda run: run[1].oracle),
    Column("accuracy", "accuracy", "mean score", "share", lambda run: run[1].accuracy),
    Column("low", "low", "of the 95 % interval", "share", lambda run: run[1].accuracy_ci95[0]),
    Column("high", "high", "of the 95 % interval", "share", lambda run: run[1].accuracy_ci95[1]),
    Column("n", "n", "questions", "count", lambda run: run[1].n),
    Column("seeds", "seeds", "each answers all questions", "count", lambda run: len(run[1].seeds)),
    Column("hr@5", "HR@5", "right one among five", "share", _metric("hr@5")),
    Column("ndcg@5", "NDCG@5", "of the right one among five", "share", _metric("ndcg@5")),
    Column(
        "flops", "FLOP", "operations an answer", "number", lambda run: COSTS["flops"].of(run[1])
    ),
    Column(
        "positions",
        "positions",
        "forward positions an answer",
        "number",
        _cost("positions"),
    ),
    Column(
        "latent_share",
        "latent share",
        "of the steps, in latents",
        "share",
        lambda run: run[1].latent_share,
    ),
    Column("thoughts", "thoughts", "an answer", "number", lambda run: run[1].thoughts_mean),
    Column("tokens", "tokens", "of an answer", "number", lambda run: run[1].tokens_mean),
    Column(
        "malformed",
        "malformed",
        "answers that could not be compared, of all",
        "share",
        lambda run: malformed(run[1]),
    ),
    Column(
        "truncated", "truncated", "answers out of budget, of all", "share", _metric("truncated")
    ),
    Column(
        "wall_s", "seconds", "wall clock of the evaluation", "number", lambda run: run[1].wall_s
    ),
    Column(
        "answers_per_s", "answers/s", "by wall clock", "number", lambda run: run[1].answers_per_s
    ),
    Column("device", "device", "where it ran", "text", lambda run: run[1].device),
    Column(
        "trained_on",
        "trained on",
        "questions that training saw too",
        "count",
        lambda run: run[1].trained_on,
    ),
    Column("created", "created", "time of the record, UTC", "text", lambda run: run[1].created),
    Column("git", "commit", "of the source tree", "text", lambda run: run[1].git),
    Column("command", "command", "that makes it again", "text", lambda run: run[1].command or None),
    Column(
        "version",
        "version",
        "of latentgym",
        "text",
        lambda run: run[1].versions.get("latentgym"),
    ),
)
"""All columns, in the order in which a wide table has them."""

BY_NAME = {column.name: column for column in COLUMNS}


def shown(column: Column, run: Run) -> str:
    """A cell for people: shares in per cent, numbers to three digits, yes or nothing."""
    value = column.value(run)
    if value is None or value is False:
        return ""
    if column.kind == "share":
        return f"{100 * float(value):.2f}"
    if column.kind == "number":
        return short(float(value))
    return "yes" if column.kind == "flag" else str(value)


def short(number: float) -> str:
    """Three digits, with k, M, G, T for thousands and what follows them."""
    for prefix in ("", "k", "M", "G", "T"):
        if abs(number) < 999.5:
            return f"{number:.3g}{prefix}"
        number /= 1000
    return f"{1000 * number:.3g}T"
