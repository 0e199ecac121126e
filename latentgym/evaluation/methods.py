"""Runs as those of methods, known from their records alone.

A method is an agent with its settings on a model, with or without a control, and the weights that
it began from. It was run under some seeds and on some tasks, and one of its settings may be a knob,
such as the number of samples, of which several values were run.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby, takewhile
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import numpy as np

from latentgym.errors import UsageError
from latentgym.evaluation.columns import COSTS, Run
from latentgym.evaluation.comparison import (
    Difference,
    Scores,
    compare,
    methods_of,
    sorted_json,
)
from latentgym.evaluation.fairness import options
from latentgym.evaluation.results import Result, accuracy_interval
from latentgym.evaluation.rows import asked
from latentgym.system.terminal import line

Asked = tuple[str, str, str]
"""Task, split and source of some questions."""
_SEED = re.compile(r"seed-\d+")
_END = re.compile(r"[-_./= ]+[\d.]*$")
_LONG = 80  # letters of a name
_DEARER = 1.1  # times the cost of the cheapest value: what costs the same is no knob


@dataclass(frozen=True)
class Method:
    """What one method has been run on.

    Attributes:
        name: what its runs' names have in common.
        runs: by questions, and by folder within them: one for each seed.
    """

    name: str
    runs: Mapping[Asked, Sequence[Run]]

    @property
    def agent(self) -> str:
        """Its agent."""
        return self._first.agent

    @property
    def control(self) -> str | None:
        """What replaced its thoughts."""
        return self._first.control

    @property
    def oracle(self) -> bool:
        """Whether it looked at gold."""
        return self._first.oracle

    @property
    def _first(self) -> Result:
        return next(iter(self.runs.values()))[0][1]


class Point(NamedTuple):
    """A method's mean accuracy at its mean cost, with a 95 % interval: over seeds, if several."""

    cost: float
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Curve:
    """Methods that differ in the value of a knob alone, by value; or one method without a knob.

    Attributes:
        name: of all of them.
        knob: name of the setting; empty where there is none.
        methods: these.
    """

    name: str
    knob: str
    methods: Sequence[Method]

    @property
    def agent(self) -> str:
        """Their agent."""
        return self.methods[0].agent


def methods(found: Sequence[Run], names: Mapping[Path, str]) -> list[Method]:
    """The methods of some runs.

    Where one was run on the same questions with several options of the environment, it is as many
    methods. What was run twice counts once.

    Args:
        found: folder and record of each run.
        names: of the runs, by folder.
    """
    alike: dict[str, list[Run]] = {}
    for run in sorted(found, key=lambda run: (asked(run), run[0])):
        alike.setdefault(sorted_json([_who(run[1]), run[1].config.get("agent")]), []).append(run)
    made = [runs for some in alike.values() for runs in _apart(some)]
    called = [
        _common([_bare(names[folder], r) for folder, r in runs]) or line(runs[0][1].agent, _LONG)
        for runs in made
    ]
    models = [line(runs[0][1].model, _LONG) for runs in made]
    called = _unique(called, [f"{n}, {model}" for n, model in zip(called, models, strict=True)])
    own = _unique(called, [names[runs[0][0]] for runs in made])
    return [
        Method(name, {key: list(some) for key, some in groupby(runs, key=asked)})
        for name, runs in zip(own, made, strict=True)
    ]


def point(method: Method, questions: Asked, cost: str) -> Point:
    """Where a method stands on some questions.

    Args:
        method: it has runs on them.
        questions: these.
        cost: name of one of `COSTS`.
    """
    results = [r for _, r in method.runs[questions]]
    mean, low, high = accuracy_interval(results)
    return Point(float(np.mean([COSTS[cost].of(r) for r in results])), mean, low, high)


def curves(found: Sequence[Method], questions: Asked) -> list[Curve]:
    """The methods on some questions, those that differ in one number alone as one curve.

    Args:
        found: methods; those without runs on the questions are left out.
        questions: these.
    """
    there = [method for method in found if questions in method.runs]
    knobs = list(_knobs(there, questions))
    joined = [method for _, some in knobs for method in some]
    called = [_common([m.name for m in some], knob) or some[0].name for knob, some in knobs]
    own = _unique(called, [some[0].name for _, some in knobs])
    made = [Curve(name, knob, some) for name, (knob, some) in zip(own, knobs, strict=True)]
    return made + [Curve(m.name, "", [m]) for m in there if m not in joined]


