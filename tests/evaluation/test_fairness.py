"""Rows that may not be compared say so, and in what."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from latentgym.evaluation.fairness import cautions, questions

Made = Callable[..., Any]


def test_equal_rows_need_no_caution(made: Made) -> None:
    runs = [made(name, [1, 0]) for name in "abc"]
    assert cautions(runs) == {folder: [] for folder, _ in runs}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"dataset_hash": "9"}, "other questions: data 9 (most: 0)"),
        ({"index": [3, 4]}, "other questions of the same data"),
        ({"prompts": "9"}, "other prompts to the same model"),
        ({"config": {"env_options": {"think": 7}}}, "think 7 (most: as usual)"),
        ({"config": {"env_options": {"arrow": False}}}, "arrow off (most: on)"),
    ],
)
def test_what_is_other_is_said_in_its_row_alone(
    made: Made, changes: dict[str, Any], told: str
) -> None:
    usual = [made(name, [1, 0], prompts="0") for name in "ab"]
    odd = made("odd", [1, 0], **{"prompts": "0", **changes})
    assert cautions([odd, *usual]) == {odd[0]: [told], usual[0][0]: [], usual[1][0]: []}


def test_fewer_questions_are_others(made: Made) -> None:
    usual, odd = [made(name, [1, 0]) for name in "ab"], made("odd", [1])
    assert cautions([odd, *usual])[odd[0]] == ["other questions: 1 (most: 2)"]


@pytest.mark.parametrize("package", ["latentgym", "math-verify"])
def test_other_graders_are_named(made: Made, package: str) -> None:
    usual, (folder, odd) = [made(name, [1, 0]) for name in "ab"], made("odd", [1, 0])
    odd.versions[package] = "0.0.1"
    [told] = cautions([(folder, odd), *usual])[folder]
    assert told.startswith(f"graded by {package} 0.0.1 (most: ")


def test_options_given_at_their_defaults_are_no_difference(made: Made) -> None:
    default = made("default", [1, 0], config={"env_options": {"m": 4, "split": "test"}})
    assert cautions([default, made("left out", [1, 0])])[default[0]] == []


@pytest.mark.parametrize(("family", "arrow"), [("token", True), ("continuous", False)])
def test_what_the_family_decides_is_no_difference_from_the_same_given(
    made: Made, family: str, arrow: bool
) -> None:
    """A chain of words has the arrow by default, and mixtures that begin from it are given it."""
    env = {"env": f"latent/MNNS-{family}"}
    given = made("given", [1, 0], **env, config={"env_options": {"arrow": arrow}})
    default = made("default", [1, 0], **env)
    other = made(
        "other", [1, 0], env="latent/MNNS-continuous", config={"env_options": {"arrow": arrow}}
    )
    assert not any(cautions([given, default, other]).values())


def test_prompts_of_other_models_and_questions_are_not_compared(made: Made) -> None:
    runs = [
        made("a", [1, 0], prompts="1"),
        made("b", [1, 0], prompts="2", model="tiny:gpt2"),
        made("c", [1, 0], prompts=""),  # a record from before
    ]
    assert not any(cautions(runs).values())


def test_who_reads_no_prompt_has_no_options_of_one(made: Made) -> None:
    runs = [made(name, [1, 0], config={"env_options": {"think": 3}}) for name in "ab"]
    classical = made("popularity", [1, 0], model="-")
    assert not any(cautions([*runs, classical]).values())


def test_tasks_and_splits_are_tables_of_their_own(made: Made) -> None:
    one, other = made("one", [1, 0]), made("other", [1, 0, 1], split="train")
    assert questions(one[1]) != questions(other[1])
    assert not any(cautions([one, other]).values())


def test_of_two_the_first_is_the_rule(made: Made) -> None:
    one, other = made("one", [1, 0]), made("other", [1])
    assert cautions([one, other], rule="the first") == {
        one[0]: [],
        other[0]: ["other questions: 1 (the first: 2)"],
    }
