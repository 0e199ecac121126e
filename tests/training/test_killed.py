"""A run that is killed at random moments ends with the weights of one that was not.

The moments are counted in calls, not in seconds, so the same kills happen on any machine:
half of them somewhere in a training step, half while a checkpoint is written.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from latentgym.training.manifest import latest

STEPS = 20
KILLS = 2
COMMAND = [
    *("mts-grpo", "latent/MNNS-continuous", "--preset", "grpo", "--k", "2"),
    *("--model", "tiny:gpt2:1x1x16", "--steps", str(STEPS), "--save-every", "1"),
    *("--eval-limit", "0", "--grpo.prompts", "4", "--grpo.group-size", "4", "--resume", "--out"),
]
# Loads the library once and forks a process for each run. A run dies by SIGKILL at its n-th call
# after step `step` begins, or after the checkpoint of that step begins; it answers how it ended
# and how many calls a step and a checkpoint took.
LAUNCHER = """
import json, os, signal, sys
import torch.utils.tensorboard
from latentgym.agents import mts_grpo
from latentgym.cli import train
from latentgym.training import checkpoint, grpo
from transformers.models.gpt2 import modeling_gpt2

plan, calls = {}, {}

def count(place, function, step_of):
    def counted(*args, **options):
        if step_of(args) != plan["step"]:
            return function(*args, **options)
        doomed, left = plan["place"] == place, [plan["calls"]]
        calls[place] = 0

        def on_call(frame, event, argument):
            calls[place] += 1
            if doomed and calls[place] > left[0]:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.setprofile(on_call)
        try:
            return function(*args, **options)
        finally:
            sys.setprofile(None)
    return counted

grpo.GRPO.step = count("step", grpo.GRPO.step, lambda args: args[1] + 1)
checkpoint.save = count("checkpoint", checkpoint.save, lambda args: args[1])
for line in sys.stdin:
    plan = json.loads(line)
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            train.main(plan["argv"])
            os.write(theirs, json.dumps(calls).encode())
            os._exit(0)
        finally:
            os._exit(1)
    os.close(theirs)
    status = os.waitpid(pid, 0)[1]
    print(json.dumps([status, os.read(ours, 4096).decode()]), flush=True)
    os.close(ours)
"""


class Launcher:
    def __init__(self, log: Path) -> None:
        self.log = log
        with log.open("w") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-c", LAUNCHER],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                text=True,
            )

    def run(self, out: Path, place: str = "", step: int = STEPS, calls: int = 0) -> tuple[int, Any]:
        """How the run ended (as `os.wait` says it), and the calls that it counted."""
        assert self.process.stdin and self.process.stdout
        plan = {"argv": [*COMMAND, str(out)], "place": place, "step": step, "calls": calls}
        self.process.stdin.write(json.dumps(plan) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        assert answer, self.log.read_text()
        status, counted = json.loads(answer)
        return status, json.loads(counted or "{}")


@pytest.fixture
def launcher(tmp_path: Path) -> Iterator[Launcher]:
    launched = Launcher(tmp_path / "log")
    yield launched
    launched.process.communicate(timeout=30)


def newest(out: Path) -> Path:
    found = latest(out / "checkpoints")
    assert found is not None
    return found


@pytest.mark.thorough
@pytest.mark.slow
def test_killed_twice_and_resumed_ends_with_the_same_weights(
    launcher: Launcher, tmp_path: Path
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    status, counted = launcher.run(whole)
    assert status == 0, launcher.log.read_text()
    assert counted["step"] > 1000 and counted["checkpoint"] > 100

    rng = random.Random(0)
    for number, step in enumerate(sorted(rng.sample(range(2, STEPS), KILLS))):
        place = ("step", "checkpoint")[number % 2]
        moment = rng.randrange(int(0.9 * counted[place]))
        status, _ = launcher.run(killed, place, step, moment)
        assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, (place, step)
        assert newest(killed).name in {f"step-{step - 1:08d}", f"step-{step:08d}"}
    status, _ = launcher.run(killed)
    assert status == 0, launcher.log.read_text()

    assert newest(whole).name == newest(killed).name == f"step-{STEPS:08d}"
    one, other = (load_file(str(newest(out) / "policy.safetensors")) for out in (whole, killed))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
