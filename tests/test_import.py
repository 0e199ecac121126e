"""The package imports lightly, its rooms stand where they should, and arrows go one way."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "latentgym"
SOURCES = sorted(PACKAGE.rglob("*.py"))
HEAVY = (
    "torch",
    "transformers",
    "datasets",
    "ray",
    "reasoning_gym",
    "pyserini",
    "jpype",
    "rectools",
)


def fresh(code: str) -> str:
    """What code prints in a process of its own, outside the repository."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd="/", timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_is_light() -> None:
    code = (
        "import sys, latentgym, latentgym.recommenders.sasrec; "
        f"print([m for m in {HEAVY!r} if m in sys.modules])"
    )
    assert fresh(code) == "[]"


def test_an_environment_without_a_model_needs_no_torch() -> None:
    code = (
        "import sys, gymnasium; env = gymnasium.make('latentgym:latent/GSM8K-continuous', "
        "source='sample'); env.reset(seed=0); env.step(env.action_space.sample()); "
        f"print(env.spec.id, [m for m in {HEAVY!r} if m in sys.modules])"
    )
    assert fresh(code) == "latent/GSM8K-continuous []"


def test_the_vector_environment_is_made_by_gymnasium() -> None:
    code = (
        "import gymnasium; env = gymnasium.make_vec('latentgym:latent/MNNS-token', num_envs=2); "
        "print(type(env.unwrapped).__name__)"
    )
    assert fresh(code) == "LatentVectorEnv"


@pytest.mark.parametrize("room", ["envs", "agents", "rewards"])
def test_the_rooms_stand_at_the_top(room: str) -> None:
    link = ROOT / room
    assert link.is_symlink() and not link.readlink().is_absolute()
    assert link.resolve() == PACKAGE / room and (link / "__init__.py").is_file()


def test_no_file_is_too_long() -> None:
    files = [
        p for folder in ("latentgym", "tests", "benchmarks") for p in (ROOT / folder).rglob("*.py")
    ]
    long = {p.name: n for p in files if (n := len(p.read_text("utf-8").splitlines())) > 600}
    assert len(files) > 100 and long == {}


def imports(path: Path) -> Iterator[str]:
    """The modules that a file imports, wherever in it; for type checking alone does not count."""
    tree = ast.parse(path.read_text("utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: import by the full name"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


ROOMS = ("envs", "agents", "rewards", "cli", "bench", "bounded")
# What a room may not import of ours; "core" is all that is in none of the rooms.
FORBIDDEN = {
    "core": ("envs", "agents", "rewards", "cli", "bench"),
    "rewards": ("",),
    "bounded": ("",),
    "envs": ("agents", "cli", "bench", "training", "rollout", "heads"),
    "agents": ("envs", "cli", "bench"),
    "bench": ("envs", "agents", "cli"),
    "cli": ("envs", "agents"),
}


# The base class says what an agent is, `Run` what is run on what, the others what its settings come
# to; the command line and the benchmarks know no more. Graders run in the bounded process, which
# imports nothing of ours itself.
_OF_AGENTS = ("base", "effect", "run", "settings")
EXCEPTIONS = {
    **dict.fromkeys(("cli", "bench"), tuple(f"latentgym.agents.{name}" for name in _OF_AGENTS)),
    "rewards": ("latentgym.bounded",),
}


def room(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    if first == "__main__.py":
        return "cli"
    return first if first in ROOMS else "core"


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_arrows_go_one_way(path: Path) -> None:
    here = room(path)
    allowed = (f"latentgym.{here}", *EXCEPTIONS.get(here, ()))
    for module in imports(path):
        assert module.split(".")[0] not in ("envs", "agents", "rewards"), "not through the links"
        for target in FORBIDDEN[here]:
            forbidden = f"latentgym.{target}".rstrip(".")
            hit = module == forbidden or module.startswith(f"{forbidden}.")
            assert not hit or module.startswith(allowed), f"{here} imports {module}"


def test_every_entry_point_exists() -> None:
    from importlib import import_module

    from latentgym.registry import AGENTS, TASKS

    for entry in {*TASKS.values(), *AGENTS.values()}:
        module, attribute = entry.split(":")
        assert callable(getattr(import_module(module), attribute))