def _knobs(there: Sequence[Method], questions: Asked) -> Iterator[tuple[str, list[Method]]]:
    """Settings that buy something, with the methods that differ in their value alone, by value."""
    settings = [_settings(method.runs[questions][0][1]) for method in there]
    for knob in sorted({name for own in settings for name in own}):
        alike: dict[str, list[tuple[float, Method]]] = {}
        for method, own in zip(there, settings, strict=True):
            if isinstance(own.get(knob), int | float) and not isinstance(own[knob], bool):
                alike.setdefault(sorted_json({**own, knob: None}), []).append((own[knob], method))
        for pairs in alike.values():
            some = [method for _, method in sorted(pairs, key=lambda pair: pair[0])]
            costs = [point(method, questions, "flops").cost for method in some]
            if costs == sorted(costs) and costs[-1] >= _DEARER * costs[0] > 0:
                yield line(knob.rpartition(".")[2], _LONG), some


def replaced(
    found: Sequence[Method], questions: Asked, scores: Callable[[Run], Scores]
) -> list[tuple[str, Difference]]:
    """What methods lose on some questions when their thoughts are replaced, over their seeds.

    Args:
        found: methods with a control, and those without one.
        questions: these.
        scores: of a run.

    Returns:
        Name of the method and difference of each control. Where answers cannot be read, or runs of
        one method answered under the same seed, there is none.
    """
    there = [(m.name, run) for m in found for run in m.runs.get(questions, ())]
    names, runs = {run[0]: name for name, run in there}, {run[0]: run for _, run in there}
    pairs: dict[tuple[str, str], list[tuple[Run, Run]]] = {}
    for control, method in methods_of([run for _, run in there]).items():
        key = names[method], runs[control][1].control or ""
        pairs.setdefault(key, []).append((runs[control], runs[method]))
    made = []
    for (name, kind), some in sorted(pairs.items(), key=lambda item: item[0]):
        ours, theirs = zip(*some, strict=True)
        with suppress(UsageError):
            made.append((name, compare(ours, theirs, kind, scores).difference))
    return made


def _who(r: Result) -> list[Any]:
    """Who answered: everything of a method but its settings."""
    weights = None if r.checkpoint is None else _bare(r.checkpoint, r)
    return [r.agent, r.family, r.model, r.control, r.oracle, weights]


def _bare(path: str, r: Result) -> str:
    """A path without what tells seeds and tasks apart."""
    parts = PurePath(path).parts
    return "/".join(part for part in parts if part != r.task and not _SEED.fullmatch(part))


def _apart(runs: Sequence[Run]) -> Iterator[list[Run]]:
    """Runs of equal settings as those of one method, or of several where options differ."""
    by_options: dict[str, list[Run]] = {}
    for run in runs:
        by_options.setdefault(sorted_json(options(run[1])), []).append(run)
    times = Counter(key for some in by_options.values() for key in {asked(run) for run in some})
    for some in by_options.values() if max(times.values()) > 1 else [runs]:
        # Of what was run twice the first.
        once = {(asked(run), run[1].checkpoint, *run[1].seeds): run for run in reversed(some)}
        yield list(reversed(once.values()))


def _settings(r: Result) -> dict[str, Any]:
    """Who answered and all settings, by name."""
    who = {f"who.{i}": each for i, each in enumerate(_who(r))}
    return who | dict(_flat({"agent": r.config.get("agent"), "options": options(r)}))


def _flat(table: Mapping[str, Any], within: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in table.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{within}{name}.")
        else:
            yield f"{within}{name}", value


def _common(names: Sequence[str], less: str = "") -> str:
    """What several names begin with alike, without a number and `less` at its end."""
    if len({*names}) == 1:
        return names[0]
    alike = takewhile(lambda letters: len({*letters}) == 1, zip(*names, strict=False))
    return _END.sub("", _END.sub("", "".join(each for each, *_ in alike)).removesuffix(less))


def _unique(names: Sequence[str], others: Sequence[str]) -> list[str]:
    """Names, each in another's place where it is there twice."""
    often = Counter(names)
    return [name if often[name] == 1 else other for name, other in zip(names, others, strict=True)]
