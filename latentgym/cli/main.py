"""`latentgym`: one word picks the command, each in its own file and loaded only when it is used."""

from __future__ import annotations

import errno
import importlib
import os
import signal
import sys
import textwrap
import warnings
from collections.abc import Callable, Sequence

from latentgym.errors import LatentGymError, Notice, OptionError, UsageError, did_you_mean
from latentgym.registry import AGENTS
from latentgym.system.plugins import import_named
from latentgym.system.terminal import say

# Each command's module has `main(argv) -> exit code`.
COMMANDS = {
    "envs": ("latentgym.cli.envs:list_envs", "the ids, with family, data and licence"),
    "info": ("latentgym.cli.envs:info", "one environment: spaces, prompt, example, grader"),
    "agents": ("latentgym.cli.agents:main", "the agents, with their presets"),
    "demo": ("latentgym.cli.demo:main", "latent against token chains, in two minutes"),
    "train": ("latentgym.cli.train:main", "train an agent: latentgym train AGENT ENV"),
    "eval": ("latentgym.cli.evaluate:main", "evaluate an agent: latentgym eval AGENT ENV"),
    "baseline": (
        "latentgym.cli.baseline:main",
        "evaluate a classical recommender: latentgym baseline NAME ENV",
    ),
    "rescore": ("latentgym.cli.evaluate:rescore", "score stored rollouts again"),
    "index": ("latentgym.cli.index:main", "build, search or describe an index of passages"),
    "data": (
        "latentgym.cli.data:main",
        "recommendation data as published, laid out for the tasks",
    ),
    "suite": ("latentgym.cli.suite:main", "tables of results, run as one: suite list, show, run"),
    "leaderboard": ("latentgym.cli.leaderboard:main", "table of results, and a page"),
    "view": ("latentgym.cli.page:view", "look at a run's answers, thought by thought"),
    "compare": ("latentgym.cli.compare:main", "runs against another, question by question"),
    "export": ("latentgym.cli.exports:main", "a run in the format of another program"),
    "analyze": ("latentgym.cli.analyze:main", "look inside: what layers and latents do"),
    "new": (
        "latentgym.cli.new:main",
        "files of a new agent or task, to begin with",
    ),
    "bench": ("latentgym.cli.bench:main", "speed, side by side with the peers"),
    "validate": ("latentgym.cli.envs:validate", "gold answers score 1, empty and garbage score 0"),
}

USAGE_ERROR = 2
MODULE = "--module"


class Terminated(KeyboardInterrupt):
    """SIGTERM, which ends a command as an interrupt from the keyboard does: in order."""


# What is said, and the exit code that shells expect.
_SIGNALS = {KeyboardInterrupt: ("interrupted", 130), Terminated: ("terminated", 143)}
_BROKEN_PIPE = 141


def main(argv: Sequence[str]) -> int:
    """Run a command; its exit code."""
    if not argv or argv[0] in ("-h", "--help"):
        print(_help())
        return 0 if argv else USAGE_ERROR
    if argv[0] == "--version":
        import latentgym

        print(latentgym.__version__)
        return 0
    name, *rest = argv
    if name not in COMMANDS:
        say(f"latentgym: no command {name!r}; {did_you_mean(name, COMMANDS)}")
        return USAGE_ERROR
    module, function = COMMANDS[name][0].split(":")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always", Notice)
            warnings.showwarning = _notes()
            rest = _with_modules(rest)
            return int(getattr(importlib.import_module(module), function)(rest))
    except LatentGymError as error:
        say(f"latentgym {name}: {_sentence(error)}")
        return USAGE_ERROR
    except OSError as error:
        if error.errno not in _OF_THE_SYSTEM:
            raise
        where = f": {error.filename}" if error.filename is not None else ""
        say(f"latentgym {name}: {error.strerror}{where[:200]}.")
        return USAGE_ERROR
    except (MemoryError, RuntimeError) as error:
        if not _out_of_memory(error):
            raise
        say(
            f"latentgym {name}: there is not enough memory; take fewer rows at once (--batch, "
            "--micro-batch, --grpo.micro-batch, --grpo.prompts) or a smaller model."
        )
        return USAGE_ERROR
    except KeyboardInterrupt as stop:
        say(f"latentgym {name}: {_SIGNALS[type(stop)][0]}.")
        return _SIGNALS[type(stop)][1]


# What a path or a disk can be at fault for, and no code of ours: a name that is too long, no room.
_OF_THE_SYSTEM = (errno.ENAMETOOLONG, errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)


def _with_modules(argv: Sequence[str]) -> list[str]:
    """The words without each `--module NAME`, whose module is imported: all commands have it.

    Raises:
        UsageError: there is no name, or no such module.
    """
    rest, words = [], iter(argv)
    for word in words:
        option, equals, name = word.partition("=")
        if option != MODULE:
            rest.append(word)
        elif name := name if equals else next(words, ""):
            import_named(name)
        else:
            raise UsageError(f"{MODULE} needs the name of a module, such as my_pkg.")
    return rest


def _sentence(error: LatentGymError) -> str:
    """What it says; of an option that there is not, beside those that a command line may give."""
    if isinstance(error, OptionError) and error.unknown is not None:
        from latentgym.cli.options import DECIDED
        from latentgym.system.options.keywords import unexpected

        option, known, env, elsewhere = error.unknown
        return unexpected(option, [each for each in known if each not in DECIDED], env, elsewhere)
    return str(error)


def run() -> None:
    """Entry point of the console script."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # Idle threads sleep instead of spinning, or a busy machine slows down a hundredfold.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    signal.signal(signal.SIGTERM, _terminate)
    try:
        code = main(sys.argv[1:])
        if sys.stdout is not None:  # as it is where the caller has closed it
            sys.stdout.flush()
    except BrokenPipeError:  # whoever read along has seen enough, as `head` does
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in filter(None, (sys.stdout, sys.stderr)):
            os.dup2(nowhere, stream.fileno())
        code = _BROKEN_PIPE
    except OSError as error:  # stdout itself is what has no room
        if error.errno not in _OF_THE_SYSTEM:
            raise
        say(f"latentgym: the output cannot be written ({error.strerror}).")
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = USAGE_ERROR
    sys.exit(code)


def _terminate(*_: object) -> None:
    raise Terminated


def _out_of_memory(error: Exception) -> bool:
    """Whether it is Python's, torch's on a GPU, or torch's on the CPU, which has no name."""
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return named or "can't allocate memory" in str(error)


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {about}" for name, (_, about) in COMMANDS.items()]
    agents = textwrap.wrap(", ".join(AGENTS), 70, break_on_hyphens=False)
    return "\n".join(
        [
            "usage: latentgym COMMAND [options]",
            "",
            *lines,
            "",
            "Agents, for train and eval:",
            *(f"  {line}" for line in agents),
            "  or module:Class, for one of your own; module: may also stand before an id",
            "",
            f"Every command takes {MODULE} NAME: a module of yours, which is imported first.",
            "",
            "latentgym COMMAND --help tells more, latentgym train AGENT --help of an agent.",
        ]
    )


def _notes() -> Callable[..., None]:
    """Shows warnings as one line for people, each once; where they arose does not help them."""
    told: set[str] = set()

    def show(message: Warning | str, *_: object, **__: object) -> None:
        line = f"note: {message}"
        if line not in told:
            say(line)
        told.add(line)

    return show
