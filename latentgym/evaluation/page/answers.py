"""What opens behind a row of the page: the answers of a run, and its learning curves.

Records may be anyone's, so both are bounded: as many answers as the page has room for, and as many
points as a curve can show.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from latentgym.errors import UsageError
from latentgym.evaluation.columns import Run
from latentgym.evaluation.comparison import Scores, scores_of
from latentgym.evaluation.results import METRICS, ROLLOUTS, load_rollouts
from latentgym.text.lengths import shortened

CURVES = {
    "reward/score": "mean reward of the rollouts",
    "train/loss": "loss",
    "eval/accuracy": "accuracy on held-out questions",
    "train/entropy": "entropy, nats",
    "latent/share": "share of latent steps",
}
"""The logged numbers that a run's page draws, in this order, and what they are."""

_POINTS = 200  # of a curve
_LINES = 200_000  # of a log that are read
_LINE = 1 << 20  # characters of one
_STEPS = 64  # thoughts of an answer that are shown
_KEPT = (
    *("index", "seed", "question", "target", "parsed", "status", "score", "components"),
    *("completion", "segments", "thoughts", "steps", "n_thoughts", "n_tokens", "truncated"),
)


class Answers:
    """The stored answers of some runs, each file read once, however often it is asked for.

    Args:
        most: answers of each run that are kept, the first ones.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: dict[Path, list[dict[str, Any]]] = {}
        self._scores: dict[Path, Scores] = {}

    def of(self, folder: Path) -> list[dict[str, Any]]:
        """The first answers of a run; none where no rollouts are kept.

        Raises:
            UsageError: the rollouts are damaged.
        """
        if folder not in self._kept:
            there = (folder / ROLLOUTS).is_file()
            rollouts = load_rollouts(folder) if there else iter(())
            self._kept[folder] = [_bounded(rollout) for rollout in islice(rollouts, self._most)]
        return self._kept[folder]

    def scores(self, run: Run) -> Scores:
        """The score of each question of a run under each seed.

        Raises:
            UsageError: see `scores_of`.
        """
        folder = run[0]
        if folder not in self._scores:
            kept: list[dict[str, Any]] = []
            self._scores[folder] = scores_of(run, self._keeping(folder, kept))
            self._kept[folder] = kept
        return self._scores[folder]

    def _keeping(self, folder: Path, kept: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        for rollout in load_rollouts(folder):
            if len(kept) < self._most:
                kept.append(_bounded(rollout))
            yield rollout


def _bounded(rollout: Mapping[str, Any]) -> dict[str, Any]:
    """What is shown of an answer, texts and thoughts cut to what a reader may look at."""
    kept = {name: _cut(rollout[name]) for name in _KEPT if rollout.get(name) is not None}
    steps = kept.get("steps")
    if isinstance(steps, list):
        kept["steps"] = steps[:_STEPS]
        kept["left_out"] = max(0, int(rollout.get("n_thoughts") or 0) - len(kept["steps"]))
        kept.pop("thoughts", None)
    if "segments" in kept:
        kept.pop("completion", None)
    return kept


def _cut(value: Any) -> Any:
    if isinstance(value, str):
        return shortened(value)
    if isinstance(value, list):
        return [_cut(each) for each in value]
    if isinstance(value, Mapping):
        return {name: _cut(each) for name, each in value.items()}
    return float(f"{value:.4g}") if isinstance(value, float) else value


def curves(folder: Path) -> dict[str, tuple[list[float], list[float]]]:
    """Learning curves of a run, steps and values by logged name; empty for an evaluation.

    Raises:
        UsageError: the log is damaged.
    """
    path = folder / METRICS
    if not path.is_file():
        return {}
    lines = list(log_lines(path))
    found = {}
    for name in CURVES:
        points = [
            (float(line["step"]), float(line[name]))
            for line in lines
            if isinstance(line.get(name), int | float) and isinstance(line.get("step"), int)
        ]
        if len(points) > 1:
            steps, values = zip(*_thinned(points), strict=True)
            found[name] = (list(steps), list(values))
    return found


def log_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a log, the first `_LINES` of them.

    Raises:
        UsageError: one is damaged.
    """
    with path.open(encoding="utf-8", errors="replace") as file:
        for number in range(1, _LINES):
            text = file.readline(_LINE)
            if not text:
                return
            try:
                line = json.loads(text)
            except ValueError as error:
                raise UsageError(f"{path} is damaged in line {number} ({error}).") from error
            if not isinstance(line, dict):
                raise UsageError(f"{path} is damaged in line {number} (no object).")
            yield line


def _thinned(points: Sequence[tuple[float, float]]) -> Sequence[tuple[float, float]]:
    """Means of neighbours, so that no more points are left than a picture can show."""
    every = -(-len(points) // _POINTS)
    groups = [points[i : i + every] for i in range(0, len(points), every)]
    return [(g[-1][0], sum(value for _, value in g) / len(g)) for g in groups]
