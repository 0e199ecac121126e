"""What the commands share: parsing, models, environments, output."""

from __future__ import annotations

import json
import shlex
import shutil
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, TypeVar

import tyro

from latentgym.errors import UsageError, did_you_mean
from latentgym.lm.tiny import vocabulary_of
from latentgym.storage import to_json
from latentgym.system.console import Console
from latentgym.system.options.ranges import check_ranges
from latentgym.system.terminal import say

Options = TypeVar("Options")
EnvPairs = Annotated[
    tyro.conf.UseAppendAction[list[str]],  # or of several -o only the last would count
    tyro.conf.arg(aliases=["-o"], help="A further option of the environment, name=value."),
]


@dataclass(frozen=True)
class OwnDataOptions:
    """Questions of the user's own; each is an option of the environment, too."""

    data: str | None = None
    """Questions for latent/Custom-...: a file with question and answer in every row, a folder with
    train and test files, or a hub id."""
    test_data: str | None = None
    """Those of the test, if they are apart; without, a tenth of --data is held out by a hash."""
    grader: str | None = None
    """How answers to --data are graded: number, maths, choice, short, f1 or module:function."""


OwnData = Annotated[OwnDataOptions, tyro.conf.arg(name="")]


@dataclass(frozen=True)
class RunOptions:
    """What training and evaluation have in common; a command may say more of an option."""

    agent: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="AGENT")]
    """Name of the agent; latentgym agents lists them."""
    env: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="ENV")]
    """Id of the environment, such as latent/MNNS-continuous."""
    model: str | None = None
    """tiny[:ARCH[:LxHxD]], smollm2-135m, a folder or hub name."""
    checkpoint: Path | None = None
    """Weights of a training run."""
    preset: str | None = None
    """Named settings of the agent."""
    own: OwnData = field(default_factory=OwnDataOptions)
    env_option: EnvPairs = field(default_factory=list)
    device: str = "auto"
    """cpu, cuda or auto."""
    dtype: str = "auto"
    """float32, bfloat16 or auto."""
    compile: bool = False
    """Compile the step of decoding as a whole, which takes a minute; for GPUs."""
    load_in_4bit: bool = False
    """Keep the linear layers in 4 bits (NF4; extra bitsandbytes); what trains are adapters then."""
    json: bool = False
    """Print one JSON line on stdout, and nothing else there."""


_NEVER_EMPTY = ("--checkpoint", "--data", "--grader", "--model", "--out", "--test-data")


def parse(kind: Callable[..., Options], argv: Sequence[str], prog: str, about: str) -> Options:
    """Parse a dataclass of options; exits with code 2 and a sentence if that fails.

    Raises:
        UsageError: a number outside its range.
    """
    for option in _NEVER_EMPTY:
        if f"{option}=" in argv or (option, "") in pairwise(argv):
            raise UsageError(f"{option} is empty; give a value, or leave it out.")
    width = min(80, shutil.get_terminal_size().columns)
    about = "\n\n".join(
        textwrap.fill(part, width, break_on_hyphens=False) for part in about.split("\n\n")
    )
    parsed = tyro.cli(
        kind, args=list(argv), prog=f"latentgym {prog}", description=about, use_underscores=False
    )
    check_ranges(parsed)
    return parsed


def key_values(pairs: Sequence[str]) -> dict[str, Any]:
    """`name=value` options; values are JSON where they can be, else text.

    Raises:
        UsageError: a pair without `=`, a name given twice, or a value that is nested too deeply.
    """
    options: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise UsageError(f"{pair!r} is no option; write name=value, such as think=64.")
        if name in options:
            raise UsageError(f"-o {name} is given twice; leave one of them out.")
        try:
            options[name] = json.loads(value)
        except ValueError:
            options[name] = value
        except RecursionError:
            raise UsageError(f"the value of -o {name} is nested too deeply to be read.") from None
    return options


