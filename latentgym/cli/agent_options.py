"""Options of a command together with those of the agent that it names."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Sequence
from dataclasses import field
from typing import Annotated, Any, NamedTuple

import tyro

from latentgym.agents.base import Agent, agent_class, agent_classes, preset
from latentgym.cli.options import DECIDED, OwnDataOptions, parse
from latentgym.errors import UsageError
from latentgym.registry import AGENTS, TASKS, split_module, task_maker, task_name
from latentgym.system.options.keywords import keywords
from latentgym.system.terminal import say

Defaults = Callable[[type[Agent[Any]], "Words"], Any]
"""The agent's settings before its options are read."""


@dataclasses.dataclass(frozen=True)
class Words:
    """A command line before its options are known: what decides which there are.

    Attributes:
        argv: its words.
        flags: options of the command that take no value.
    """

    argv: Sequence[str]
    flags: frozenset[str]

    @property
    def agent(self) -> str | None:
        """The first word that is no option nor the value of one.

        Values of the agent's own options cannot be told from it before the agent is known: then it
        is the first word that names one.
        """
        plain, words = [], iter(self.argv)
        for word in words:
            if not word.startswith("-"):
                plain.append(word)
            elif "=" not in word and word not in self.flags:
                next(words, None)
        first = plain[0] if plain else None
        if first in AGENTS or first == next(iter(self.argv), None):
            return first
        return next((word for word in self.argv if word in AGENTS), first)

    def value(self, option: str) -> str | None:
        """The last value given to an option."""
        found = None
        for i, word in enumerate(self.argv):
            if word == option and i + 1 < len(self.argv):
                found = self.argv[i + 1]
            elif word.startswith(f"{option}="):
                found = word.partition("=")[2]
        return found


def of_preset(cls: type[Agent[Any]], words: Words) -> Any:
    """The settings of `--preset`, or the agent's defaults."""
    return preset(cls, words.value("--preset"))


class Parsed(NamedTuple):
    """A command line that was read.

    Attributes:
        options: of the command.
        config: the agent's settings.
        default: what they would be without the options of the agent's that were given.
        cls: the agent.
    """

    options: Any
    config: Any
    default: Any
    cls: type[Agent[Any]]


def parse_with_agent(
    kind: Any,
    argv: Sequence[str],
    prog: str,
    about: str,
    defaults: Defaults = of_preset,
    suits: Callable[[type[Agent[Any]]], bool] = lambda cls: True,
) -> Parsed:
    """Parse the options of a command together with those of the agent that it names.

    The agent decides which options there are, and its preset or checkpoint what their defaults are,
    so they are looked up first.

    Args:
        kind: dataclass of the command's options.
        argv: the words of the command line.
        prog: name of the command.
        about: what it does.
        defaults: of the agent's settings.
        suits: which agents the command is for; help lists them.
    """
    switches = [f.name.replace("_", "-") for f in dataclasses.fields(kind) if f.type == "bool"]
    flags = {f"--{no}{name}" for name in switches for no in ("", "no-")}
    words = Words(argv, frozenset({*flags, "-h", "--help"}))
    if words.agent is None:
        agents = ", ".join(cls.name for cls in agent_classes() if suits(cls))
        more = f"Agents: {agents}.\n\nlatentgym {prog} AGENT --help shows the options of one."
        parse(kind, argv, prog, f"{about}\n\n{more}")  # prints usage, or help
        raise UsageError("an agent and an environment are needed.")
    cls = agent_class(words.agent)
    default = defaults(cls, words)
    both = dataclasses.make_dataclass(
        "Options",
        [
            ("run", Annotated[kind, tyro.conf.arg(name="")]),
            (
                "config",
                Annotated[cls.config_class, tyro.conf.arg(name="")],
                field(default=default),
            ),
        ],
        frozen=True,
    )
    presets = ", ".join(cls.presets) or "none"
    about = f"{about}\n\n{cls.name}: {summary(cls)} Presets: {presets}."
    try:
        parsed = parse(both, argv, f"{prog} {cls.name}", about)  # whose --help lists the options
    except SystemExit as stop:
        if stop.code and (name := _of_environment(argv, (kind, OwnDataOptions, cls.config_class))):
            say(f"{name} is an option of the environment: -o {name}=VALUE")
        raise
    return Parsed(parsed.run, parsed.config, default, cls)


def _of_environment(argv: Sequence[str], kinds: Sequence[type[Any]]) -> str | None:
    """The first option among these words that is none of the command's but the environment's."""
    from latentgym.envs import LatentVectorEnv
    from latentgym.envs.task import TaskMaker

    known = set(keywords(LatentVectorEnv))
    for task in {task_name(split_module(word)[1]) for word in argv} & TASKS.keys():
        if isinstance(maker := task_maker(task), TaskMaker):
            known |= {name for text in (False, True) for name in maker.keywords(task, text)}
    known -= {f.name for kind in kinds for f in dataclasses.fields(kind)} | DECIDED.keys()
    given = (word[2:].partition("=")[0].replace("-", "_") for word in argv if word[:2] == "--")
    return next((name for name in given if name in known), None)


def summary(cls: type[Agent[Any]]) -> str:
    """What an agent does, in a sentence; empty where it does not say."""
    return inspect.cleandoc(cls.__doc__ or "").partition("\n")[0]
