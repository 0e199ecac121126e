"""Any number for any option: a sentence and exit code 2, or it runs (`LATENTGYM_ALL=1`: all)."""

from __future__ import annotations

import dataclasses
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

from latentgym.agents.base import Agent, agent_class
from latentgym.agents.train_options import TrainOptions
from latentgym.cli.evaluate import EvalOptions
from latentgym.cli.main import main
from latentgym.registry import AGENTS

VALUES = ("-1", "0", "nan", "1e9", "1000000000", "text")
OWN_TASKS = {"latentr3": "MovieLens", "colar-grpo": "GSM8KAug"}
FOREVER = (["--steps", "1000000000"],)  # only slow
TRIED = 30


def options(cls: Any, within: str = "") -> Iterator[str]:
    """The numeric options of a dataclass, as the command line has them."""
    hints = get_type_hints(cls)
    for field in dataclasses.fields(cls):
        kind, name = hints[field.name], f"{within}{field.name.replace('_', '-')}"
        if dataclasses.is_dataclass(kind):
            yield from options(kind, "" if field.name == "cluster" else f"{name}.")
        elif {int, float} & {kind, *get_args(kind)}:
            yield f"--{name}"


def commands() -> Iterator[list[str]]:
    for name in AGENTS:
        cls = agent_class(name)
        family, task = cls.families[0], OWN_TASKS.get(name)
        env = f"latent/{task or 'MNNS'}-{family}"
        data = ["-o", "source=generated"] if task else []
        if cls.searches:  # they ask the model in words
            env = "latent/GSM8K-token"
            data = [x for o in ("source=sample", "think=8", "answer=4") for x in ("-o", o)]
        common = [name, env, "--model", "tiny:gpt2:1x2x16", *data]
        own = [*options(cls.config_class)]
        small = ["--limit", "4"]
        for option in [*own, *(options(EvalOptions) if name == "cot" else ())]:
            yield from (["eval", *common, *small, option, value] for value in VALUES)
        if cls.recipe is Agent.recipe:
            continue
        small = ["--steps", "2", "--eval-limit", "4"]
        for option in [*own, *(options(TrainOptions) if name == "cot" else ())]:
            yield from (["train", *common, *small, option, value] for value in VALUES)


COMMANDS = [c for c in commands() if c[-2:] not in FOREVER]
if not os.environ.get("LATENTGYM_ALL"):
    COMMANDS = random.Random(0).sample(COMMANDS, TRIED)


@pytest.mark.parametrize("argv", COMMANDS, ids=" ".join)
def test_it_runs_or_says_what_is_wrong(
    argv: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--out", str(tmp_path / "run")] if argv[0] == "train" else []
    try:
        code = main([*argv[:-2], *out, *argv[-2:]])
    except SystemExit as stop:  # what is no number at all, the parser refuses
        code = int(stop.code or 0)
    told = capsys.readouterr().err
    assert code in (0, 2)
    assert "Traceback" not in told
    if code == 2:
        name = argv[-2].rpartition(".")[2].lstrip("-")
        names = told.replace("_", "-")  # settings have them so in Python
        assert name in names or "training stopped at step" in told, told
