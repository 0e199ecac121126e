"""The picture of a run's learning curves."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from latentgym.errors import UsageError
from latentgym.evaluation.curves import PICTURE, Point, curves_of, draw_curves
from latentgym.evaluation.stats import mean_interval

Lines = list[dict[str, Any]]


def log_of(n: int) -> Lines:
    """Rewards at every step, an evaluation at every second."""
    lines: Lines = [{"step": i, "reward/score": (i * 7 % 5) / 5, "train/lr": 1.0} for i in range(n)]
    for line in lines[1::2]:
        line |= {"eval/accuracy": 0.5, "eval/accuracy_low": 0.4, "eval/accuracy_high": 0.7}
    return lines


@pytest.mark.parametrize("n", [12, 13, 99, 100, 101, 250])
def test_every_line_counts_once_and_means_have_students_interval(n: int) -> None:
    points = curves_of(log_of(n))["reward/score"]
    assert 3 <= len(points) <= 25
    size = max(4, -(-n // 25))
    values = [line["reward/score"] for line in log_of(n)]
    parts = [values[i * size : (i + 1) * size] for i in range(len(points) - 1)]
    parts.append(values[(len(points) - 1) * size :])
    assert sum(map(len, parts)) == n and min(map(len, parts)) >= 4
    for point, part in zip(points, parts, strict=True):
        assert (point.value, point.low, point.high) == pytest.approx(mean_interval(part))


def test_accuracy_has_the_interval_of_its_evaluation() -> None:
    assert curves_of(log_of(6))["eval/accuracy"] == [Point(i, 0.5, 0.4, 0.7) for i in (1, 3, 5)]


def test_few_points_are_drawn_as_they_are_and_fewer_not_at_all(tmp_path: Path) -> None:
    assert curves_of(log_of(2)) == {}
    assert curves_of(log_of(11))["reward/score"][-1] == Point(10, 0.0)
    assert draw_curves(tmp_path) is None
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "train/loss": 2.0}\n')
    assert draw_curves(tmp_path) is None and not (tmp_path / PICTURE).exists()


def test_the_picture_is_in_the_runs_folder_or_a_sentence_says_why_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = "".join(json.dumps(line) + "\n" for line in log_of(40))
    (tmp_path / "metrics.jsonl").write_text(log)
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "matplotlib.figure", None)
        with pytest.raises(UsageError, match="pictures need matplotlib; pip install"):
            draw_curves(tmp_path)
        assert not (tmp_path / PICTURE).exists()
    pytest.importorskip("matplotlib")
    picture = draw_curves(tmp_path)
    assert picture == tmp_path / PICTURE
    assert picture.read_bytes().startswith(b"\x89PNG")
