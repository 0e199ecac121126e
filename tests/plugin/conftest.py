"""A package of one's own: on the path, or installed, in this process and in others."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import gymnasium as gym
import pytest
from setuptools.build_meta import prepare_metadata_for_build_wheel

from latentgym import registry
from latentgym.cli.main import main
from latentgym.system import plugins

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SCRIPT = """
import contextlib, io, json, sys
from latentgym.cli.main import main
for argv in json.loads(sys.argv[1]):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main(argv)
        except SystemExit as stop:
            code = stop.code
    print(json.dumps([code, out.getvalue(), err.getvalue()]))
"""


class Done(NamedTuple):
    """What became of a command."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package and the metadata that installing it leaves behind."""
    folder = tmp_path_factory.mktemp("site")
    shutil.copytree(HERE / "my_pkg", folder / "my_pkg")
    shutil.copy(HERE / "pyproject.toml", folder)
    before = Path.cwd()
    os.chdir(folder)
    try:
        prepare_metadata_for_build_wheel(".")
    finally:
        os.chdir(before)
    return folder


@pytest.fixture(scope="session")
def commands() -> Callable[..., list[Done]]:
    """`commands(folder, argv, ...)`: command lines in one fresh process, the folder on its path."""

    def run(folder: Path, *argvs: Sequence[str], **more: str) -> list[Done]:
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, json.dumps(argvs)],
            capture_output=True,
            text=True,
            cwd="/",
            timeout=300,
            env={**os.environ, **more, "PYTHONPATH": os.pathsep.join(map(str, (ROOT, folder)))},
        )
        assert done.returncode == 0, done.stderr
        return [Done(*json.loads(line)) for line in done.stdout.splitlines()]

    return run


def forget() -> None:
    """Leave this process as if it had never heard of the package."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "my_pkg"]:
        del sys.modules[name]
    for family in registry.FAMILY_NAMES:
        gym.registry.pop(f"latent/Mul2-{family}", None)
    registry.TASKS.pop("Mul2", None)
    plugins._trusted.clear()


@pytest.fixture(autouse=True)
def trusting_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whom one test trusts, the next does not."""
    monkeypatch.setattr(plugins, "_trusted", set())


@contextmanager
def importable() -> Iterator[Callable[[], None]]:
    """The package can be imported within it; what is given has it forgotten, as does the end."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(HERE)
        yield forget
        forget()


@pytest.fixture
def on_the_path() -> Iterator[Callable[[], None]]:
    """The package can be imported; what is given has it forgotten, as does the end of the test."""
    with importable() as forgetting:
        yield forgetting


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in `train`, and an evaluation of it in `eval`, with the package on the path only."""
    runs = tmp_path_factory.mktemp("runs")
    who = ["my_pkg.agent:Mine", "my_pkg:latent/Mul2-token"]
    train, ended = [*who, "--model", "tiny:gpt2:1x1x8", "--steps", "2"], ["--eval-limit", "3"]
    evaluate = ["eval", *who, "--checkpoint", f"{runs}/train", "--out", f"{runs}/eval"]
    with importable():
        assert main(["train", *train, *ended, "--out", f"{runs}/train"]) == 0
        assert main(evaluate) == 0
        assert main([*evaluate, "--resume"]) == 0
    return runs
