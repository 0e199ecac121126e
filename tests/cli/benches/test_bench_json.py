"""`latentgym bench ... --json`: as with all commands, and to a file."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from latentgym.cli import bench

REPORT = {
    "bench": "fake",
    "settings": {},
    "device": "cpu",
    "scaling": {},
    "seconds": {"a": 1.0},
    "latents_per_second": {
        "8": {"token": {"latents_per_s": 123.0, "floor_per_s": 456.0, "of_token_step": 1.0}}
    },
    "notes": ["A peer is not here."],
}


@pytest.fixture(autouse=True)
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    def imported(name: str) -> Any:
        return SimpleNamespace(FakeBench=dict, run=lambda options: dict(REPORT))

    monkeypatch.setattr(bench, "BENCHES", {"fake": ("fake", "FakeBench", "nothing")})
    monkeypatch.setattr(bench.importlib, "import_module", imported)
    monkeypatch.setattr(bench, "parse", lambda *_: {})


@pytest.mark.parametrize("argv", [["fake", "--json"], ["--json", "fake"], ["--json", "all"]])
def test_the_switch_prints_json_alone(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(argv) == 0
    out = capsys.readouterr().out
    assert out.count("\n") == 1 and json.loads(out)["reports"][0]["seconds"] == {"a": 1.0}


@pytest.mark.parametrize("form", ["--json {}", "--json={}"])
def test_a_file_is_written_beside_the_tables(
    form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "figures.json"
    assert bench.main(["fake", *form.format(target).split()]) == 0
    assert json.loads(target.read_text())[0]["seconds"] == {"a": 1.0}
    out = capsys.readouterr().out
    assert "seconds" in out and "A peer is not here." in out
    assert "latents per second" in out and "456" in out
