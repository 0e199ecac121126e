"""Who mistypes the folder of a run is told which runs there are."""

from __future__ import annotations

from pathlib import Path

import gymnasium as gym
import pytest

from latentgym.cli.main import main
from latentgym.errors import UsageError
from latentgym.system.nearby import no_folder, none_itself, runs_in


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`runs/` here has two of them, and something else."""
    for name, mark in (("cot2", "result.json"), ("tokens", "config.json"), ("notes", "x.md")):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / mark).write_text("")
    (tmp_path / "board.html").write_text("")
    monkeypatch.chdir(tmp_path)


def test_runs_are_told_from_other_folders(runs: None) -> None:
    assert runs_in(Path("runs")) == ["cot2", "tokens"]
    assert runs_in(Path("nowhere")) == runs_in(Path("board.html")) == []
    assert no_folder(Path("runs/cot3")) == "there is no folder runs/cot3; runs/ has cot2, tokens"
    assert no_folder(Path("nowhere/cot3")) == "there is no folder nowhere/cot3"
    assert no_folder(Path("board.html")) == "board.html is a file, not a folder"
    assert none_itself(Path("runs"), "x") == "runs holds no x itself; runs/ has cot2, tokens"
    for number in range(20):
        (Path("runs") / f"many-{number}" / "checkpoints").mkdir(parents=True)
    assert no_folder(Path("runs/a")).endswith(" and 14 more")


@pytest.mark.parametrize("argument", ["dynamics", "model"])
@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("runs/cot3", "no folder runs/cot3; runs/ has cot2, tokens"),
        ("runs", "runs holds no model itself; runs/ has cot2, tokens"),
        ("board.html", "board.html is a file, not a folder"),
        ("owner/name", "was not downloaded before"),
    ],
)
def test_of_an_environment(argument: str, name: str, says: str, runs: None) -> None:
    with pytest.raises(UsageError, match=says):
        gym.make("latent/MNNS-continuous", **{argument: name})


MISSING = "no folder runs/cot3; runs/ has cot2, tokens"
FILE = "board.html is a file, not a folder"


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("analyze depth runs/cot3", MISSING),
        ("analyze depth runs/cot3 latent/MNNS-token", MISSING),
        ("view runs/cot3", MISSING),
        ("leaderboard runs/cot3", MISSING),
        ("rescore runs/cot3", MISSING),
        ("compare runs/cot3 runs", MISSING),
        ("eval cot latent/MNNS-token --checkpoint runs/cot3", MISSING),
        ("analyze latents board.html", FILE),
        ("view board.html", FILE),
        ("leaderboard board.html", FILE),
        ("eval cot latent/MNNS-token --checkpoint board.html", FILE),
        ("eval cot latent/MNNS-token --model board.html", FILE),
        ("analyze depth runs", "runs holds no complete checkpoint itself; runs/ has cot2, tokens"),
    ],
)
def test_of_a_command(
    command: str, says: str, runs: None, capsys: pytest.CaptureFixture[str]
) -> None:
    (Path("runs") / "cot2" / "result.json").unlink()
    (Path("runs") / "cot2" / "config.json").write_text("")
    (Path("runs") / "tokens" / "config.json").rename(Path("runs") / "tokens" / "checkpoints")
    assert main(command.split()) == 2
    assert says in capsys.readouterr().err
