"""`latentgym new agent|task NAME`: files to begin with, which pass their tests as they are."""

from __future__ import annotations

import ast
import keyword
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from string import Template
from typing import Annotated, Literal

import tyro

from latentgym.cli.options import act, parse
from latentgym.errors import UsageError
from latentgym.registry import AGENTS, TASKS
from latentgym.storage import writable
from latentgym.system.terminal import say

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9]*([-_][A-Za-z0-9]+)*", re.ASCII)

# Of each family the setting that the template's head has: its field, type, value, and --help.
_SETTINGS = {
    "token": ("temperature", "Positive", "1.0", "Of sampling."),
    "hybrid": ("scale", "Positive", "0.1", "Of the noise at first."),
    "continuous": ("k", "Size", "2", "Tokens in a thought."),
}


@dataclass(frozen=True)
class NewTaskOptions:
    """Options of a new task."""

    name: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="NAME")]
    """Its name in ids: latent/NAME-token."""
    out: Path = Path()
    """Folder for the files, which is made if it is not there."""


@dataclass(frozen=True)
class NewAgentOptions:
    """Options of a new agent."""

    name: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="NAME")]
    """Its name, such as my-method."""
    family: Literal["token", "hybrid", "continuous"] = "continuous"
    """What it thinks in."""
    out: Path = Path()
    """Folder for the files, which is made if it is not there."""


def main(argv: Sequence[str]) -> int:
    """Write the files of a new agent or task."""
    return act(
        "new",
        {
            "agent": (agent, "a head, an agent, their tests and a page"),
            "task": (task, "a task, its tests and a page"),
        },
        argv,
    )


def agent(argv: Sequence[str]) -> int:
    """A head and an agent with tests and a page."""
    o = parse(NewAgentOptions, argv, "new agent", "Write a head, an agent, tests and a page.")
    names = _names(o.name, AGENTS, "agent")
    field, kind, value, about = _SETTINGS[o.family]
    words = {**names, "family": o.family}
    words |= {"field": field, "type": kind, "value": value, "about": about}
    module, cls = names["module"], names["cls"]
    templates = {
        f"{module}_head.py": f"head_{o.family}",
        f"{module}.py": "agent",
        f"test_{module}.py": "agent_test",
        f"{module}.md": "agent_page",
    }
    _write(o.out, templates, words)
    _next(o.out, module, f"latentgym train {module}:{cls} latent/MNNS-{o.family} --steps 20")
    return 0


def task(argv: Sequence[str]) -> int:
    """A task with tests and a page."""
    o = parse(NewTaskOptions, argv, "new task", "Write a task, tests and a page.")
    names = _names(o.name, TASKS, "task")
    module = names["module"]
    templates = {f"{module}.py": "task", f"test_{module}.py": "task_test"}
    _write(o.out, {**templates, f"{module}.md": "task_page"}, names)
    _next(o.out, module, f"latentgym info {module}:{o.name}-token")
    return 0


def _names(name: str, taken: Mapping[str, object], kind: str) -> dict[str, str]:
    """The name, and those of its module and class.

    Raises:
        UsageError: no module can have it, or there is one of that name.
    """
    parts = [part for part in re.split(r"[-_]", name) if part]
    module, cls = "_".join(parts).lower(), "".join(p[0].upper() + p[1:] for p in parts)
    if not _NAME.fullmatch(name) or keyword.iskeyword(module) or keyword.iskeyword(cls):
        raise UsageError(
            f"{name!r} cannot be the name of {'an' if kind == 'agent' else 'a'} {kind}; use "
            "letters, digits and single hyphens, with a letter first."
        )
    if there := [other for other in taken if other.lower() == name.lower()]:
        raise UsageError(f"there is {kind} {there[0]} already; choose another name.")
    return {"name": name, "module": module, "cls": cls}


def _write(out: Path, templates: Mapping[str, str], words: Mapping[str, str]) -> None:
    """Write all files, or none.

    Raises:
        UsageError: one is there already, or could not be imported, or would be in the place of
            another module; or the folder cannot be written.
    """
    if there := [out / name for name in templates if (out / name).exists()]:
        raise UsageError(f"{there[0]} is there already; choose another name or --out.")
    source = files("latentgym.cli") / "templates"
    texts = {
        name: Template((source / f"{template}.txt").read_text("utf-8")).substitute(words)
        for name, template in templates.items()
    }
    for name in (name for name in texts if name.endswith(".py")):
        if find_spec(name.removesuffix(".py")) is not None:
            raise UsageError(f"{name} would hide a module of that name; choose another name.")
        if twice := [bound for bound, n in Counter(_bound(texts[name])).items() if n > 1]:
            raise UsageError(
                f"{twice[0]} is what the file imports already; choose another name than "
                f"{words['name']}."
            )
    with writable(out):
        out.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            (out / name).write_text(text, encoding="utf-8")
            say(f"wrote {out / name}")


def _bound(text: str) -> Iterator[str]:
    """The names that a module imports or defines, as often as it does."""
    module = ast.parse(text)
    for node in ast.walk(module):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from (alias.asname or alias.name for alias in node.names)
    for node in module.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            yield node.name


def _next(out: Path, module: str, command: str) -> None:
    """What to do with them."""
    within = "" if out == Path() else f"cd {out} && "
    say(f"test:  {within}PYTHONPATH=. python -m pytest test_{module}.py")
    say(f"run:   {within}PYTHONPATH=. {command}")
