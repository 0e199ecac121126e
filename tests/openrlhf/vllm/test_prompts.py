"""The prompt file of OpenRLHF's vLLM path."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest

from latentgym.errors import UsageError
from latentgym.openrlhf.prompts import PromptRow, main

GSM8K = "latent/GSM8K-token"


def test_every_line_names_its_question(folder: str, tmp_path: Path) -> None:
    out = tmp_path / "new" / "prompts.jsonl"
    more = ["--split", "train", "--limit", "4", "--options", '{"source": "sample", "think": 9}']
    assert main(["GSM8K-token", "--model", folder, "--out", str(out), *more]) == 0
    rows = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
    options = {"model": folder, "split": "train", "source": "sample", "think": 9}
    task = gym.make(GSM8K, **options).unwrapped.task
    assert [PromptRow.read(row["label"]) for row in rows] == [
        PromptRow(GSM8K, i, options, task.dataset_hash) for i in range(4)
    ]
    for i, row in enumerate(rows):
        assert task.tokenizer.encode(row["input"]) == task.prompt(i)
        assert row["datasource"] == "GSM8K"


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["latent/GSM8K-hybrid"], "latent/GSM8K-token"),
        (["latent/GSM9K-token"], "did you mean"),
        ([GSM8K, "--limit", "999999"], "questions, not 999999"),
        ([GSM8K, "--options", "think=5"], "must be JSON"),
        ([GSM8K, "--options", '{"thonk": 5}'], "thonk"),
        (["latent/MNNS-token", "--model", "tiny"], "symbols of its own"),
    ],
)
def test_mistakes_are_one_sentence_and_leave_no_file(
    argv: list[str], says: str, folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "prompts.jsonl"
    model = [] if "--model" in argv else ["--model", folder]
    assert main([*argv, *model, "--out", str(out)]) == 2
    err = capsys.readouterr().err
    assert says in err
    assert len(err.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_an_older_file_stays_when_writing_fails(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "prompts.jsonl"
    out.write_text("before")

    def broken(self: Any, index: int) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr("latentgym.envs.text.TextTask.prompt", broken)
    with pytest.raises(KeyboardInterrupt):
        main([GSM8K, "--model", folder, "--out", str(out)])
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [
        ("prompts.jsonl", "before")
    ]


@pytest.mark.parametrize(
    "label",
    [
        *("", "42", "7 apples", "[]", '{"env": "latent/GSM8K-token"}'),
        '{"env": "latent/GSM8K-token", "index": "x", "options": {}}',
        '{"env": "latent/GSM8K-token", "index": 1, "options": 5}',
        '{"env": "latent/GSM8K-token", "index": 1, "option": {}}',
    ],
)
def test_other_labels_name_no_question(label: str) -> None:
    with pytest.raises(UsageError, match="label_key label"):
        PromptRow.read(label)


def test_a_row_needs_a_model() -> None:
    with pytest.raises(UsageError, match="--model"):
        PromptRow(GSM8K, 0, {})
