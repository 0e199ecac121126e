"""`view --question`: one question in the terminal, whatever a model wrote."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from latentgym.cli.main import main

Store = Callable[..., Path]
HOSTILE = "[bold]\x1b[31m </script> [/INST] $x"


@pytest.fixture
def stored(made: Callable[..., Any]) -> Store:
    """`stored(**changes)`: a run of two questions, the second with the changed answer."""

    def store(**changes: Any) -> Path:
        folder, result = made("run", [1.0, 0.0])
        step = {"ids": [3, 4], "tokens": [" a", "b\n"], "weights": [0.75, 0.25], "norm": 1.25}
        texts = {"completion": "so", "answer": "so", "thoughts": "a b", "target": "7"}
        answer = {"seed": 0, **texts, "parsed": "6", "score": 0.0, "n_thoughts": 2}
        steps = [step, {**step, "weights": [0.999, 0.001]}]
        told = {"question": "how many?", "components": {"correct": 0.0}, "steps": steps}
        rollouts = [{**answer, **told, "index": index} for index in (0, 1)]
        rollouts[1] |= changes
        result.save(folder, rollouts)
        return folder

    return store


def printed(capsys: pytest.CaptureFixture[str], folder: Path, question: int = 1) -> str:
    capsys.readouterr()
    assert main(["view", str(folder), "--question", str(question)]) == 0
    return capsys.readouterr().out


def test_a_question_is_told_step_by_step(stored: Store, capsys: pytest.CaptureFixture[str]) -> None:
    folder = stored()
    lines = [" ".join(line.split()) for line in printed(capsys, folder).splitlines()]
    assert lines == [
        "question 1 of MNNS, test; run: cot, tiny",
        "how many?",
        "",
        "step thought norm",
        "1 ␣a 0.75 b⏎ 0.25 1.25",
        "2 ␣a 1.00 1.25",
        "answer so",
        "read as 6",
        "gold 7",
        "score 0 (correct 0)",
    ]
    assert not (folder / "page.html").exists()


@pytest.mark.parametrize("width", ["40", "80"])
def test_it_is_as_wide_as_the_window(
    width: str,
    stored: Store,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", width)
    step = {"ids": [*range(9)], "tokens": ["token"] * 9, "weights": [0.11] * 9}
    long = {"question": "why " * 50, "completion": "so " * 50, "steps": [step] * 2}
    told = printed(capsys, stored(**long))
    assert max(map(len, told.splitlines())) <= int(width)
    assert told.count("0.11") == 18


@pytest.mark.parametrize(
    "changes",
    [
        {"question": HOSTILE},
        {"thoughts": HOSTILE, "steps": []},
        {"steps": [{"ids": [1, 2], "tokens": [HOSTILE, ""], "weights": [0.5, 0.5]}]},
        {"completion": HOSTILE, "parsed": HOSTILE, "target": HOSTILE, "status": HOSTILE},
        {"segments": [{"kind": "tool_response", "text": HOSTILE}]},
    ],
)
def test_what_a_model_wrote_is_text(
    changes: dict[str, Any], stored: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    told = printed(capsys, stored(**changes))
    assert "\x1b" not in told and "[bold]" in told and "[/INST]" in told


def test_a_chain_of_tokens_is_a_text(stored: Store, capsys: pytest.CaptureFixture[str]) -> None:
    step = {"ids": [3], "tokens": ["a"], "weights": [1.0]}
    told = printed(capsys, stored(steps=[step] * 2, thoughts="a a, all of it"))
    assert "a a, all of it" in told and "step" not in told


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--question", "5"], "no answer to question 5; it answers 2 questions from 0 to 1"),
        (["--question", "1", "--html", "x.html"], "leave --html and --plots out"),
        (["--question", "-1"], "--question"),
    ],
)
def test_what_cannot_be_told_is_a_sentence(
    argv: list[str], says: str, stored: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["view", str(stored()), *argv]) == 2
    assert says in capsys.readouterr().err
