"""A search as it goes, on the command line; and how tables mark an oracle."""

from __future__ import annotations

from pathlib import Path

import pytest

from latentgym.cli.main import main

SEEK = ["eval", "latentseek", "latent/GSM8K-token", "--model", "tiny", "-o", "think=12"]


def test_each_attempt_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    argv = [*SEEK, "--index", "3", "--watch", "--iterations", "2", "--ratio", "1", "--lr", "1"]
    assert main([*argv, "--reward", "constant"]) == 0
    shown = capsys.readouterr().err
    assert "question 3, iteration 0" in shown and "question 3, iteration 2" in shown
    assert shown.count("reward -1.000") == 3 and "tokens changed 0" in shown
    assert "question 4" not in shown


def test_checks_of_verifiers_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    argv = [*SEEK, "--index", "3", "--watch", "--iterations", "0", "--verifier.tokens", "2"]
    assert main(argv) == 0
    shown = capsys.readouterr().err
    assert all(name in shown for name in ("calculation", "correctness", "completeness"))


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["eval", "cot", "GSM8K-token", "--model", "tiny", "--watch"], "nothing to watch"),
        ([*SEEK, "--watch", "--backend", "ray", "--workers", "2"], "use --backend local"),
    ],
)
def test_where_there_is_nothing_to_watch(
    argv: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv) == 2
    assert says in capsys.readouterr().err


def test_an_oracle_is_marked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    assert main([*SEEK, "--limit", "2", "--reward", "psrm", "--out", str(out)]) == 0
    capsys.readouterr()
    assert main(["leaderboard", str(out)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "latentseek (oracle)" in shown
    assert "oracle: looks at the gold answers to choose, so it is an upper bound" in shown
