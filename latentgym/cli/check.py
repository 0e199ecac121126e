"""`latentgym leaderboard --check`: whether records, which others may have sent, say what is so.

A record must be whole and sealed, its rollouts those that it tells of, and its numbers what they
give; where its data is at hand, its answers are graded again.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import isclose
from pathlib import Path
from typing import Any

import numpy as np

from latentgym.cli.options import emit, env_model, output
from latentgym.errors import LatentGymError, OptionError, UsageError
from latentgym.evaluation.results import (
    RESULT,
    ROLLOUTS,
    Result,
    load_answers,
    load_result,
    records_in,
)
from latentgym.evaluation.stats import question_interval
from latentgym.registry import env_ids, make_vector_env, recorded, recorded_options
from latentgym.system.sealed import UnverifiedWarning
from latentgym.system.terminal import shown

_ROUNDING = 1e-6


@dataclass
class Checked:
    """What was found of a record.

    Attributes:
        path: of the record.
        faults: sentences; none where all is well.
        notes: what could not be looked at here.
    """

    path: Path
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def check(folders: Sequence[Path], as_json: bool) -> int:
    """Check all records in some folders; exit code 1 where one is at fault.

    Raises:
        UsageError: there are none.
    """
    paths = records_in(folders)
    if not paths:
        raise UsageError(f"no {RESULT} in {', '.join(map(str, folders))}; give folders with some.")
    found = [checked(path) for path in paths]
    console = output(as_json)
    for each in found:
        for fault in each.faults:
            console.print(shown(f"{each.path.parent}: {fault}"))
        for note in each.notes:
            console.print(shown(f"{each.path.parent}: note: {note}"), style="dim")
    wrong = sum(bool(each.faults) for each in found)
    console.print(shown(f"{len(found)} records, {wrong} at fault"), style="bold")
    records = [{"path": str(c.path), "faults": c.faults, "notes": c.notes} for c in found]
    emit({"records": records, "at_fault": wrong}, as_json)
    return int(wrong > 0)


def checked(path: Path) -> Checked:
    """Check one record, and what is stored beside it."""
    made = Checked(path)
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            result = load_result(path)
            rollouts = load_answers(path.parent, result)
        if any(issubclass(each.category, UnverifiedWarning) for each in told):
            made.faults.append("it has no seal; records are sealed by whoever evaluates now")
        elif ROLLOUTS not in result.files:
            made.faults.append(f"it does not have the hash of its {ROLLOUTS}")
    except LatentGymError as error:
        named = f"{path.parent}/", f"{path.parent} "  # where it is, stands before all that is told
        made.faults.append(str(error).removeprefix(named[0]).removeprefix(named[1]))
        return made
    made.faults += _numbers(result, rollouts)
    try:
        made.faults += _graded(path, result, rollouts)
    except OptionError as error:
        made.faults.append(str(error))
    except LatentGymError as error:  # data, a model or a module that is not here
        made.notes.append(f"its answers were not graded again: {error}")
    return made


def _numbers(result: Result, rollouts: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """What a record says of its answers that they do not say themselves."""
    scores: dict[int, list[float]] = {}
    for rollout in rollouts:
        scores.setdefault(rollout["index"], []).append(rollout["score"])
    table = np.array([scores[index] for index in sorted(scores)])
    said: list[tuple[str, float, float]] = [
        (f"the {end} end of its interval", told, own)
        for end, told, own in zip(
            ("lower", "upper"), result.accuracy_ci95, question_interval(table), strict=True
        )
    ]
    for name, key, value in (
        ("thoughts_mean", "n_thoughts", result.thoughts_mean),
        ("tokens_mean", "n_tokens", result.tokens_mean),
        ("metrics.truncated", "truncated", result.metrics.get("truncated")),
    ):
        values = [rollout.get(key) for rollout in rollouts]
        if value is not None and None not in values:
            said.append((name, value, float(np.mean(np.array(values, dtype=np.float64)))))
    for name, value, own in said:
        if not isclose(value, own, rel_tol=_ROUNDING, abs_tol=_ROUNDING):
            yield f"{name} is {value:g}, but its answers give {own:g}"


def _graded(path: Path, result: Result, rollouts: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """What a task of the same data says of the answers now."""
    from latentgym.cli.evaluate import graded
    from latentgym.evaluation.evaluate import questions_of

    env_id = recorded(result.env, result.modules, path)
    if ":" not in env_id and env_id not in {known for known, _, _ in env_ids()}:
        yield f"there is no environment {env_id!r}"
        return
    options = recorded_options(result.config.get("env_options", {}), path)
    task = make_vector_env(env_id, 1, model=env_model(result.model), **options).unwrapped.task
    if task.dataset_hash != result.dataset_hash:
        if task.source != result.source:
            raise UsageError(f"its data is {result.source}, but {task.source} is what is here.")
        yield f"its data is {result.dataset_hash}, but {task.source} is {task.dataset_hash}"
        return
    questions_of(task, index=list(dict.fromkeys(rollout["index"] for rollout in rollouts)))
    table, changed = graded(task, rollouts)
    if changed:
        yield (
            f"{changed} of {table.size} answers are graded otherwise: accuracy "
            f"{table.mean():.4f}, not {result.accuracy:.4f}"
        )
