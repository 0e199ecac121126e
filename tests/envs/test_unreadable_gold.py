"""A gold answer that no grader reads is told by its file and line, wherever it is met."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from latentgym.cli.main import main
from latentgym.errors import LatentGymError
from latentgym.registry import make_vector_env
from latentgym.rewards import GraderError

MATHS = {"question": "1 + 1?", "answer": "#### 2"}
BAD: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "GSM8K-token": (MATHS, {**MATHS, "answer": "#### two"}),
    "SVAMP-token": (
        {"Body": "One", "Question": "1 + 1?", "Answer": 2.0},
        {"Body": "One", "Question": "1 + 1?", "Answer": "x"},
    ),
    "MATH-token": (
        {"problem": "1 + 1?", "solution": r"\boxed{2}"},
        {"problem": "1 + 1?", "solution": r"\boxed{%s}" % ("9" * 2000)},
    ),
    "AIME2024-token": (
        {"problem": "1 + 1?", "answer": "2"},
        {"problem": "1 + 1?", "answer": "1000"},
    ),
}


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("env", BAD)
def test_it_names_file_and_line(env: str, tmp_path: Path) -> None:
    good, bad = BAD[env]
    path = written(tmp_path / "rows.jsonl", [good, good, bad])

    def judge() -> None:
        task = make_vector_env(f"latent/{env}", 1, source=str(path), split="test").unwrapped.task
        task.grade(0, "2", "2")
        task.grade(2, "2", "2")

    with pytest.raises(LatentGymError) as error:
        judge()
    assert f"{path}:3: " in str(error.value) and "mend or delete the row." in str(error.value)
    assert "\n" not in str(error.value)


def test_it_stays_an_error_of_graders(tmp_path: Path) -> None:
    path = written(tmp_path / "rows.jsonl", [BAD["GSM8K-token"][1]])
    task = make_vector_env("latent/GSM8K-token", 1, source=str(path)).unwrapped.task
    with pytest.raises(GraderError):
        task.grade(0, "2", "2")


def test_no_command_shows_a_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path / "rows.jsonl", [BAD["GSM8K-token"][1]])
    assert main(["validate", "GSM8K-token", "-o", f"source={path}"]) == 2
    assert f"{path}:1: " in capsys.readouterr().err


def test_a_row_that_is_nested_deeply_is_told_by_its_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    for levels in (500, 100_000):
        path.write_text(f"{json.dumps(MATHS)}\n{'[' * levels}{']' * levels}\n")
        with pytest.raises(LatentGymError, match=r"rows\.jsonl:2: "):
            make_vector_env("latent/GSM8K-token", 1, source=str(path))
