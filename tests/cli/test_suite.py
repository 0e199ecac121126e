"""`latentgym suite`: cells that are run, skipped, gone on with, and that fail."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from latentgym.cli.main import main
from latentgym.cli.suite import check_commands
from latentgym.errors import UsageError
from latentgym.evaluation.results import load_result
from latentgym.evaluation.suites.reading import read_suite, shipped

TINY = """
about = "tiny"
[defaults]
model = "tiny:gpt2:1x1x8"
limit = 6
[cells.words]
eval = "cot"
preset = "self-consistency"
env = "latent/MNNS-token"
knob.samples = [2]
[cells.stranger]
train = "cot"
env = "latent/MNNS-token"
steps = 2
options.m = -1
[cells.after]
eval = "cot"
env = "latent/MNNS-token"
start = "stranger"
"""
TRAINED = """
about = "trained"
[cells.words]
train = "cot"
preset = "sft-tiny"
env = "latent/MNNS-token"
model = "tiny:gpt2:1x1x8"
limit = 6
steps = 30
settings = { batch-size = 8, save-every = 3, log-every = 1 }
"""


@pytest.fixture
def tiny(tmp_path: Path) -> str:
    (tmp_path / "tiny.toml").write_text(TINY)
    return str(tmp_path / "tiny.toml")


def cut(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """What stands on stdout, which is one line of JSON."""
    [line] = capsys.readouterr().out.splitlines()
    return dict(json.loads(line))


@pytest.mark.slow
def test_what_fails_is_told_and_the_rest_goes_on(
    tiny: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    out = tmp_path / "runs"
    run = ["suite", "run", tiny, "--out", str(out), "--jobs", "2"]
    assert main(run) == 1
    said = capsys.readouterr()
    assert "failed: stranger seed 0: " in said.err and "Traceback" not in said.err
    assert "failed: after seed 0: not run, as stranger seed 0 has no result" in said.err
    assert "words" in said.out and max(map(len, said.out.splitlines())) <= 80
    made = out / "words-samples-2" / "seed-0"
    written = (made / "result.json").stat().st_mtime_ns
    # The command of the record is the one that the suite shows.
    assert load_result(made).command.startswith("latentgym eval cot latent/MNNS-token ")

    assert main([*run, "--parts", "results", "--match", "words"]) == 0
    assert (made / "result.json").stat().st_mtime_ns == written
    capsys.readouterr()

    assert main(["suite", "show", tiny, "--out", str(out), "--json"]) == 0
    states = {cell["name"]: cell["state"] for cell in cut(capsys)["cells"]}
    assert states == {"words-samples-2": "done", "stranger": "to do", "after": "to do"}
    assert main(["suite", "show", tiny, "--out", str(out)]) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80

    assert main([*run, "--limit", "5"]) == 2
    assert "holds a result of other settings" in capsys.readouterr().err


@pytest.mark.thorough
@pytest.mark.slow
def test_an_interrupted_suite_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    steps = 30
    (tmp_path / "own.toml").write_text(TRAINED)
    out = tmp_path / "runs"
    run = ["suite", "run", str(tmp_path / "own.toml"), "--out", str(out)]
    where = out / "words" / "seed-0"

    def interrupt() -> None:
        while not list(where.glob("checkpoints/step-*")):
            time.sleep(0.05)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    # Tests that were started in the background pass on that they ignore it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=interrupt, daemon=True).start()
    try:
        assert main(run) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    err = capsys.readouterr().err
    assert "the same command goes on" in err and "Traceback" not in err
    assert not (where / ".lock").exists()  # its process has ended in order
    assert not (where / "result.json").exists()
    taken = len((where / "metrics.jsonl").read_text().splitlines())
    assert 0 < taken < steps
    assert main(run) == 0
    lines = (where / "metrics.jsonl").read_text().splitlines()
    logged = [json.loads(line)["step"] for line in lines]
    assert sorted(logged) == list(range(logged[0], logged[0] + steps))  # none was taken twice
    assert load_result(where).n == 6


def test_a_command_whose_parent_is_gone_ends(tmp_path: Path) -> None:
    argv = ["train", "cot", "latent/MNNS-token", "--steps", "100000", "--out", str(tmp_path / "x")]
    done = subprocess.run(
        [sys.executable, "-m", "latentgym.cli.child", *argv],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    assert done.returncode in (143, -signal.SIGTERM)  # the latter before it has begun


def test_commands_are_read_before_any_is_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "own.toml"
    for wrong, told in (
        ("settings.tempurature = 1", "tempurature"),
        ("settings.batch = -1", "--batch"),
        ('preset = "none"', "no preset 'none'"),
    ):
        cell = f'[cells.a]\neval = "cot"\nenv = "latent/MNNS-token"\n{wrong}\n'
        path.write_text(f'about = "x"\n{cell}')
        assert main(["suite", "run", str(path), "--out", str(tmp_path / "runs")]) == 2
        err = capsys.readouterr().err
        assert "own, cell a: its command is refused: " in err and told in err
        assert not (tmp_path / "runs").exists()


def test_lists_show_every_suite(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["suite", "list"]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    assert {line.split()[0] for line in out.splitlines()} >= {*shipped()}
    assert main(["suite", "list", "--json"]) == 0
    assert [suite["name"] for suite in cut(capsys)["suites"]] == shipped()


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["run", "cpu-demo", "--backend", "ray"], "--workers go together"),
        (["run", "cpu-demo", "--workers", "2"], "--workers go together"),
        (["show", "cpu-demo", "--parts", "x"], "no part 'x'"),
        (["show", "nothing"], "no suite 'nothing'"),
        (["show", "cpu-demo", "--match", "zzz"], "'zzz' in its name"),
    ],
)
def test_wrong_words_are_refused(
    argv: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["suite", *argv]) == 2
    assert told in capsys.readouterr().err


def test_commands_of_the_demo_are_accepted() -> None:
    check_commands(read_suite("cpu-demo"))
    with pytest.raises(UsageError, match="no suite"):
        read_suite("demo-cpu")
