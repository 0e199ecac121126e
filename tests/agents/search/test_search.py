"""What a search says of itself, against searches made by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from latentgym.agents.search import Attempt, Search, Try, Verdict
from latentgym.evaluation.accounting import Positions


def search(
    attempt: Callable[..., Attempt],
    *tries: tuple[float, float],
    changed: tuple[int, ...] = (0, 2, 1),
    **more: Any,
) -> Search:
    """Tries by their reward and score."""
    found = Search(7, **more)
    for number, (reward, score) in enumerate(tries):
        cost = Positions(verifier=10, verifier_prompt=100)
        verdict = Verdict(reward, cost, {"calculation": reward == 0})
        tried = attempt("abcd", number, score=score, parsed=str(number))
        found.tries.append(Try(2 * number, changed[number], tried, verdict))
    return found


def told(found: Search, chosen: int, threshold: float = -0.2) -> dict[str, float]:
    metrics = found.metrics(chosen, threshold)
    assert all(name.startswith("search/") for name in metrics)
    return {name.removeprefix("search/"): value for name, value in metrics.items()}


def test_a_search_that_found_the_answer(attempt: Callable) -> None:
    found = search(attempt, (-1.0, 0.0), (-0.5, 0.0), (0.0, 1.0), steps=4)
    assert told(found, 2) == {
        "iterations": 4,
        "tries": 3,
        "first": 0,
        "any": 1,
        "gained": 1,
        "repaired": 0,
        "lost": 0,
        "accepted": 1,
        "agreement": 1,
        "first_agreement": 1,
        "changed": 3 / 4,
    }
    assert (found.reward, found.best()) == (0.0, 2)


def test_a_search_that_lost_the_answer(attempt: Callable) -> None:
    found = search(attempt, (-0.5, 1.0), (-0.3, 0.0), (-0.3, 0.0), steps=4)
    metrics = told(found, 2)
    assert (metrics["first"], metrics["any"], metrics["lost"], metrics["gained"]) == (1, 1, 1, 0)
    assert metrics["accepted"] == 0
    assert metrics["agreement"] == pytest.approx(2 / 3) and metrics["first_agreement"] == 0
    assert told(found, 0)["lost"] == 0  # had it kept the first
    assert told(found, 2, threshold=-0.4)["accepted"] == 1
    assert (found.reward, found.best()) == (-0.3, 1)  # the first of the best


def test_a_search_that_was_content_at_once_has_no_changes(attempt: Callable) -> None:
    found = search(attempt, (0.0, 0.0))
    metrics = told(found, 0)
    assert "changed" not in metrics and metrics["iterations"] == 0
    assert (metrics["accepted"], metrics["agreement"]) == (1, 0)


@pytest.mark.parametrize(
    ("info", "repaired"),
    [
        ({}, 0),
        ({"status": "no_answer"}, 1),
        ({"reward/format": 0.0}, 1),
    ],
)
def test_repair_is_gain_where_the_format_was_missing(
    info: dict[str, Any], repaired: int, attempt: Callable
) -> None:
    found = search(attempt, (-1.0, 0.0), (0.0, 1.0), steps=1)
    found.tries[0].attempt.info.update(info)
    assert (told(found, 1)["gained"], told(found, 1)["repaired"]) == (1, repaired)
    assert (told(found, 0)["gained"], told(found, 0)["repaired"]) == (0, 0)


def test_all_that_was_spent_is_added_up(attempt: Callable) -> None:
    found = search(attempt, (-1.0, 0.0), (0.0, 1.0), read=5, gradients=6)
    spent = Positions(
        prompt=25, thought=8, verifier=20, verifier_prompt=200, gradient=6, answer=0, discarded=0
    )
    assert found.positions() == spent


def test_a_try_for_the_record(attempt: Callable) -> None:
    found = search(attempt, (-1.0, 0.0), (0.0, 1.0))
    assert found.tries[1].as_dict() == {
        "iteration": 2,
        "changed": 2,
        "reward": 0.0,
        "checks": {"calculation": True},
        "parsed": "1",
        "status": "ok",
        "score": 1.0,
    }
