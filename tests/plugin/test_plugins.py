"""Tasks and agents of another package, wherever ours are known; files make nothing run."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest

from latentgym import registry
from latentgym.agents import Agent, agent_class
from latentgym.agents.run import Run
from latentgym.cli.agent_options import summary
from latentgym.cli.main import main
from latentgym.cluster.answering import AnsweringWorker
from latentgym.errors import Notice, UsageError
from latentgym.evaluation.results import load_result
from latentgym.openrlhf.prompts import PromptRow
from latentgym.system import plugins
from latentgym.testing import EnvConformance
from latentgym.training.manifest import find, run_of

HERE = Path(__file__).parent
MINE, MUL2 = "my_pkg.agent:Mine", "my_pkg:latent/Mul2-token"
TINY = ("--model", "tiny:gpt2:1x1x8")
Commands = Callable[..., Any]


@pytest.mark.usefixtures("on_the_path")
class TestMul2(EnvConformance):
    """The kit finds the task behind its module."""

    env_id = "my_pkg:latent/Mul2-continuous"


def test_the_command_line_knows_what_is_installed(installed: Path, commands: Commands) -> None:
    agents, envs, info, validate, evaluated, help_, named = commands(
        installed,
        ["agents", "--json"],
        ["envs", "--json"],
        ["info", "Mul2-token", "--json"],
        ["validate", "latent/Mul2-hybrid"],
        ["eval", "mine", "Mul2-token", *TINY, "--limit", "3", "--json"],
        ["--help"],
        ["eval", MINE, "Mul2-token", *TINY, "--limit", "3", "--json"],
    )
    rows = {row["agent"]: row for row in json.loads(agents.out)["agents"]}
    assert rows["mine"]["presets"] == ["warm"] and rows["mine"]["trains"]
    tasks = {row["task"]: row for row in json.loads(envs.out)["tasks"]}
    assert tasks["Mul2"]["data"] == "of my_pkg.tasks"
    assert json.loads(info.out)["gold"] == "N1" and "0 faults" in validate.out
    assert "mine" in help_.out and agents.err == envs.err == ""
    for each in (evaluated, named):
        record = json.loads(each.out)
        assert (record["agent"], record["env"], record["n"]) == ("mine", "latent/Mul2-token", 3)
        assert record["modules"] == {"agent": "my_pkg.agent", "env": "my_pkg.tasks"}


def test_importing_the_library_imports_no_plugin(installed: Path, commands: Commands) -> None:
    code = "import sys, gymnasium, latentgym; print('my_pkg' in sys.modules, end=' '); "
    code += "gymnasium.make('latent/Mul2-token'); print('my_pkg' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{HERE.parents[1]}{os.pathsep}{installed}"},
    )
    assert done.stdout.split() == ["False", "True"], done.stderr


@pytest.mark.usefixtures("on_the_path")
@pytest.mark.parametrize("env", [MUL2, "my_pkg:Mul2-token"])
def test_a_module_before_an_id_is_imported(env: str) -> None:
    assert registry.resolve(env) == ("latent/Mul2-token", "Mul2", "token")
    assert registry.make_vector_env(env, 2).unwrapped.task.name == "Mul2"
    assert registry.qualified("Mul2-token") == MUL2
    assert gym.make(MUL2).unwrapped.task.split == "train"  # type: ignore[attr-defined]
    assert agent_class(MINE).name == "mine"


def test_a_module_may_stand_before_an_id_of_ours() -> None:
    assert registry.resolve("json:MNNS-token")[0] == "latent/MNNS-token"
    assert registry.modules_of("latentgym.agents.cot", "latent/MNNS-token") == {}


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("no_such_pkg:latent/Mul2-token", "no module 'no_such_pkg'; install the package"),
        ("json.no_such:latent/Mul2-token", "no module 'json.no_such'"),
        ("json:latent/Mul3-token", "no environment 'latent/Mul3-token', though json was imported"),
        (":latent/MNNS-token", "'' is no name of a module"),
        ("a b:latent/MNNS-token", "'a b' is no name of a module"),
        ("json:a:latent/MNNS-token", "'json:a' is no name of a module"),
        ("antigravity_failing:X-token", "cannot be imported .ZeroDivisionError: division by zero"),
        ("leaving:X-token", "cannot be imported .SystemExit: 3"),
    ],
)
def test_modules_that_cannot_be_are_told(
    name: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "antigravity_failing.py").write_text("1 / 0")
    (tmp_path / "leaving.py").write_text("import sys; sys.exit(3)")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UsageError, match=sentence):
        registry.resolve(name)


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ("", "has no 'Other'"),
        ("Other = 3", "is no agent; make it a subclass"),
        ("class Other(CoT): name = 'cot'", "calls itself 'cot', as another agent does"),
        ("class Other(Agent): pass", "lacks name, families, config_class, presets"),
    ],
)
def test_an_agent_that_is_none_is_told(
    body: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    imports = "from latentgym.agents import Agent\nfrom latentgym.agents.cot import CoT\n"
    (tmp_path / "others.py").write_text(f"{imports}{body}")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "others", raising=False)
    with pytest.raises(UsageError, match=sentence):
        agent_class("others:Other")


def test_the_page_shows_the_package_as_it_is() -> None:
    page = (HERE.parents[1] / "docs" / "plugins.md").read_text()
    blocks = re.findall(r"```(?:python|toml)\n(.*?)```", page, re.DOTALL)
    files = ("my_pkg/tasks.py", "my_pkg/agent.py", "my_pkg/__init__.py", "pyproject.toml")
    for name, block in zip(files, blocks, strict=False):
        text = (HERE / name).read_text()
        assert block in text and (block == text or name == "pyproject.toml"), name
    assert blocks[len(files) :] and "class TestMul2(EnvConformance)" in blocks[-1]


def test_an_agent_needs_no_docstring() -> None:
    assert summary(type("Silent", (Agent,), {})) == ""


def test_what_trains_nothing_has_no_settings_in_a_checkpoint(
    runs: Path, tmp_path: Path, changed: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    """They may name a function to import, as the reward of latentseek does."""
    shutil.copytree(runs / "train", tmp_path / "train")
    config = {"reward": "evil:reward"}
    changed(
        find(tmp_path / "train") / "manifest.json",
        lambda data: data["run"].update(agent="latentseek", config=config),
    )
    argv = ["eval", "latentseek", "MNNS-token", *TINY, "--checkpoint", f"{tmp_path}/train"]
    assert main(argv) == 2
    assert "latentseek, which needs no training" in capsys.readouterr().err


def entry_points(folder: Path, package: str, lines: str) -> None:
    info = folder / f"{package}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(lines)


BROKEN = {
    "gone": ("[latentgym.agents]\ngone = no_such_pkg:Gone", "agents", "no module 'no_such_pkg'"),
    "failing": ("[latentgym.tasks]\nfailing = failing:make", "envs", "ZeroDivisionError"),
    "absent": ("[latentgym.tasks]\nabsent = json:make", "envs", "has no 'make'"),
    "noagent": ("[latentgym.agents]\nnoagent = json:loads", "agents", "is no agent"),
    "malformed": ("[latentgym.tasks]\nmalformed = json", "envs", "is no module:attribute"),
    "evil": ("[latentgym.tasks]\na b = json:loads", "envs", "'a b' is no name"),
    "notask": ("[latentgym.tasks]\nnotask = string:digits", "envs", "makes no task"),
    "taken": ("[latentgym.tasks]\nGSM8K = json:loads", "envs", "is a task 'GSM8K' already"),
    "taken2": ("[latentgym.agents]\ncot = json:loads", "agents", "is an agent 'cot' already"),
    "unlike": (
        "[latentgym.agents]\nunlike = latentgym.agents.cot:CoT",
        "agents",
        "'unlike' .*calls itself 'cot'",
    ),
}


@pytest.mark.thorough
def test_a_broken_plugin_is_told_in_a_sentence_and_breaks_nothing(
    tmp_path: Path, commands: Commands
) -> None:
    (tmp_path / "failing.py").write_text("print('said on import')\n1 / 0")
    for package, (lines, _, _) in BROKEN.items():
        entry_points(tmp_path, package, lines)
    agents, envs, *used = commands(
        tmp_path,
        ["agents"],
        ["envs"],
        ["info", "GSM8K-token"],
        ["info", "MNNS-token"],
        ["eval", "cot", "MNNS-token", *TINY, "--limit", "1"],
    )
    assert [each.code for each in (agents, envs, *used)] == [0, 0, 0, 0, 0]
    assert "soft-thinking" in agents.out and "latent/MNNS-*" in envs.out
    assert "said on import" in envs.err and "said" not in envs.out  # stdout holds results alone
    told = {"agents": agents.err.splitlines(), "envs": envs.err.splitlines()}
    for package, (_, command, why) in BROKEN.items():
        (line,) = [line for line in told[command] if f" {package} " in line]
        assert re.match(rf"note: .*left out.*{why}", line), line
    told_of = [
        [each.err.count(f"package {name} is") for name in ("taken", "taken2")] for each in used
    ]
    assert told_of == [[1, 0], [0, 0], [0, 1]]


def test_entry_points_that_cannot_be_read_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry_points(tmp_path, "garbled", "[latentgym.tasks]\nno equals sign")
    monkeypatch.setattr(plugins, "_refused", [])
    monkeypatch.syspath_prepend(tmp_path)
    registry.read_plugins()
    with pytest.warns(Notice, match="of the package garbled (cannot be read|is left out)"):
        plugins.tell_refused()


@pytest.mark.usefixtures("on_the_path")
def test_registering_twice_is_one_and_another_maker_is_refused() -> None:
    registry.resolve(MUL2)
    registry.register_task("Mul2", "my_pkg.tasks:make")
    with pytest.raises(UsageError, match="a task 'Mul2' already"):
        registry.register_task("Mul2", "my_pkg.tasks:other")
    with pytest.raises(UsageError, match="'a/b' is no name"):
        registry.register_task("a/b", "my_pkg.tasks:make")


# Records, manifests and labels name the module; it is imported on nobody's word but the user's.


def test_records_and_manifests_name_the_modules(runs: Path) -> None:
    modules = {"agent": "my_pkg.agent", "env": "my_pkg"}
    for folder in ("train", "eval"):
        result = load_result(runs / folder)
        assert result.modules == modules
        assert (result.agent, result.env) == ("mine", "latent/Mul2-token")
    run = run_of(runs / "train")
    assert (run["modules"], run["agent"], run["env"]) == (modules, "mine", "latent/Mul2-token")


def test_what_is_ours_names_no_module(tmp_path: Path) -> None:
    assert main(["eval", "cot", "MNNS-token", *TINY, "--limit", "2", "--out", str(tmp_path)]) == 0
    assert load_result(tmp_path).modules == {}


FOREIGN = (
    {"modules": {"env": "evil"}},
    {"modules": {}, "env": "evil:latent/Mul2-token"},
    {"modules": {"env": "evil", "agent": "evil"}, "env": "json:evil:latent/Mul2-token"},
    {"modules": {"env": "evil; exit"}},
)


@pytest.mark.parametrize("change", FOREIGN)
def test_a_record_makes_nothing_run(
    change: dict[str, Any],
    runs: Path,
    tmp_path: Path,
    changed: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ran, folder = tmp_path / "ran", tmp_path / "foreign"
    (tmp_path / "evil.py").write_text(f"open({str(ran)!r}, 'w').close()")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "evil", raising=False)
    shutil.copytree(runs / "eval", folder)
    changed(folder / "result.json", lambda data: data.update(change))
    assert main(["rescore", str(folder)]) == 2
    err = capsys.readouterr().err
    assert re.fullmatch("latentgym rescore: .*names the module .*evil.* add --module .*\\n", err)
    assert main(["leaderboard", str(folder)]) == 0 and "mine" in capsys.readouterr().out
    assert not ran.exists()
    assert main(["rescore", str(folder), "--module", "evil"]) == 2 and ran.exists()


def test_a_manifest_makes_nothing_run(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], changed: Callable[..., None]
) -> None:
    """What the checkpoint was trained on is not known then, and that is said."""
    shutil.copytree(runs / "train", tmp_path / "train")
    manifest = find(tmp_path / "train") / "manifest.json"
    changed(manifest, lambda data: data["run"].update(env="evil:latent/Mul2-token"))
    argv = ["eval", "cot", "MNNS-token", *TINY, "--force", "--checkpoint", str(tmp_path / "train")]
    assert main(argv) == 2  # the weights are of another task
    assert "names the module 'evil'" in capsys.readouterr().err


@pytest.mark.parametrize("vouched", ["option", "variable", "entry point", "package of it"])
def test_a_module_that_is_vouched_for_is_imported(
    vouched: str,
    runs: Path,
    on_the_path: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    argv = ["rescore", f"{runs}/eval"]
    assert main(argv) == 2
    assert "add --module my_pkg, or set LATENTGYM_MODULES" in capsys.readouterr().err
    if vouched == "option":
        argv += ["--module=my_pkg"]
    elif vouched == "variable":
        monkeypatch.setenv(plugins.TRUSTED, "other, my_pkg")
    else:
        named = {"entry point": "my_pkg", "package of it": "my_pkg.agent"}[vouched]
        monkeypatch.setattr(plugins, "_trusted", {named})
    assert main(argv) == 0 and "0 of 17 scores changed" in " ".join(capsys.readouterr().out.split())


def test_a_module_that_is_gone_is_told(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(plugins.TRUSTED, "my_pkg")
    assert main(["rescore", f"{runs}/eval"]) == 2
    assert "no module 'my_pkg'; install the package" in capsys.readouterr().err
    assert main(["leaderboard", str(runs)]) == 0 and capsys.readouterr().out.count("mine") == 2


def test_the_option_needs_a_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["envs", "--module"]) == 2
    assert "--module needs the name of a module" in capsys.readouterr().err


@pytest.mark.usefixtures("on_the_path")
def test_another_agent_may_begin_from_a_plugins_weights(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["eval", "cot", MUL2, "--limit", "2", "--checkpoint", f"{runs}/train"]
    assert main([*argv, "--force"]) == 0
    assert "not all that" not in capsys.readouterr().err
    assert main(argv) == 2
    assert "trained with mine of my_pkg.agent" in capsys.readouterr().err


def test_a_worker_imports_what_a_run_needs(on_the_path: Callable[[], None]) -> None:
    registry.resolve(MUL2)
    run = Run(agent=MINE, config=agent_class(MINE).config_class(), env="Mul2-token", model=TINY[1])
    assert replace(run, seed=1).env == run.env == MUL2
    sent = pickle.dumps(run)
    on_the_path()  # as a fresh process
    there = pickle.loads(sent)
    identity = AnsweringWorker(there, lambda _: 2).begin()
    assert (identity.agent, identity.module) == ("mine", "my_pkg.agent")
    assert there.make_env(2).unwrapped.task.name == "Mul2" and there.env_id == "latent/Mul2-token"


@pytest.mark.cluster
@pytest.mark.thorough
def test_ray_workers_answer_for_a_plugin(runs: Path, commands: Commands) -> None:
    argv = ["eval", MINE, MUL2, "--checkpoint", f"{runs}/train", "--json"]
    here, there = commands(HERE, argv, [*argv, "--backend", "ray", "--workers", "1"])
    one, other = json.loads(here.out), json.loads(there.out)
    assert one["accuracy"] == other["accuracy"] and one["modules"] == other["modules"]


def test_a_label_names_the_module_and_makes_nothing_run(
    on_the_path: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    label = PromptRow(MUL2, 3, {"model": "m"}).label()
    on_the_path()
    with pytest.raises(UsageError, match="names the module 'my_pkg'"):
        PromptRow.read(label)
    monkeypatch.setenv(plugins.TRUSTED, "my_pkg")
    assert PromptRow.read(label).index == 3
