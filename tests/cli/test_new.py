"""What `latentgym new` writes passes its tests and the linter as it is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from latentgym.cli.main import main

KINDS = [
    ("agent", "my-method", ["--family", "continuous"]),
    pytest.param("agent", "Two_vectors", ["--family", "hybrid"], marks=pytest.mark.thorough),
    pytest.param("agent", "words", ["--family", "token"], marks=pytest.mark.thorough),
    pytest.param("task", "MyLargest", [], marks=pytest.mark.thorough),
]


def in_process(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "name", "more"), KINDS)
def test_it_passes_its_tests_as_it_is(
    kind: str, name: str, more: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "mine"
    assert main(["new", kind, name, *more, "--out", str(folder)]) == 0
    module = name.replace("-", "_").lower()
    assert f"test_{module}.py" in capsys.readouterr().err
    written = {path.name for path in folder.iterdir()}
    assert written >= {f"{module}.py", f"test_{module}.py", f"{module}.md"}
    assert not any("$" in p.read_text() for p in folder.glob("*.py"))
    ran = in_process(folder, "pytest", "-q", "-p", "no:cacheprovider", f"test_{module}.py")
    assert ran.returncode == 0, ran.stdout[-2000:]
    rules = ("--select", "E,F,UP,B", "--line-length", "100")
    linted = in_process(folder, "ruff", "check", *rules, ".")
    assert linted.returncode == 0, linted.stdout


def test_a_new_task_can_be_asked_about(tmp_path: Path) -> None:
    assert main(["new", "task", "MyTask", "--out", str(tmp_path)]) == 0
    told = in_process(tmp_path, "latentgym", "info", "mytask:MyTask-token")
    assert told.returncode == 0 and "MyTask, split train" in told.stdout, told.stderr


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["agent", "cot"], "there is agent cot already"),
        (["task", "GSM8K"], "there is task GSM8K already"),
        (["agent", "3d"], "cannot be the name of an agent"),
        (["agent", "a/b"], "cannot be the name"),
        (["agent", "class"], "cannot be the name"),
        (["task", "ü"], "cannot be the name of a task"),
        (["agent", "true"], "cannot be the name of an agent"),
        (["task", "None"], "cannot be the name of a task"),
        (["agent", "COT"], "there is agent cot already"),
        (["task", "gsm8k"], "there is task GSM8K already"),
        (["agent", "GRPO"], "GRPOConfig is what the file imports already"),
        (["agent", "recipe"], "Recipe is what the file imports already"),
        (["task", "question"], "Question is what the file imports already"),
        (["agent", "random"], "random.py would hide a module of that name"),
        (["task", "torch"], "torch.py would hide a module of that name"),
        (["head", "x"], "no action 'head'"),
    ],
)
def test_names_that_cannot_be(
    argv: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = [] if argv[0] == "head" else ["--out", str(tmp_path)]
    assert main(["new", *argv, *out]) == 2
    assert sentence in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.md").write_text("notes")
    assert main(["new", "agent", "mine", "--out", str(tmp_path)]) == 2
    assert "is there already" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.md"]
