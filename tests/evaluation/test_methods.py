"""Which runs are of one method, which of its settings is a knob, and what controls cost it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from latentgym.evaluation.columns import Run
from latentgym.evaluation.comparison import scores_of
from latentgym.evaluation.methods import curves, methods, point, replaced
from latentgym.evaluation.rows import asked, names

Made = Callable[..., Run]


def agent(**settings: Any) -> dict[str, Any]:
    return {"agent": settings, "env_options": {"split": "test"}}


def told(runs: list[Run]) -> dict[str, int]:
    """How many runs each method has."""
    found = methods(runs, names(runs))
    return {m.name: sum(map(len, m.runs.values())) for m in found}


def test_seeds_and_tasks_are_of_one_method_settings_and_weights_are_not(made: Made) -> None:
    runs = [
        made(f"{method}/{task}/seed-{seed}", [1], task=task, seeds=[seed], **more)
        for task in ("MNNS", "GSM8K")
        for seed in (0, 1)
        for method, more in (
            ("greedy", {"config": agent(temperature=0.0)}),
            ("warm", {"config": agent(temperature=1.0)}),
            (
                "learnt",
                {
                    "config": agent(temperature=0.0),
                    "checkpoint": f"runs/start/{task}/seed-{seed}/checkpoints/step-9",
                },
            ),
            ("learnt-zero", {"config": agent(temperature=0.0), "control": "zero"}),
        )
    ]
    assert told(runs) == {"greedy": 4, "warm": 4, "learnt": 4, "learnt-zero": 4}


def test_options_that_differ_on_the_same_questions_tell_methods_apart(made: Made) -> None:
    def options(**given: Any) -> dict[str, Any]:
        return {"config": {"agent": {}, "env_options": given}}

    same = [made("a/MNNS", [1], **options(m=3)), made("a/x", [1], task="x", **options(k=1))]
    assert list(told(same).values()) == [2]
    assert told([*same, made("b/MNNS", [1], **options(m=4))]) == {"a": 1, "cot": 1, "b": 1}


def test_names_that_clash_are_those_of_runs_and_what_ran_twice_counts_once(made: Made) -> None:
    runs = [
        made("a/one", [1], config=agent(x=1)),
        made("a/two", [1], config=agent(x=1)),
        made("b/one", [1], config=agent(x=2)),
        made("b/x-1", [1], config=agent(y=1)),
        made("b/x-2", [1], config=agent(y=1), seeds=[1]),
        made("c/x-1", [1], config=agent(y=2)),
        made("c/x-2", [1], config=agent(y=2), seeds=[1]),
    ]
    assert told(runs) == {"a/one": 1, "b/one": 1, "b/x": 2, "c/x": 2}


def test_what_differs_in_a_number_that_costs_is_a_curve(made: Made) -> None:
    def run(name: str, cost: float, right: int, seed: int = 0, **settings: Any) -> Run:
        scores = [1] * right + [0] * (4 - right)
        own = {"config": agent(**settings), "flops_per_answer": cost, "seeds": [seed]}
        return made(f"{name}/seed-{seed}", scores, **own)

    runs = [
        *(
            run(f"votes-samples-{n}", n, 1 + seed, seed, samples=n)
            for n in (1, 16)
            for seed in (0, 1)
        ),
        run("warm-1", 3.0, 2, samples=0, temperature=1.0),  # another number at the same cost
        run("warm-2", 3.0, 2, samples=0, temperature=2.0),
    ]
    questions = asked(runs[0])
    votes, *singles = curves(methods(runs, names(runs)), questions)
    assert (votes.name, votes.knob, len(votes.methods)) == ("votes", "samples", 2)
    assert [(curve.name, curve.knob) for curve in singles] == [("warm-1", ""), ("warm-2", "")]
    first, last = (point(method, questions, "flops") for method in votes.methods)
    assert (first.cost, first.mean, last.cost) == (1.0, 0.375, 16.0)
    assert 0 <= first.low < first.mean < first.high <= 1


def test_controls_are_paired_over_the_seeds_of_their_method(made: Made) -> None:
    runs = [
        made(f"{name}/seed-{seed}", scores, seeds=[seed], control=control, config=agent(x=1))
        for seed in (0, 1)
        for name, scores, control in (("own", [1, 1, 0], None), ("own-zero", [0, 1, 0], "zero"))
    ]
    found = methods(runs, names(runs))
    [(name, difference)] = replaced(found, asked(runs[0]), scores_of)
    assert (name, difference.name) == ("own", "zero")
    assert difference.mean == pytest.approx(-1 / 3)
    (runs[0][0] / "rollouts.jsonl.gz").unlink()
    assert replaced(found, asked(runs[0]), scores_of) == []
