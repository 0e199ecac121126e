"""`latentgym train AGENT ENV`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from latentgym.agents.train import Outcome, Training, prepared
from latentgym.agents.train_options import TrainOptions
from latentgym.cli.agent_options import parse_with_agent
from latentgym.cli.as_trained import tell_step
from latentgym.cli.options import (
    RunOptions,
    command_line,
    emit,
    env_options,
    output,
    resumable,
)
from latentgym.errors import UsageError
from latentgym.system.terminal import shown


@dataclass(frozen=True)
class TrainCommand(TrainOptions, RunOptions):
    """Options of the command; those of the agent follow."""

    model: str | None = None
    """tiny[:ARCH[:LxHxD]], smollm2-135m, a folder or hub name; default the checkpoint's or tiny."""
    checkpoint: Path | None = None
    """Start from the weights of this run."""
    dtype: str = "auto"
    """Of the forward pass: float32, bfloat16 or auto (bfloat16 on a GPU); weights are float32."""


def main(argv: Sequence[str]) -> int:
    """Train an agent, then evaluate it."""
    parsed = parse_with_agent(
        TrainCommand, argv, "train", "Train an agent.", suits=lambda cls: cls.trains()
    )
    options: TrainCommand = parsed.options
    if options.steps < 1:
        raise UsageError(f"--steps must be at least 1, but is {options.steps}.")
    given = env_options(None, options.env_option, options.own)
    run = prepared(
        options.agent,
        parsed.config,
        options.env,
        options,
        given,
        model=options.model,
        checkpoint=options.checkpoint,
        device=options.device,
        dtype=options.dtype,
        compile=options.compile,
        load_in_4bit=options.load_in_4bit,
    )
    command = partial(command_line, "train", argv)
    training = Training(run, options, given, parsed.default, command)
    tell_step(options.checkpoint)
    with resumable(options.out, "checkpoints/step-*"):
        outcome = training.carry_out()
    final: dict[str, Any] = {"out": str(options.out), "metrics": outcome.metrics}
    if outcome.result is not None:
        output(options.json).print(shown(_told(outcome)))
        final["accuracy"] = outcome.result.accuracy
    emit(final, options.json)
    return 0


def _told(outcome: Outcome) -> str:
    """The result, in a line."""
    result = outcome.result
    assert result is not None
    low, high = result.accuracy_ci95
    split = "held-out" if outcome.held_out else result.split
    note = "" if not result.trained_on else f", {result.trained_on} of them trained on"
    note += ", by which these weights were chosen" if outcome.chosen else ""
    return (
        f"{split} accuracy {result.accuracy:.4f} [{low:.4f}, {high:.4f}] on "
        f"{result.n} questions{note}"
    )
