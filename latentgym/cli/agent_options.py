"""Options of a command together with those of the agent that it names."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import field
from typing import Annotated, Any

import tyro

from latentgym.agents.base import agent_class, preset
from latentgym.cli.options import parse


def parse_with_agent(kind: Any, argv: Sequence[str], prog: str, about: str) -> tuple[Any, Any]:
    """Parse the options of a command together with those of the agent that it names.

    The agent and its preset decide which options there are and what their defaults are, so they
    are looked up first.
    """
    positional = [word for word in argv if not word.startswith("-")]
    if not positional:
        return parse(kind, argv, prog, about), None  # prints usage, or help
    cls = agent_class(positional[0])
    name = None
    for i, word in enumerate(argv):
        if word == "--preset" and i + 1 < len(argv):
            name = argv[i + 1]
        elif word.startswith("--preset="):
            name = word.partition("=")[2]
    default = preset(cls, name)
    both = dataclasses.make_dataclass(
        "Options",
        [
            ("run", Annotated[kind, tyro.conf.arg(name="")]),
            ("config", Annotated[cls.config_class, tyro.conf.arg(name="")], field(default=default)),
        ],
        frozen=True,
    )
    parsed = parse(both, argv, prog, about)
    return parsed.run, parsed.config
