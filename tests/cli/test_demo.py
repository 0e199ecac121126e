"""`latentgym demo`, with two steps of training and a tiny model in the place of SmolLM2."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from latentgym.cli import demo
from latentgym.cli.main import main
from latentgym.evaluation.suites.reading import read_suite


@pytest.fixture
def told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[str, str]:
    """What it prints on stdout and on stderr."""

    def quick(argv: list[str]) -> int:
        training = ["--steps", "2", "--eval-limit", "8"]
        return main([*argv[:-4], *training, *argv[-2:]] if argv[0] == "train" else argv)

    monkeypatch.setattr(demo, "latentgym", quick)
    monkeypatch.setattr(demo, "_MODEL", "tiny:gpt2:1x1x16")
    monkeypatch.delenv("LATENTGYM_DATA", raising=False)
    assert main(["demo", "--limit", "1", "--out", str(tmp_path / "demo")]) == 0
    out, err = capsys.readouterr()
    return out, " ".join(err.split())


def test_each_result_is_shown_once_and_made_up_problems_without_a_score(
    told: tuple[str, str],
) -> None:
    out, err = told
    first = [line.split()[0] for line in out.splitlines() if line.strip()]
    for run in ("mnns-mixtures", "mnns-words", "mnns-majority"):
        assert first.count(run) == 1
    assert out.count("MNNS, test, generated") == 1
    assert "accuracy" not in out and "GSM8K, test" not in out
    _, title, problem = out.partition("a problem of GSM8K, sample")
    assert title and title not in problem
    for part in ("question", "gold", "gsm8k-words", "gsm8k-mixtures"):
        assert problem.count(part) == 1
    assert "1 to 3 of 100 problems" in err and "shown in the place of a score" in err
    assert re.search(r"wrote \S+/demo/page.html", err)
    # The suite `cpu-demo` says the same.
    ran = [sorted(line.split()) for line in re.findall(r"\$ latentgym (.*?) --out", err)]
    here = {"smollm2-135m": "tiny:gpt2:1x1x16", "4": "1"}
    cells = read_suite("cpu-demo").cells
    assert ran == [sorted(here.get(word, word) for word in cell.argv) for cell in cells]
