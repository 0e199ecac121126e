"""What a report says in few numbers: told as people look for it."""

from __future__ import annotations

from typing import Any

import pytest

from latentgym.analysis.tables import SURE, Summary, tables


def table_of(report: dict[str, Any], title: str) -> Summary:
    [found] = [table for table in tables(report) if title in table.title]
    return found


def effects(report: dict[str, Any], questions: int, **numbers: float) -> list[str]:
    """The cells of a replacement whose effects are these."""
    found = report["latents"]["direct"]
    found["questions"] = questions
    for cell in found["map"]["zero"]:
        cell["probability"] = {"low": 0.0, "high": 0.0, **numbers}
    return [cell.strip() for cell in table_of(report, "direct effect").rows[0][1:]]


def test_steps_are_counted_from_one_and_questions_by_their_number(
    latents_report: dict[str, Any],
) -> None:
    assert table_of(latents_report, "direct effect").columns == ["replaced by", "1", "2", "all"]
    told = table_of(latents_report, "thoughts in tokens")
    assert [row[:3] for row in told.rows] == [
        ["17", "S4, right", "1"],
        ["", "", "2"],
        ["40", "none, wrong", "1"],
        ["", "", "2"],
    ]
    assert [name for n, name in enumerate(told.columns) if n not in told.texts] == ["step"]


def test_demonstrations_are_nobody_s_answers(latents_report: dict[str, Any]) -> None:
    latents_report |= {"demonstrations": True, "answers": []}
    assert table_of(latents_report, "thoughts in tokens").rows[0][1] == "the task's own"


def test_replacements_are_called_as_controls_are(latents_report: dict[str, Any]) -> None:
    names = [row[0] for row in table_of(latents_report, "direct effect").rows]
    assert names == ["zero", "shuffle", "halved (zero@0.5)"]


@pytest.mark.parametrize(
    ("mean", "text"),
    [(-0.0, "0"), (0.0, "0"), (-0.00012345, "-0.00012"), (0.7512, "0.75"), (3e-7, "3e-07")],
)
def test_effects_have_significant_digits(
    mean: float, text: str, latents_report: dict[str, Any]
) -> None:
    assert effects(latents_report, 3, mean=mean) == [text] * 3


@pytest.mark.parametrize(("questions", "star"), [(SURE - 1, ""), (SURE, "*")])
def test_few_questions_are_sure_of_nothing(
    questions: int, star: str, latents_report: dict[str, Any]
) -> None:
    told = effects(latents_report, questions, mean=-0.5, low=-0.6, high=-0.4)
    assert told == [f"-0.5{star}"] * 3
    title = table_of(latents_report, "direct effect").title
    assert ("too few" in title) == (not star) and ("leaves out 0" in title) == bool(star)


def test_every_measure_of_depth_has_a_table() -> None:
    turn = {"l": 1, "depth": 0.5}
    report: dict[str, Any] = {
        "blocks": 4,
        "scalars": {
            "last_turn_of_cosine_block": turn,
            "first_overlap_above": turn,
            "first_kl_final_lens_below_half": turn,
            "first_kl_lens_final_below_half": turn,
        },
        "skips": {
            "depth_score_mean": {
                "by_sequence": [1.0, 2.0, None],
                "against": {
                    "steps": {"slope": 0.5, "slope_ci95": [-0.25, 1.0]},
                    "level": {"slope": None, "slope_ci95": None},
                },
            }
        },
        "gradients": [
            {
                "layer": 1,
                "kinds": ["prompt", "prompt", "chain"],
                "value": [1, 2, -1],
                "change": 2.0,
            },
            {"layer": 1, "kinds": ["prompt", "chain"], "value": [1.0, 1.0], "change": 2.0},
        ],
        "erasure": {
            "layers": [0, 2],
            "by_sequence": [{"kinds": ["prompt", "chain"], "effect": [[0.1, 0.4], [0.3, 0.2]]}],
        },
    }
    turns, score, gradients, erased = (table.rows for table in tables(report))
    assert [row[0] for row in turns] == [
        "last layer at which cos(block, h) changes sign",
        "first layer with top-5 overlap > 0.3",
        "first layer with KL(final || lens) below half its maximum",
        "first layer with KL(lens || final) below half its maximum",
    ]
    assert score == [["mean", "1.5", "+0.5 [-0.25, +1]", "-"]]
    assert gradients == [["1", "2", "0", "2"]]
    assert erased == [["0", "0.1", "0.4"], ["2", "0.3", "0.2"]]
