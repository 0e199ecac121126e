"""Runs compared question by question: what one has gained over another, and at what cost.

Both answered the same questions, so the difference of two runs is far surer than two intervals
tell: what makes a question hard is in both. Shape suffixes: Q questions, S seeds, D resamples.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from latentgym.errors import Notice, UsageError
from latentgym.evaluation.columns import COSTS, Cost, Run, run_name
from latentgym.evaluation.fairness import cautions, questions
from latentgym.evaluation.results import Result, load_answers
from latentgym.evaluation.stats import Floats, difference_interval, pass_at_k, sign_test
from latentgym.storage import to_json

Scores = Mapping[tuple[int, int], float]
"""The score of each (question, seed)."""


@dataclass(frozen=True)
class Difference:
    """How much more one run has than another, in shares.

    Attributes:
        name: of the other run, or of the control.
        mean: of the paired differences.
        low, high: their 95 % interval.
    """

    name: str
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """What one has gained over another, over the questions that both have answered.

    Attributes:
        difference: of the scores, with the other's name.
        accuracy, other_accuracy: mean scores of both over these questions.
        n: questions that both have.
        seeds: that both have, on which they are paired too; 0 where they share none, so that the
            means of each question over its own seeds are.
        won, lost, tied: questions.
        sign_p: two-sided, of the exact sign test over the questions won and lost.
        improvement: chance that the answer to a question drawn at random is the better one; ties
            count half.
        cost: how many times as much an answer costs: FLOPs, forward positions, seconds; None where
            the other costs nothing.
        cautions: what makes the two not comparable.
    """

    difference: Difference
    accuracy: float
    other_accuracy: float
    n: int
    seeds: int
    won: int
    lost: int
    tied: int
    sign_p: float
    improvement: float
    cost: dict[str, float | None]
    cautions: tuple[str, ...]


def compare(
    found: Sequence[Run],
    other: Sequence[Run],
    name: str,
    scores: Callable[[Run], Scores] | None = None,
) -> Comparison:
    """Compare what was run under some seeds with something else that was.

    Args:
        found: the runs of one, each under seeds of its own.
        other: those that it is compared with.
        name: of the other.
        scores: of a run, for who has read them already, or `passes`; `scores_of` by default.

    Raises:
        UsageError: a record has no rollouts, or they are damaged; two runs of one side have a seed
            in common; no question is in both.
    """
    if _task(found[0][1]) != _task(other[0][1]):
        raise UsageError(
            f"{found[0][0]} and {other[0][0]} are of different tasks "
            f"({' '.join(_task(found[0][1]))}, {' '.join(_task(other[0][1]))}); compare one."
        )
    read = scores or scores_of
    ours, theirs = _joined(found, read), _joined(other, read)
    warned = list(_unlike(found, other))
    if found[0][1].dataset_hash != other[0][1].dataset_hash:
        raise UsageError(
            f"{found[0][0]} and {other[0][0]} were asked questions of different data "
            f"({found[0][1].dataset_hash} and {other[0][1].dataset_hash}), so question 0 of one is "
            "not question 0 of the other; evaluate both on the same data."
        )
    (own_QS, other_QS), seeds = _paired(ours, theirs)
    gain_QS = own_QS - other_QS
    if not len(gain_QS):
        raise UsageError(f"{found[0][0]} and {other[0][0]} have no question in common.")
    gain_Q = gain_QS.mean(1)
    won, lost = int((gain_Q > 0).sum()), int((gain_Q < 0).sum())
    better = ((gain_QS > 0) + 0.5 * (gain_QS == 0)).mean()
    return Comparison(
        Difference(name, float(gain_Q.mean()), *difference_interval(gain_QS)),
        float(own_QS.mean()),
        float(other_QS.mean()),
        len(gain_Q),
        seeds,
        won,
        lost,
        len(gain_Q) - won - lost,
        sign_test(won, lost),
        float(better),
        {key: _ratio(found, other, cost) for key, cost in COSTS.items()},
        tuple(warned),
    )


def controls_of(
    found: Sequence[Run], scores: Callable[[Run], Scores] | None = None
) -> dict[Path, list[Difference]]:
    """Controls as paired differences: what each method loses when its thoughts are replaced.

    Args:
        found: folder and record of each run.
        scores: of a run, for who has read them already; `scores_of` by default.

    Returns:
        For each run without a control, in whose place `found` has runs that differ in the control
        alone (the agent, its settings, the task, the questions, the weights and the seeds are the
        same), the difference of each of them, control minus method. Runs whose answers are not
        stored have none, with a warning.
    """
    results = dict(found)
    told: dict[Path, list[Difference]] = {}

    def order(pair: tuple[Path, Path]) -> tuple[Path, str, Path]:
        return pair[1], results[pair[0]].control or "", pair[0]

    pairs = sorted(methods_of(found).items(), key=order)
    for of, some in groupby(pairs, key=lambda pair: pair[1]):
        method = of, results[of]
        read = scores or cache_of(scores_of)  # of a method once for all of its controls
        for folder, _ in some:
            control = results[folder]
            try:
                c = compare([(folder, control)], [method], control.control or "", read)
            except UsageError as error:
                warnings.warn(f"a control is left out: {error}", Notice, stacklevel=2)
                continue
            told.setdefault(of, []).append(c.difference)
    return told


def cache_of(read: Callable[[Run], Scores]) -> Callable[[Run], Scores]:
    """The same, but every run is read once."""
    known: dict[Path, Scores] = {}

    def once(run: Run) -> Scores:
        if run[0] not in known:
            known[run[0]] = read(run)
        return known[run[0]]

    return once


def methods_of(found: Sequence[Run]) -> dict[Path, Path]:
    """The run whose thoughts each control replaces, where both are there.

    Args:
        found: folder and record of each run.
    """
    methods = {_key(r): folder for folder, r in reversed(found) if r.control is None}
    controls = ((folder, _key(r)) for folder, r in found if r.control is not None)
    return {folder: methods[key] for folder, key in controls if key in methods}


def _key(r: Result) -> str:
    """What a control has in common with its method."""
    checkpoint = None if r.checkpoint is None else str(Path(r.checkpoint).absolute())
    settings = r.config.get("agent"), r.config.get("env_options")
    which = r.agent, r.env, r.split, r.model, checkpoint, sorted(r.seeds), *questions(r)
    return sorted_json((which, settings))


def sorted_json(data: Any) -> str:
    """Data as JSON that does not hang on the order of keys."""

    def ordered(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: ordered(value[key]) for key in sorted(value)}
        return [ordered(v) for v in value] if isinstance(value, list | tuple) else value

    return to_json(ordered(data))


def _task(r: Result) -> tuple[str, str]:
    return r.task, r.split


def scores_of(run: Run, stored: Iterable[Mapping[str, Any]] | None = None) -> Scores:
    """The score of each question under each seed, from the stored answers.

    Args:
        run: folder and record.
        stored: its answers, for who reads them too; those in the folder by default.

    Raises:
        UsageError: there are none, or not those of the record.
    """
    folder, result = run
    rollouts = load_answers(folder, result, stored)
    if not all(0 <= row["score"] <= 1 for row in rollouts):
        raise UsageError(f"{folder} has scores that are no shares in [0, 1]; evaluate again.")
    return {(row["index"], row["seed"]): float(row["score"]) for row in rollouts}


def passes(k: int) -> Callable[[Run], Scores]:
    """What `compare` reads of a run in the place of scores: pass@k of the samples of each answer.

    Args:
        k: how many may be tried.
    """

    def read(run: Run) -> Scores:
        folder, result = run
        found = {(row["index"], row["seed"]): row for row in load_answers(folder, result)}
        samples = {asked: row.get("samples") or () for asked, row in found.items()}
        if (least := min(map(len, samples.values()), default=0)) < k:
            raise UsageError(
                f"{folder} has {least} of the {k} samples of a question that pass@{k} needs; "
                f"evaluate an agent that draws as many, such as cot with --samples {k}."
            )
        return {
            asked: pass_at_k([sum(score >= 1 for score in drawn)], len(drawn), k)
            for asked, drawn in samples.items()
        }

    return read


def _joined(runs: Sequence[Run], read: Callable[[Run], Scores]) -> Scores:
    joined: dict[tuple[int, int], float] = {}
    for run in runs:
        scores = read(run)
        if joined.keys() & scores.keys():
            raise UsageError(
                f"{run[0]} answers questions under a seed that {runs[0][0]} has too; name one of "
                "them alone."
            )
        joined |= scores
    return joined


def _paired(ours: Scores, theirs: Scores) -> tuple[Floats, int]:
    """Scores of both, (2, Q, S), of questions that both have under seeds that both have.

    Where they share no seed, those of the questions' means; S is then 1. The number of shared seeds
    comes with it.
    """
    both = sorted({seed for _, seed in ours} & {seed for _, seed in theirs})
    asked = [{q for q, s in scores if s in both or not both} for scores in (ours, theirs)]
    numbers = sorted(asked[0] & asked[1])
    pairs = [[(q, s) for s in both] for q in numbers]
    whole = [row for row in pairs if all(pair in ours and pair in theirs for pair in row)]
    if both and whole:
        pairs_of = (np.array([[one[p] for p in row] for row in whole]) for one in (ours, theirs))
        return np.stack([*pairs_of]), len(both)
    means = [_means(scores) for scores in (ours, theirs)]
    shared = sorted(means[0].keys() & means[1].keys())
    both_Q = np.array([[one[q] for q in shared] for one in means], dtype=np.float64)
    return both_Q[..., None], 0


def _means(scores: Scores) -> dict[int, float]:
    by_question: dict[int, list[float]] = {}
    for (question, _), score in scores.items():
        by_question.setdefault(question, []).append(score)
    return {question: float(np.mean(own)) for question, own in by_question.items()}


def _unlike(found: Sequence[Run], other: Sequence[Run]) -> Iterator[str]:
    """What the first of either is told beside the other alone."""
    for folder, told in cautions([other[0], found[0]], rule="the other").items():
        for caution in told:
            yield f"{run_name(folder)}: {caution}"


def _ratio(found: Sequence[Run], other: Sequence[Run], cost: Cost) -> float | None:
    own, its = (float(np.mean([cost.of(r) for _, r in runs])) for runs in (found, other))
    return own / its if its > 0 and math.isfinite(own) else None
