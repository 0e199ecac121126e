"""The pages do what they say: their Python and their commands run, and name what there is."""

from __future__ import annotations

import json
import re
import runpy
import shlex
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
import tyro

from latentgym import registry
from latentgym.cli import as_trained
from latentgym.cli.main import COMMANDS, main
from latentgym.cli.options import DECIDED, env_model, key_values
from latentgym.registry import AGENTS, resolve, task_maker
from latentgym.system.options.ranges import check_ranges
from latentgym.testing import EnvConformance

ROOT = Path(__file__).parents[1]
PAGES = {str(p.relative_to(ROOT)): p for p in sorted((ROOT / "docs").rglob("*.md"))}
NOTEBOOKS = sorted((ROOT / "docs/notebooks").glob("*.ipynb"))
NOT_RUN = "<!-- not run -->"

_FENCE = re.compile(
    rf"(?P<mark>{NOT_RUN}\s*)?^```(?P<language>\w*)(?: title=\"(?P<title>[^\"]+)\")?\n"
    r"(?P<text>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)
_INLINE = re.compile(r"`(latentgym [^`]+)`")
# Words that a command needs beside its own; with fewer, a sentence only names it.
_NAMED = {"train": 2, "eval": 2, "baseline": 2, "index": 2, "data": 2, "info": 1, "validate": 1}
_NAMED |= {"rescore": 1, "leaderboard": 1, "suite": 2, "compare": 2}
# Packages that pages make; tests/plugin runs the commands of the one on docs/plugins.md.
_OF_OTHERS = re.compile(r"my_pkg|my_agent:|\bmine\b|Mul2")
_COMMAND = re.compile(r"(?:^|-- |\$ )(latentgym .*)")


@dataclass(frozen=True)
class Block:
    """A block of code.

    Attributes:
        language: that the page names; empty for output and for commands alone.
        title: name of the file that it is, or None.
        text: of it.
        shown: the output that stands right behind it, or None.
        run: whether the page has it run.
    """

    language: str
    title: str | None
    text: str
    shown: str | None
    run: bool


def blocks(page: str) -> list[Block]:
    """The blocks of a page, in order."""
    found = list(_FENCE.finditer(page))
    made = []
    for i, block in enumerate(found):
        behind = found[i + 1] if i + 1 < len(found) else None
        right_behind = behind and not page[block.end() : behind.start()].strip()
        is_output = behind and right_behind and not behind["language"] and block["language"]
        shown = behind["text"] if behind and is_output else None
        made.append(
            Block(block["language"], block["title"], block["text"], shown, block["mark"] is None)
        )
    return made


@dataclass(frozen=True)
class Command:
    """A command line as a page has it.

    Attributes:
        text: all of it, comment included.
        whole: whether it is meant to be typed as it stands.
    """

    text: str
    whole: bool


def commands(page: str) -> list[Command]:
    """The command lines of a page: lines of blocks, and those within sentences."""
    found = []
    for block in blocks(page):
        if block.language in ("", "sh"):
            for line in block.text.replace("\\\n", " ").splitlines():
                if command := _COMMAND.search(line):
                    found.append(Command(command[1], not _has_gap(command[1])))
    prose = _FENCE.sub("", page)
    for text in _INLINE.findall(prose):
        one_line = " ".join(text.split())
        given = list(takewhile(lambda word: not word.startswith("-"), one_line.split()))[1:]
        whole = len(given) > _NAMED.get("".join(given[:1]), 0)
        found.append(Command(one_line, whole and not _has_gap(one_line)))
    # A message begins with the name of its command and a colon.
    return [each for each in found if not re.match(r"latentgym( \w+)*:", each.text)]


def _has_gap(text: str) -> bool:
    """Whether something is left to be filled in: AGENT, ENV, DIR, ..."""
    words = text.partition(" #")[0].split()
    return any(word == "..." or re.fullmatch(r"[A-Z]+", word) for word in words)


_SLOW = ("docs/quick-start.md", "docs/your-own-agent.md")  # they train
RUN = [
    pytest.param(name, marks=[pytest.mark.docs] if name in _SLOW else [])
    for name, page in PAGES.items()
    if any(block.language == "python" for block in blocks(page.read_text()))
]
_DECIMAL = re.compile(r"\d+\.\d+")
_CLOCK = re.compile(r"(answers/s) \S+")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working directory of a page, whose files can be imported while it runs."""
    known, tasks, agents = set(sys.modules), dict(registry.TASKS), dict(AGENTS)
    ids = set(gym.registry)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    yield tmp_path
    for name in set(sys.modules) - known:
        if Path(getattr(sys.modules[name], "__file__", None) or "/").is_relative_to(tmp_path):
            del sys.modules[name]
    for now, before in ((registry.TASKS, tasks), (AGENTS, agents)):
        now.clear()  # type: ignore[attr-defined]
        now.update(before)  # type: ignore[attr-defined]
    for env_id in set(gym.registry) - ids:
        del gym.registry[env_id]


@pytest.mark.parametrize("name", RUN)
def test_a_page_runs_as_it_stands(
    name: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for number, block in enumerate(blocks(PAGES[name].read_text())):
        if not block.run:
            continue
        if block.language == "python" and block.title is not None:
            (folder / block.title).write_text(block.text)
            if block.shown is not None:
                runpy.run_path(block.title, run_name="__main__")
        elif block.language == "python":
            exec(compile(block.text, f"{name} block {number}", "exec"), namespace)
        elif block.language == "sh" and block.shown is not None:
            for argv in _argvs(block):
                assert main(argv) == 0, capsys.readouterr().err
        told = capsys.readouterr().out
        if block.shown is not None:
            assert _alike(told, block.shown), f"{name} block {number} shows\n{told}"
    for kit in namespace.values():
        if isinstance(kit, type) and issubclass(kit, EnvConformance) and kit is not EnvConformance:
            for check in (each for each in dir(kit) if each.startswith("test_")):
                getattr(kit(), check)()


def _argvs(block: Block) -> Iterator[list[str]]:
    for line in block.text.replace("\\\n", " ").splitlines():
        program, *argv = shlex.split(line, comments=True)
        assert program == "latentgym", f"only commands of ours have their output shown: {line}"
        yield argv


def _alike(told: str, shown: str) -> bool:
    """Whether two outputs are the same but for blanks, and decimals by little.

    Other processors round otherwise, and training carries that on; how fast they are is not told.
    """
    told, shown = (_CLOCK.sub(r"\1", text) for text in (told, shown))
    words = [" ".join(_DECIMAL.sub("#", text).split()) for text in (told, shown)]
    numbers = [[float(number) for number in _DECIMAL.findall(text)] for text in (told, shown)]
    return words[0] == words[1] and numbers[0] == pytest.approx(numbers[1], abs=0.1, rel=0.25)


@pytest.mark.parametrize(
    ("told", "shown", "alike"),
    [
        ("loss 0.52", "loss   0.5\n", True),
        ("loss 0.52", "loss 0.9", False),
        ("at 64.2 %", "at 60.0 %", True),
        ("step 3", "step 4", False),
        ("n 4, answers/s 774", "n 4, answers/s 1.2k", True),
    ],
)
def test_outputs_are_alike_but_for_rounding(told: str, shown: str, alike: bool) -> None:
    assert _alike(told, shown) is alike


class _Read(BaseException):
    """A command line was read, and nothing is carried out."""

    def __init__(self, options: Any) -> None:
        self.options = options


@pytest.fixture
def read(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[list[str]], Any]:
    """`read(argv)`: the options of a command line, as the command's own parser reads them."""
    cli = tyro.cli

    def stop(*args: Any, **more: Any) -> None:
        raise _Read(cli(*args, **more))

    monkeypatch.setattr(tyro, "cli", stop)
    # Settings come from a checkpoint's run; those of a page are not there.
    monkeypatch.setattr(as_trained, "run_of", lambda path: {})

    def options_of(argv: list[str]) -> Any:
        try:
            main(argv)
        except _Read as done:
            check_ranges(done.options)
            return done.options
        except SystemExit:
            pass
        raise AssertionError(f"latentgym {shlex.join(argv)}\n{capsys.readouterr().err}")

    return options_of


@pytest.mark.parametrize("name", ["README.md", *PAGES])
def test_commands_name_what_there_is(
    name: str, read: Callable[[list[str]], Any], capsys: pytest.CaptureFixture[str]
) -> None:
    for command in commands((ROOT / name).read_text()):
        if _OF_OTHERS.search(command.text) or command.text == "latentgym --help":
            continue
        if not command.whole:
            _check_parts(command, capsys)
            continue
        _, *argv = shlex.split(command.text, comments=True)
        options = read(argv)
        _check_environment(getattr(options, "run", options), command)


def _check_environment(options: Any, command: Command) -> None:
    """The environment of a command, its family and its options."""
    env = getattr(options, "env", None)
    if env is None:
        return
    env_id, task, family = resolve(env)
    if getattr(options, "agent", None) is not None:
        assert family in registry.load(AGENTS[options.agent]).families, command.text
    given = key_values(options.env_option)
    assert not given.keys() & DECIDED.keys(), command.text
    maker = task_maker(task)
    as_text = env_model(getattr(options, "model", None) or "tiny") is not None
    known = {**maker.keywords(task, not as_text), **maker.keywords(task, as_text)}
    for option, value in given.items():
        assert option in known, f"{env_id} has no option {option}: {command.text}"
        known[option].check(value, env_id)


def _check_parts(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    """Verb, agent and options of a command with something left to be filled in."""
    verb, *rest = command.text.split()[1:]
    assert verb in COMMANDS, command.text
    chosen = [verb]
    if verb in ("train", "eval"):
        agent = rest[0] if rest and re.fullmatch(r"[a-z].*", rest[0]) else "cot"
        assert agent in AGENTS, command.text
        chosen.append(agent)
    elif (
        verb in ("index", "data", "bench", "suite")
        and rest
        and rest[0].isalpha()
        and rest[0].islower()
    ):
        chosen.append(rest[0])
    options = re.findall(r"(?<!\S)--[a-z][\w.-]*", command.text)
    if options:
        with pytest.raises(SystemExit):
            main([*chosen, "--help"])
        there = set(re.findall(r"--[\w.-]+", capsys.readouterr().out))
        assert set(options) <= there | {"--no-" + o[2:] for o in there}, command.text


def test_every_page_is_listed() -> None:
    """In the site's navigation, and but for the tasks', which have a list of their own, at home."""
    nav, index = (ROOT / "mkdocs.yml").read_text(), PAGES["docs/index.md"].read_text()
    notebooks = [f"notebooks/{path.name}" for path in NOTEBOOKS]
    for page in (*(name.removeprefix("docs/") for name in PAGES), *notebooks):
        assert re.search(rf": {re.escape(page)}$", nav, re.MULTILINE), f"{page} is not in the nav"
        if page != "index.md" and (not page.startswith("tasks/") or page == "tasks/index.md"):
            assert f"({page})" in index, f"{page} is not in index.md"


def test_the_readme_shows_the_rooms_that_there_are() -> None:
    layout = next(b.text for b in blocks((ROOT / "README.md").read_text()) if "  envs/" in b.text)
    shown = re.findall(r"(?<= )(\w+)/(?=\s)", layout)
    rooms = {path.parent.name for path in (ROOT / "latentgym").glob("*/__init__.py")}
    assert sorted(shown) == sorted(rooms | {"examples", "tests"})


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_small_and_were_run(path: Path) -> None:
    cells = [c for c in json.loads(path.read_text())["cells"] if c["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert not any(out["output_type"] == "error" for cell in cells for out in cell["outputs"])
    assert path.stat().st_size < 100_000
    for cell in cells:
        compile("".join(cell["source"]), path.name, "exec")
