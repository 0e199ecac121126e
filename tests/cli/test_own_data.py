"""Questions of the user's own on the command line."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from latentgym.cli.main import main
from latentgym.evaluation.results import load_result
from latentgym.system import plugins

ENV = "latent/Custom-token"
TINY = ["--model", "tiny:gpt2:1x1x8", "--preset", "sft-tiny", "--steps", "1"]
SMALL = ["-o", "think=20", "-o", "answer=4"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working directory, with two files of questions and a module of the user's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(plugins, "_trusted", set())
    for name, numbers in (("mine", range(40)), ("exam", range(36, 48))):
        rows = [{"question": f"What is {n} + 1?", "answer": n + 1} for n in numbers]
        Path(f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    Path("my_graders.py").write_text("def same(answer, gold):\n    return answer == gold\n")
    yield tmp_path
    sys.modules.pop("my_graders", None)


def err(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join(capsys.readouterr().err.split())


def test_what_is_trained_on_is_not_tested(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = ["--data", "mine.jsonl", "--grader", "number"]
    assert main(["train", "cot", ENV, *TINY, *SMALL, *own, "--out", "a"]) == 0
    assert "evaluated on 10 % of the questions, by a hash of their text" in err(capsys)
    held = load_result(Path("a"))
    assert 0 < held.n < 40 and held.trained_on == 0 and held.split == "test"
    assert held.about["held_out"] == "10 % of the questions, by a hash of their text"
    assert main(["eval", "cot", ENV, "--checkpoint", "a", "--out", "b"]) == 0
    again = load_result(Path("b"))
    assert (again.n, again.dataset_hash) == (held.n, held.dataset_hash)
    assert main(["rescore", "b"]) == 0
    capsys.readouterr()
    # Another test takes the place of what was held out.
    argv = ["eval", "cot", ENV, "--checkpoint", "a", "--test-data", "exam.jsonl", "--out", "c"]
    assert main(argv) == 0
    exam = load_result(Path("c"))
    assert (exam.n, exam.source) == (12, "path:exam.jsonl") and exam.trained_on


def test_a_test_file_is_apart(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = ["--data", "mine.jsonl", "--test-data", "exam.jsonl", "--grader", "number"]
    assert main(["train", "cot", ENV, *TINY, *SMALL, *own, "--out", "a"]) == 0
    told = err(capsys)
    assert "4 of the 40 questions of path:mine.jsonl are in exam.jsonl too" in told
    held = load_result(Path("a"))
    assert (held.n, held.trained_on, held.source) == (12, 0, "path:exam.jsonl")
    assert held.about["held_out"] == "the questions of exam.jsonl"


def test_info_validate_and_envs_know_of_it(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = ["--data", "mine.jsonl", "--grader", "my_graders:same", "-o", "holdout=0"]
    assert main(["info", ENV, *own, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["graded_by"] == "my_graders:same" and "40 questions" in told["task"]
    assert main(["validate", ENV, *own]) == 0
    assert "40 questions, 0 faults" in capsys.readouterr().out
    assert main(["envs", "--json"]) == 0
    (row,) = (r for r in json.loads(capsys.readouterr().out)["tasks"] if r["task"] == "Custom")
    assert row["data"] == row["licence"] == "your own"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--grader", "number"], "give data=, a file"),
        (["--data", "mine.jsonl"], "say how answers are graded"),
        (["--data", "mine.jsonl", "--grader", "nmber"], "did you mean 'number'"),
        (["--data", "gone.jsonl", "--grader", "number"], "neither a file, a folder nor a hub id"),
        (["--data", "o/n", "--grader", "number"], "no file or folder o/n, and as a hub id"),
        (["--data", "", "--grader", "number"], "--data is empty"),
        (["--data", "mine.jsonl", "-o", "data=x", "--grader", "number"], "data is given twice"),
        (["--data", "mine.jsonl", "--grader", "my_graders:none"], "has no 'none'"),
    ],
    ids=str,
)
@pytest.mark.parametrize(
    "command",
    [
        ["train", "cot"],
        *(pytest.param(c, marks=pytest.mark.thorough) for c in (["info"], ["validate"])),
        pytest.param(["eval", "cot"], marks=pytest.mark.thorough),
    ],
)
def test_bad_input_is_told_in_a_sentence(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    command: list[str],
    words: list[str],
    says: str,
) -> None:
    assert main([*command, ENV, *words]) == 2
    assert says in err(capsys)


def test_a_file_names_no_code(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = ["--data", "mine.jsonl", "--grader", "my_graders:same"]
    assert main(["train", "cot", ENV, *TINY, *SMALL, *own, "--out", "a"]) == 0

    def forget() -> None:
        plugins._trusted.clear()
        sys.modules.pop("my_graders", None)
        capsys.readouterr()

    reading: list[list[str]] = [
        ["eval", "cot", ENV, "--checkpoint", "a"],
        ["rescore", "a"],
        ["analyze", "depth", "a", "--out", "d"],
    ]
    for argv in reading:
        forget()
        assert main(argv) == 2
        told = err(capsys)
        assert "names the module 'my_graders'" in told and "--module my_graders" in told
        assert "my_graders" not in sys.modules
    forget()
    assert main(["leaderboard", "a", "--check"]) == 0
    assert "not graded again" in capsys.readouterr().out and "my_graders" not in sys.modules
    assert main(["eval", "cot", ENV, "--checkpoint", "a", "--grader", "my_graders:same"]) == 0
    forget()
    assert main(["rescore", "a", "--module", "my_graders"]) == 0


def test_a_label_names_no_code(folder: Path) -> None:
    from latentgym.errors import UsageError
    from latentgym.openrlhf.prompts import PromptRow

    options: dict[str, Any] = {"model": "m", "data": "mine.jsonl", "grader": "my_graders:same"}
    with pytest.raises(UsageError, match="names the module 'my_graders'"):
        PromptRow.read(PromptRow(ENV, 0, options).label())
