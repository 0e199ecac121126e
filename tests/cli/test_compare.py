"""`latentgym compare`: runs of one task, of many, and those that do not belong together."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from latentgym.cli.main import main

Made = Callable[..., Any]


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


def test_two_runs(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    one, _ = made("one", [1, 0, 0, 0], flops_per_answer=2.0)
    other, _ = made("other", [1, 1, 1, 0], flops_per_answer=3.0)
    assert main(["compare", str(one), str(other)]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    told = " ".join(out.split())
    assert "75.00 %, against 25.00 %" in told
    assert "+50.00 points" in told and "4 shared questions, 1 seed" in told
    assert "2 won, 0 lost, 2 tied; sign test p = 0.5" in told
    assert "1.5 times the FLOP" in told and "warning" not in told


def test_samples_are_compared_by_pass_at_k(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    """By what each question's samples hold, whatever its first one, the answer, says."""
    hit, half, miss = [1, 1, 0], [0, 1, 0], [0, 0, 0]
    one, _ = made("one", [1, 0, 0], samples=[hit, half, miss])
    other, _ = made("other", [0, 0, 0], samples=[half, half, half])
    assert main(["compare", str(one), str(other), "--pass-at", "2", "--json"]) == 0
    [comparison] = json.loads(capsys.readouterr().out)["comparisons"]
    [task] = comparison["tasks"].values()
    assert comparison["compared"] == "pass@2"
    # Of two of three samples one right one is among 2/3, two right ones are among all.
    assert task["accuracy"] == pytest.approx(2 / 3)
    assert task["other_accuracy"] == pytest.approx((1 + 2 / 3) / 3)
    assert (task["won"], task["lost"], task["tied"]) == (1, 1, 1)
    assert main(["compare", str(one), str(other), "--pass-at", "3"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "pass@3 100.00 %, against 66.67 %" in told
    plain, _ = made("plain", [1, 0, 0])
    for k, run, sentence in (("4", other, "has 3 of the 4"), ("1", plain, "has 0 of the 1")):
        assert main(["compare", str(one), str(run), "--pass-at", k]) == 2
        out, err = capsys.readouterr()
        assert not out and f"{sentence} samples of a question" in " ".join(err.split())


def test_cautions_are_warned_of(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    one, _ = made("one", [1, 0], prompts="1")
    other, _ = made("other", [1, 1, 1], prompts="2")
    assert main(["compare", str(one), str(other), "--json"]) == 0
    [comparison] = json.loads(capsys.readouterr().out)["comparisons"]
    [task] = comparison["tasks"].values()
    assert task["n"] == 2
    assert task["cautions"] == ["other: other questions: 3 (the other: 2)"]
    assert main(["compare", str(one), str(other)]) == 0
    assert "warning: other: other questions" in capsys.readouterr().out


def test_folders_of_a_suite_are_compared_over_tasks_and_seeds(
    made: Made, capsys: pytest.CaptureFixture[str]
) -> None:
    for agent, right in (("a", 1), ("b", 3)):
        for task in ("MNNS", "ProsQA"):
            for seed in (0, 1):
                scores = [1] * right + [0] * (4 - right)
                made(f"{agent}/{task}/seed-{seed}", scores, task=task, seeds=[seed])
    root = made("other", [1])[0].parent
    assert main(["compare", str(root / "a"), str(root / "b")]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert told.count("4 shared questions, 2 seeds") == 2
    assert "over 2 tasks IQM 75.00 [75.00, 75.00] %, against 25.00 [25.00, 25.00] %" in told
    assert "1.000 [1.000, 1.000]: chance of the better run" in told


def test_what_does_not_belong_together_is_refused(
    made: Made, capsys: pytest.CaptureFixture[str]
) -> None:
    one, _ = made("x/one", [1, 0])
    made("x/two", [1, 0], agent="hrpo")
    other, _ = made("other", [1, 0], task="ProsQA")
    for folders, told in (
        ([one], "two folders or more"),
        ([one, other], "no task in common"),
        ([other, one.parent], "runs of several kinds"),
        ([one, one / "nowhere"], "no folder"),
    ):
        assert main(["compare", *map(str, folders)]) == 2
        assert told in capsys.readouterr().err


@pytest.mark.parametrize("command", ["compare {broken} {whole}", "leaderboard {broken}"])
def test_what_is_damaged_is_told_once(
    command: str, made: Made, capsys: pytest.CaptureFixture[str]
) -> None:
    broken, whole = (made(name, [1, 0])[0] for name in ("broken", "whole"))
    (broken / "result.json").write_text("{")
    argv = command.format(broken=broken, whole=whole).split()
    assert main(argv) == 2
    told = capsys.readouterr().err
    assert told.count("is damaged") == 1 and "eval ... --out" not in told
    assert main(["leaderboard", str(broken.parent)]) == 0
    assert "left out: " in capsys.readouterr().err