DECIDED = {
    "model": "say --model",
    "split": "say --split, or --eval-split",
    "num_envs": "the command says how many rows there are (--batch, --grpo.prompts)",
    **dict.fromkeys(
        ("task", "family", "id"), "the id of the environment says what it is; name another one"
    ),
    "support": "the agent says how many ids a superposition has (its --k or --top-k)",
    "dynamics": "the agents of the command line think in an engine of their own; step such an "
    "environment in Python",
    **dict.fromkeys(("autoreset_mode", "render_mode"), "commands reset and show rows themselves"),
    **dict.fromkeys(
        ("vectorization_mode", "vector_kwargs", "wrappers"),
        "commands make the batched environment, without wrappers",
    ),
}
"""Arguments of environments that commands decide on, with what the user says instead."""


def env_options(
    split: str | None, pairs: Sequence[str], own: OwnDataOptions | None = None
) -> dict[str, Any]:
    """Keyword arguments of the environment.

    Args:
        split: of the questions, if one is said.
        pairs: `name=value`.
        own: questions of the user's own.

    Raises:
        UsageError: see `key_values`, or an option that the command itself decides on.
    """
    options = key_values(pairs)
    for name, value in vars(own or OwnDataOptions()).items():
        if value is not None and name in options:
            raise UsageError(f"{name} is given twice; leave -o {name} out.")
        if value is not None:
            options[name] = value
    for name in options:
        if name in DECIDED:
            raise UsageError(f"{name} cannot be given with -o; {DECIDED[name]}.")
    return options if split is None else {**options, "split": split}


def env_model(model: str) -> str | None:
    """The model whose vocabulary an environment takes: tiny models speak the task's own.

    So does who is no model, which results call "-".
    """
    return None if model == "-" else vocabulary_of(model)


def emit(data: dict[str, Any], as_json: bool) -> None:
    """With --json, one line on stdout."""
    if as_json:
        print(to_json(data), flush=True)


def command_line(command: str, argv: Sequence[str], modules: Mapping[str, str]) -> str:
    """A command as it is typed, for the record of what it makes: without where that is kept.

    Args:
        command: its name.
        argv: its words.
        modules: that the record names; those that no word names are named here.
    """
    words, left = iter(argv), []
    for word in words:
        if word == "--out":
            next(words, None)
        elif word not in _NO_SETTINGS and not word.startswith("--out="):
            left.append(word)
    unnamed = {m for m in modules.values() if not any(w.startswith(f"{m}:") for w in left)}
    named = (word for module in sorted(unnamed) for word in ("--module", module))
    return shlex.join(["latentgym", command, *left, *named])


_NO_SETTINGS = ("--resume", "--json", "--watch")  # the same is made without them


def output(as_json: bool = False) -> Console:
    """Where results are printed for people: stdout, unless JSON goes there."""
    return Console(quiet=as_json, emoji=False, highlight=False)


Action = Callable[[Sequence[str]], int]


def act(command: str, actions: Mapping[str, tuple[Action, str]], argv: Sequence[str]) -> int:
    """Carry out the action of a command that its first word names, or list them.

    Args:
        command: its name.
        actions: each with what it does, in a few words.
        argv: words of the command line behind the command.

    Raises:
        UsageError: there is no such action.
    """
    name, *rest = argv or ["--help"]
    if name in ("-h", "--help"):
        width = max(map(len, actions))
        print(f"usage: latentgym {command} ACTION [options]\n")
        for each, (_, about) in actions.items():
            print(f"  {each:<{width}}  {about}")
        print(f"\nlatentgym {command} ACTION --help tells more.")
        return 0
    if name not in actions:
        raise UsageError(f"{command} has no action {name!r}; {did_you_mean(name, actions)}")
    return actions[name][0](rest)


@contextmanager
def resumable(out: Path | None, kept: str) -> Iterator[None]:
    """Say how to go on with what is interrupted within it, if anything was kept.

    Args:
        out: folder of what goes on.
        kept: what a resumed one begins with, as a pattern of paths in it.
    """
    try:
        yield
    except KeyboardInterrupt:
        if out is not None and (found := sorted(out.glob(kept))):
            say(f"{found[-1]} is kept; go on with the same command and --resume")
        raise
