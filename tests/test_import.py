"""The package imports lightly, its rooms stand where they should, and arrows go one way."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path
from types import ModuleType

import pytest

from latentgym.cli.bench import BENCHES
from latentgym.registry import AGENTS, TASKS

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
        "import sys, latentgym, latentgym.evaluation.recommenders.sasrec; "
        f"print([m for m in {HEAVY!r} if m in sys.modules])"
    )
    assert fresh(code) == "[]"


# What a person waits for at the keyboard: help, lists, and words that are wrong.
EVERYDAY = """
--help
agents
envs
leaderboard
leaderboard --help
suite list
suite show paper-coconut
suite run --help
compare --help
train --help
train hrpo --help
train hrpo latent/NoSuch-hybrid
train hrpo latent/GSM8K-token
train hrpo latent/GSM8K-hybrid --temperature -1
train hrpo latent/GSM8K-hybrid --nosuch 3
train hrpo latent/GSM8K-hybrid --grpo.group-size 1
train hrpo latent/GSM8K-hybrid --grpo.advantage nosuch
train hrpo latent/GSM8K-hybrid --optimisation.schedule nosuch
train cot latent/GSM8K-token --preset nosuch
train soft-thinking latent/GSM8K-continuous
eval --help
eval nosuch latent/GSM8K-token
eval cot latent/NoSuch-token
eval cot latent/GSM8K-token --checkpoint nowhere
eval latentseek latent/GSM8K-token --reward nosuch
rescore --help
baseline --help
baseline nosuch latent/MovieLens-token
info --help
validate --help
demo --help
index --help
index build --help
data --help
data amazon --help
data movielens --help
bench --help
"""
EVERYDAY_COMMANDS = [
    *EVERYDAY.strip().splitlines(),
    *(f"eval {agent} --help" for agent in AGENTS),
    *(f"bench {name} --help" for name in BENCHES),
]


def test_everyday_commands_are_light() -> None:
    # In one process: what one of them imports stays for all to see.
    code = f"""
import contextlib, io, sys
from latentgym.cli.main import main
for command in {EVERYDAY_COMMANDS!r}:
    told = io.StringIO()
    with contextlib.redirect_stdout(told), contextlib.redirect_stderr(told):
        try:
            main(command.split())
        except SystemExit:  # how tyro ends after help, or a word that is wrong
            pass
    heavy = [m for m in {HEAVY!r} if m in sys.modules]
    if heavy or not told.getvalue():
        print(command, heavy)
"""
    assert fresh(code) == ""


@pytest.mark.parametrize("package", ["heads", "lm", "rollout", "training"])
def test_lazy_packages_have_all_their_names(package: str) -> None:
    # With all modules loaded: a function must not give way to the module of its name.
    lazy = importlib.import_module(f"latentgym.{package}")
    for module in pkgutil.iter_modules(lazy.__path__, f"{lazy.__name__}."):
        importlib.import_module(module.name)
    assert lazy.__all__ and set(lazy.__all__) <= set(dir(lazy))
    assert not [n for n in lazy.__all__ if isinstance(getattr(lazy, n), ModuleType)]


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


# The loose files; all else has a room, which is a folder.
ROOT_FILES = {"__init__", "__main__", "errors", "progress", "registry", "storage"}

# Which rooms a room imports, and no others. Every room may import `errors`.
ARROWS = {
    "__init__": "agents registry",
    "__main__": "cli",
    "adapters": "envs episodes registry rewards text",
    "agents": "episodes evaluation heads lm openrlhf progress registry rollout storage system text "
    "training",
    "analysis": "episodes evaluation heads lm progress rollout storage system text",
    "cli": "agents analysis cluster data envs episodes evaluation heads lm progress "
    "registry retrieval rollout storage system testing text training wrappers",
    "cluster": "evaluation",
    "data": "episodes progress storage system text",
    "envs": "data episodes heads lm registry retrieval rewards rollout system text training",
    "episodes": "",
    "errors": "",
    "evaluation": "data progress registry storage system text",
    "heads": "episodes",
    "lm": "storage system text",
    "openrlhf": "cluster episodes evaluation heads lm progress registry rollout storage system "
    "text training",
    "progress": "system",
    "registry": "system",
    "retrieval": "data progress storage system text",
    "rewards": "system",
    "rollout": "episodes heads lm text",
    "storage": "",
    "system": "storage",
    "testing": "episodes",
    "text": "progress system",
    "training": "analysis episodes heads lm progress registry rollout storage system text",
    "wrappers": "envs system",
}

# What of a room its callers know: an agent is its base class, its settings, what is run on what and
# evaluated on what, and how a search at test time goes; graders run in the bounded process.
DOORS = {
    "agents": (
        "api",
        "base",
        "effect",
        "export",
        "lineage",
        "run",
        "train",
        "train_options",
        "search",
        "settings",
        "stored",
        "validation",
    )
}


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def arrows() -> dict[str, set[str]]:
    found: dict[str, set[str]] = {room(path): set() for path in SOURCES}
    for path in SOURCES:
        for module in imports(path):
            first, *rest = module.split(".")
            assert first not in ("envs", "agents", "rewards"), "not through the links"
            if first == "latentgym" and rest and rest[0] in found:
                found[room(path)].add(rest[0])
    return {here: targets - {here, "errors"} for here, targets in found.items()}


def test_rooms_and_arrows_are_as_drawn() -> None:
    assert {p.stem for p in PACKAGE.glob("*.py")} == ROOT_FILES
    folders = {p.name for p in PACKAGE.iterdir() if p.is_dir() and p.name != "__pycache__"}
    assert len(folders) <= 20
    assert arrows() == {here: set(targets.split()) for here, targets in ARROWS.items()}


def test_arrows_form_no_circle() -> None:
    TopologicalSorter(arrows()).prepare()


@pytest.mark.parametrize(("room_of", "doors"), DOORS.items())
def test_a_room_is_entered_by_its_doors(room_of: str, doors: tuple[str, ...]) -> None:
    for path in SOURCES:
        for module in imports(path):
            if room(path) != room_of and module.startswith(f"latentgym.{room_of}."):
                assert module.split(".")[2] in doors, f"{path} imports {module}"


def test_every_entry_point_exists() -> None:
    for entry in {*TASKS.values(), *AGENTS.values()}:
        module, attribute = entry.split(":")
        assert callable(getattr(importlib.import_module(module), attribute))
