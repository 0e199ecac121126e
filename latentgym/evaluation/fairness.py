"""Whether the rows of a table may be compared: what each was asked, how, and by whom it was graded.

A table is what one task's split asks. What most of its rows have in common is its rule, and a row
that differs from the rule is told so. Questions are known by the hash of their data, their number
and their numbers; prompts by the hash of their token ids, which rows of one model share, and beyond
that by the environment's options; graders by the versions of what grades.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import groupby
from pathlib import Path
from typing import Any

from latentgym.errors import LatentGymError
from latentgym.evaluation.columns import Run
from latentgym.evaluation.results import Result
from latentgym.registry import recorded, resolve, task_maker
from latentgym.storage import to_json
from latentgym.system.options.keywords import Keyword

_GRADERS = ("latentgym", "math-verify")
_QUESTIONS = {"split", "source", "holdout", "limit"}
"""Options that choose questions: the hash of the data and the number of questions tell of them."""
NO_MODEL = "-"
"""The model of who is none, such as a classical recommender: it reads no prompt."""


def cautions(found: Sequence[Run], rule: str = "most") -> dict[Path, list[str]]:
    """What makes a row not comparable with the others of its table, in a few words each.

    Args:
        found: folder and record of each run; a table is the runs of one task's split.
        rule: what sentences call those that keep to the rule; of equally many, the first.

    Returns:
        The cautions of each run; rows that keep to the rule of their table have none.
    """
    told: dict[Path, list[str]] = {}
    for _, some in groupby(sorted(found, key=_table), key=_table):
        table = list(some)
        told |= {folder: [] for folder, _ in table}
        for check in (_questions, _prompts, _options, _graders):
            for folder, other, usual in check(table):
                told[folder].append(other if usual is None else f"{other} ({rule}: {usual})")
    return told


def questions(r: Result) -> tuple[str, int, tuple[int, ...]]:
    """What a result's questions are known by."""
    return r.dataset_hash, r.n, tuple(r.index or ())


def options(r: Result) -> dict[str, Any]:
    """Options of the environment that a result was made with, the defaults among them."""
    known: dict[str, Keyword] = {}
    family = ""
    with suppress(LatentGymError):  # a task that is not there, or not trusted, has none
        _, task, family = resolve(recorded(r.env, r.modules, r.env))
        if keywords := getattr(task_maker(task), "keywords", None):
            known = keywords(task, r.model != NO_MODEL and r.model.partition(":")[0] != "tiny")
    given: Mapping[str, Any] = r.config.get("env_options", {})
    values = {**{name: keyword.default for name, keyword in known.items()}, **given}
    for name, keyword in known.items():
        if values[name] is None and keyword.option.usual is not None:
            values[name] = keyword.option.usual(family)
    return {k: v for k, v in values.items() if k not in _QUESTIONS}


def _table(run: Run) -> tuple[str, str]:
    return run[1].task, run[1].split


def _rule(table: Sequence[Run], key: Callable[[Result], Hashable]) -> Any:
    """What most rows have; of equally many, what comes first."""
    return Counter(key(r) for _, r in table).most_common(1)[0][0]


# What each check yields: a folder, what is other there, and what the rule has where that is told.
_Odd = Iterator[tuple[Path, str, str | None]]


def _questions(table: Sequence[Run]) -> _Odd:
    rule = _rule(table, questions)
    for folder, r in table:
        own = questions(r)
        if own[0] != rule[0]:
            yield folder, f"other questions: data {own[0]}", rule[0]
        elif own[1] != rule[1]:
            yield folder, f"other questions: {own[1]}", str(rule[1])
        elif own != rule:
            yield folder, "other questions of the same data", None


def _prompts(table: Sequence[Run]) -> _Odd:
    known = [run for run in table if run[1].prompts]

    def key(run: Run) -> tuple[str, str]:  # of other questions, prompts are others anyway
        return run[1].model, to_json(questions(run[1]))

    for _, some in groupby(sorted(known, key=key), key=key):
        rows = list(some)
        rule = _rule(rows, lambda r: r.prompts)
        for folder, r in rows:
            if r.prompts != rule:
                yield folder, "other prompts to the same model", None


def _options(table: Sequence[Run]) -> _Odd:
    rows = [(folder, options(r)) for folder, r in table if r.model != NO_MODEL]
    for name in sorted({name for _, own in rows for name in own}):
        values = [to_json(own.get(name)) for _, own in rows]
        rule = Counter(values).most_common(1)[0][0] if values else None
        for (folder, _), value in zip(rows, values, strict=True):
            if value != rule:
                yield folder, f"{name} {_said(value)}", _said(str(rule))


def _said(value: str) -> str:
    words = {"null": "as usual", "true": "on", "false": "off"}
    return words.get(value, value.strip('"')[:40])


def _graders(table: Sequence[Run]) -> _Odd:
    rule = _rule(table, _grader)
    for folder, r in table:
        for name, own, usual in zip(_GRADERS, _grader(r), rule, strict=True):
            if own != usual:
                yield folder, f"graded by {name} {own or '?'}", usual or "?"


def _grader(r: Result) -> tuple[str | None, ...]:
    return tuple(r.versions.get(name) for name in _GRADERS)
