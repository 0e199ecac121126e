"""The command as a user runs it, and what happens when its processes are killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from latentgym.cli.main import main
from latentgym.training.manifest import find

pytest.importorskip("openrlhf", reason="needs OpenRLHF (see the README)")

TRAIN = [
    *("train", "mts-grpo", "latent/MNNS-continuous", "--preset", "grpo", "--eval-limit", "64"),
    *("--grpo.prompts", "8", "--grpo.group-size", "4", "--save-every", "1", "--json"),
]
DISTRIBUTED = ["--backend", "openrlhf"]


def start(*argv: str) -> subprocess.Popen[str]:
    code = "from latentgym.cli.main import run; run()"
    return subprocess.Popen(
        [sys.executable, "-c", code, *argv],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str], seconds: float) -> tuple[int, str, str]:
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    return process.returncode, out, err


def running(session: int, name: str) -> list[int]:
    """Processes of that session whose command line holds the name."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            stat, command = (folder / "stat").read_text(), (folder / "cmdline").read_text()
        except OSError:
            continue  # it has ended
        state, _, _, of_session = stat.rpartition(")")[2].split()[:4]
        if int(of_session) == session and state != "Z" and name in command:
            found.append(int(folder.name))
    return found


def wait_for(what: str, true: object, seconds: float = 420) -> None:
    deadline = time.monotonic() + seconds
    while not true():  # type: ignore[operator]
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.2)


def steps_in(out: Path) -> int:
    log = out / "metrics.jsonl"
    return len(log.read_text().splitlines()) if log.exists() else 0


@pytest.mark.cluster
@pytest.mark.thorough
def test_a_killed_worker_ends_the_run_and_resumed_it_is_the_local_one(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "local", tmp_path / "openrlhf"
    argv = [*TRAIN, "--steps", "20", "--grpo.kl", "0.05"]
    distributed = [*argv, *DISTRIBUTED, "--colocate", "--out", str(theirs)]
    process = start(*distributed)
    wait_for("two steps", lambda: process.poll() is not None or steps_in(theirs) >= 2)
    (worker,) = running(process.pid, "ray::PolicyWorker")
    os.kill(worker, signal.SIGKILL)
    code, _, err = finish(process, 180)
    assert code == 2 and "Traceback" not in err
    assert "a worker died" in err and "--resume" in err
    assert 2 <= steps_in(theirs) < 20

    process = start(*distributed, "--resume")
    code, out, err = finish(start(*argv, "--out", str(ours)), 400)
    assert code == 0, err
    code, said, err = finish(process, 400)
    assert code == 0, err
    logged = (theirs / "metrics.jsonl").read_text().splitlines()
    steps = [json.loads(line)["step"] for line in logged]
    assert steps == list(range(1, 21)), "no step was lost or taken twice"
    local, remote = (json.loads(text.splitlines()[-1]) for text in (out, said))
    assert len(said.splitlines()) == 1, "stdout holds the result alone"
    assert remote["accuracy"] == local["accuracy"]
    one, other = (load_file(find(folder) / "policy.safetensors") for folder in (ours, theirs))
    assert all(float((one[k] - other[k]).abs().max()) < 1e-5 for k in one)
    assert (theirs / "result.json").exists() and list((theirs / "tensorboard").iterdir())


@pytest.mark.parametrize(
    ("extra", "sentence"),
    [
        (["--gpus", "3"], "do not divide among 3 workers"),
        (["--stage", "csft"], "add --stage grpo"),
        (["--logger", "wandb"], "leave out --logger"),
        (["--ray-address", "127.0.0.1:1"], "no Ray cluster answers"),
        (["--object-store-mb", "5"], "at least 75 MiB"),
    ],
)
def test_what_cannot_work_is_said_before_anything_starts(
    extra: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*TRAIN, *DISTRIBUTED, *extra, "--out", str(tmp_path / "run")]) == 2
    assert sentence in capsys.readouterr().err
