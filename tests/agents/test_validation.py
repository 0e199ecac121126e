"""A run is evaluated on questions that are neither trained on nor the test's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from latentgym.agents.base import agent_class
from latentgym.agents.run import Run
from latentgym.agents.validation import Asked, validation
from latentgym.data.own import same_question
from latentgym.errors import UsageError
from latentgym.evaluation.overlap import HELD_OUT, Trained, held_out, trained_on
from latentgym.registry import make_vector_env

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # that samples are samples


def run_on(env: str, **options: Any) -> Run:
    return Run("cot", agent_class("cot").config_class(), env, "tiny", options)


def asked_by(env: str, most: int | None = None, **options: Any) -> Asked:
    rest = {name: value for name, value in options.items() if name not in ("split", "limit")}
    return validation(run_on(env, **options), rest, most)


def written(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def task_of(env: str, **options: Any) -> Any:
    return make_vector_env(env, 1, **options).unwrapped.task


@pytest.mark.parametrize(
    ("env", "options", "split"),
    [
        ("ProsQA-token", {"size": 40}, "valid"),
        ("GSM8KAug-token", {"source": "generated"}, "valid"),
        ("NQ-token", {"source": "generated"}, "dev"),
        ("MovieLens-token", {"source": "generated", "items": 10}, "valid"),
        # One file, or one sample, stands for every split.
        ("GSM8KAug-token", {"source": "sample"}, None),
        ("HotpotQA-token", {"source": "FILE"}, None),
        # What is trained on is not what is evaluated on.
        ("ProsQA-token", {"size": 40, "split": "valid"}, None),
        # There is no such split.
        ("MNNS-token", {"m": 2, "high": 4}, None),
        ("GSM8K-token", {"source": "sample"}, None),
    ],
)
def test_the_split_is_the_tasks_or_a_part_is_held_out(
    env: str, options: dict[str, Any], split: str | None, tmp_path: Path
) -> None:
    if options.get("source") == "FILE":
        rows = [
            {"id": f"{i}", "question": f"Who is {i}?", "golden_answers": ["A"]} for i in range(60)
        ]
        options = {"source": written(tmp_path / "rows.jsonl", rows), "holdout": 0.1, "passages": 0}
    asked = asked_by(env, **options)
    assert asked.held_out == (0.0 if split else HELD_OUT)
    if split:
        assert asked.run.env_options["split"] == split and asked.left_out == []
        assert str(asked) == f"the split {split}"
    else:
        assert asked.run.env_options == options
        assert str(asked).startswith("10 % of the ")
    asked.check()


@pytest.mark.parametrize(("env", "options"), [("MNNS-token", {}), ("RG_gcd-token", {"size": 400})])
def test_what_is_held_out_is_known_by_its_text(env: str, options: dict[str, Any]) -> None:
    task = task_of(env, **options)
    found = held_out(task, HELD_OUT)
    assert 0.5 * HELD_OUT < len(found) / len(task) < 1.5 * HELD_OUT
    texts = [same_question(task.question(i).text) for i in range(len(task))]
    inside = {texts[i] for i in found}
    assert {i for i, text in enumerate(texts) if text in inside} == set(found.tolist())
    # Of fewer questions those are held out that are held out of more.
    fewer = task_of(env, **options, limit=len(task) // 2)
    assert held_out(fewer, HELD_OUT).tolist() == [i for i in found if i < len(fewer)]


def test_the_rest_of_a_file_of_ones_own_has_questions_to_hold_out(tmp_path: Path) -> None:
    """The hash that parts training from test must not be the one that parts it again."""
    rows = [{"question": f"What is {i} + 1?", "answer": str(i + 1)} for i in range(400)]
    options = {"data": written(tmp_path / "mine.jsonl", rows), "grader": "number"}
    asked = asked_by("Custom-token", **options)
    train, test = (task_of("Custom-token", split=name, **options) for name in ("train", "test"))
    assert 0.05 < len(asked.left_out) / len(train) < 0.2
    assert trained_on(Trained((test,)), train, np.array(asked.left_out)) == 0


def test_what_was_held_out_was_not_trained_on() -> None:
    task = task_of("MNNS-token", m=3)
    found, every = held_out(task, HELD_OUT), np.arange(len(task))
    for shares in ((HELD_OUT,), (HELD_OUT, 0.0)):
        trained = Trained((task,), shares=shares)
        assert trained_on(trained, task, found) == 0
        assert trained_on(trained, task, every) == len(task) - len(found)
    assert trained_on(Trained((task, task), shares=(HELD_OUT,)), task, found) == len(found)


@pytest.mark.parametrize(
    ("options", "limit", "says"),
    [
        ({"limit": 2}, None, "of the 2 questions of MNNS train none is held out"),
        ({"m": 2, "high": 4}, 100, r"\d questions of latent/MNNS-token are held out .* not 100"),
    ],
)
def test_too_few_to_hold_out_are_told(
    options: dict[str, Any], limit: int | None, says: str
) -> None:
    asked = asked_by("MNNS-token", limit, **options)
    with pytest.raises(UsageError, match=says):
        asked.check()
