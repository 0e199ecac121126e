"""The benchmark of retrieval runs and reports what the docs promise; it asserts no speed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from latentgym.cli.main import main


@pytest.mark.thorough
def test_both_engines_are_compared(tmp_path: Path) -> None:
    target = tmp_path / "bench.json"
    argv = ["bench", "retrieval", "--queries", "20", "--rounds", "1", "--json", str(target)]
    assert main(argv) == 0
    (report,) = json.loads(target.read_text())
    rates = report["queries_per_second"]
    assert len(rates) == 10 and all(rate > 0 for rate in rates.values())
    assert {name.partition(",")[0] for name in rates} == {"lucene", "bm25s"}
    assert len(report["ratios"]) == 3 and report["seconds"]["lucene, build"] > 0
    assert 0.5 < report["same_answers"]["first passage, lucene and bm25s"] <= 1


def test_bad_settings(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "retrieval", "--k", "0"]) == 2
    assert "at least 1" in capsys.readouterr().err
