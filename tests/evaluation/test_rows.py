"""Names of rows, which of them are best, and what is told below a table."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from latentgym.evaluation.columns import Run
from latentgym.evaluation.rows import best, names, notes

Made = Callable[..., Run]


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        (["a/x", "a/y"], ["x", "y"]),
        (["a/x", "b/x"], ["a/x", "b/x"]),
        (["a/c/x", "b/c/x", "b/c/y"], ["a/c/x", "b/c/x", "y"]),
        (["a\nb/x", "a/x\x1b"], ["x", "x\ufffd"]),
        (["x\udcff", "x\udcfe"], ["//x\ufffd (1)", "//x\ufffd (2)"]),  # bytes that are no text
    ],
)
def test_names_are_as_short_as_they_can_be(
    folders: list[str], expected: list[str], made: Made
) -> None:
    runs = [(Path("/", folder), made("x", [1])[1]) for folder in folders]
    assert list(names(runs).values()) == expected


def run(name: str, made: Made, accuracy: float, interval: list[float], **changes: Any) -> Run:
    """A run with that accuracy and interval."""
    folder, result = made(name, [1], **changes)
    result.accuracy, result.accuracy_ci95 = accuracy, interval
    return folder, result


def test_the_best_has_those_beside_it_whose_interval_reaches_its_own(made: Made) -> None:
    runs = [
        run("first", made, 0.9, [0.8, 0.95]),
        run("near", made, 0.7, [0.6, 0.8]),
        run("far", made, 0.7, [0.6, 0.79]),
        run("gold", made, 1.0, [0.97, 1.0], oracle=True),
        run("control", made, 1.0, [0.97, 1.0], control="zero"),
    ]
    assert {folder.name for folder in best(runs)} == {"first", "near"}
    assert best(runs[:1]) == set(), "of one alone"
    made_up = [run(f"sample-{i}", made, 0.5, [0.1, 0.9], source="sample") for i in range(2)]
    assert best(made_up) == set()


def test_what_is_no_plain_figure_is_told(made: Made) -> None:
    odd = run("odd", made, 1.0, [0.9, 1.0], source="sample", oracle=True, trained_on=1)
    told = list(notes([odd], {odd[0]: "odd"}))
    for part in ("sample: made-up", "odd: 1 of 1 questions were trained on", "upper bound"):
        assert sum(part in note for note in told) == 1
    assert list(notes([run("plain", made, 0.5, [0.1, 0.9])], {})) == []
