"""Evaluations during training: the best weights are kept and used, a resumed run does the same."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from shutil import rmtree
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from latentgym.errors import CheckpointError, UsageError
from latentgym.heads import MixtureHead
from latentgym.lm import load_model
from latentgym.registry import make_vector_env
from latentgym.rollout import Policy
from latentgym.training import Look, Looks, Optimisation, Supervised, SupervisedConfig, Trainer
from latentgym.training import checkpoint as checkpoints
from latentgym.training.manifest import complete, find, latest, read_manifest

NAMES = "whole", "parts"
Tensors = dict[str, torch.Tensor]


def answers(accuracies: dict[int, float]) -> Callable[[int], Look]:
    """Looks of given accuracies, by their step; others are of none."""

    def ask(step: int) -> Look:
        accuracy = accuracies.get(step, 0.0)
        return Look(step, accuracy, max(0.0, accuracy - 0.1), min(1.0, accuracy + 0.1))

    return ask


def trainer(out: Path | None, looks: Looks | None, steps: int = 8, **more: Any) -> Trainer:
    env = make_vector_env("latent/MNNS-continuous", 1, limit=64)
    lm = load_model("tiny:gpt2:1x1x16", tokenizer=env.unwrapped.task.tokenizer)
    stage = Supervised(Policy(lm, MixtureHead()), env, SupervisedConfig(8, dropout=0.1))
    constant = Optimisation(schedule="constant", warmup=0.0)
    return Trainer(stage, constant, steps, out=out, looks=looks, **more)


def weights(folder: Path) -> Tensors:
    return load_file(str(folder / "policy.safetensors"))


def same(ours: Tensors, theirs: Tensors) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


@pytest.mark.parametrize(
    ("seen", "best", "without"),
    [
        ([], None, 0),
        ([0.0], 1, 0),
        ([0.2, 0.2, 0.2], 1, 2),  # as good is no better
        ([0.2, 0.3, 0.1, 0.3], 2, 2),
        ([0.1, 0.2, 0.3], 3, 0),
        ([0.3, 0.1, 0.2], 1, 2),
    ],
    ids=str,
)
def test_the_best_is_the_first_of_the_highest(
    seen: list[float], best: int | None, without: int
) -> None:
    for patience in range(5):
        looks = Looks(answers(dict(enumerate(seen, start=1))), 1, patience)
        for step in range(1, len(seen) + 1):
            looks.look(step)
        assert looks.best == best
        assert looks.exhausted == (patience > 0 and without >= patience)


def test_looks_are_due_every_n_steps_and_in_the_end() -> None:
    looks = Looks(answers({}), 3)
    assert [done for done in range(1, 9) if looks.due(done, 8)] == [3, 6, 8]


@pytest.mark.parametrize("stop", [1, 4, 8])
@pytest.mark.parametrize(
    ("accuracies", "patience"),
    [({2: 0.1, 4: 0.5, 6: 0.3, 8: 0.4}, 0), ({2: 0.1, 4: 0.5, 6: 0.5}, 1), ({2: 0.9}, 3)],
    ids=["patient", "stops early", "stops with the last"],
)
def test_a_resumed_run_has_the_same_looks_best_and_patience(
    accuracies: dict[int, float], patience: int, stop: int, tmp_path: Path
) -> None:
    """Bit for bit, wherever it was stopped: here behind a look, before its checkpoint."""
    ask = answers(accuracies)

    def started(name: str) -> Trainer:
        looks = Looks(ask, 2, patience)
        return trainer(tmp_path / name, looks, save_every=3, keep=2, log_every=1)

    whole, stopped = started("whole"), started("parts")
    whole.run()
    save = stopped._save

    def stop_at(done: int) -> None:
        if done >= stop:
            raise KeyboardInterrupt
        save(done)

    stopped._save = stop_at  # type: ignore[method-assign]
    with suppress(KeyboardInterrupt):  # what stops early may not come so far
        stopped.run()
    resumed = started("parts")
    resumed.run(resume=True)
    assert whole.looks is not None and resumed.looks is not None
    assert resumed.looks.taken == whole.looks.taken
    assert (resumed.looks.best, resumed.done) == (whole.looks.best, whole.done)
    assert same(dict(whole.policy.state_dict()), dict(resumed.policy.state_dict()))
    kept = [[p.name for p in complete(tmp_path / n / "checkpoints")] for n in NAMES]
    assert set(kept[0]) == set(kept[1])
    for name in kept[0]:
        ours, theirs = (tmp_path / n / "checkpoints" / name for n in NAMES)
        assert same(weights(ours), weights(theirs))
        assert same(*(load_file(str(f / "optimizer.safetensors")) for f in (ours, theirs)))
        assert read_manifest(ours)["looks"] == read_manifest(theirs)["looks"]
    logged = [
        [{k: v for k, v in json.loads(line).items() if "second" not in k} for line in lines]
        for lines in ((tmp_path / n / "metrics.jsonl").read_text().splitlines() for n in NAMES)
    ]
    assert logged[0] == logged[1]
    assert [line["step"] for line in logged[0] if "eval/accuracy" in line] == [
        look.step for look in whole.looks.taken
    ]


@pytest.mark.parametrize(
    ("keep", "kept"), [(1, [4, 8]), (2, [4, 7, 8]), (5, [4, 5, 6, 7, 8]), (9, [*range(1, 9)])]
)
def test_the_newest_are_kept_and_the_best(keep: int, kept: list[int], tmp_path: Path) -> None:
    run = trainer(tmp_path, Looks(answers({2: 0.2, 4: 0.5, 6: 0.1}), 2), save_every=1, keep=keep)
    run.run()
    root = tmp_path / "checkpoints"
    assert [read_manifest(folder)["step"] for folder in complete(root)] == kept
    for path in (tmp_path, root):
        assert find(path).name == "step-00000004"
    assert find(root / "step-00000008").name == "step-00000008"
    found = run.policy.state_dict()  # with tied weights twice
    assert all(torch.equal(found[k], stored) for k, stored in weights(find(tmp_path)).items())
    assert not same(weights(find(tmp_path)), weights(root / "step-00000008"))


def test_without_looks_the_newest_are_kept_and_the_last_is_used(tmp_path: Path) -> None:
    trainer(tmp_path, None, save_every=2, keep=3).run()
    steps = [read_manifest(folder)["step"] for folder in complete(tmp_path / "checkpoints")]
    assert steps == [4, 6, 8]
    assert find(tmp_path) == latest(tmp_path / "checkpoints")


def test_looks_change_nothing_of_the_training(tmp_path: Path) -> None:
    trainer(tmp_path / "with", Looks(answers({}), 3)).run()
    trainer(tmp_path / "without", None).run()
    ends = [latest(tmp_path / name / "checkpoints") for name in ("with", "without")]
    assert ends[0] is not None and ends[1] is not None
    assert same(weights(ends[0]), weights(ends[1]))


def test_a_run_that_stopped_early_goes_on_with_more_patience(tmp_path: Path) -> None:
    ask = answers({2: 0.5, 4: 0.4, 6: 0.6})
    assert trainer(tmp_path, Looks(ask, 2, patience=1)).run()
    again = trainer(tmp_path, Looks(ask, 2, patience=1))
    assert again.run(resume=True) == {} and again.done == 4
    more = Looks(ask, 2, patience=2)
    run = trainer(tmp_path, more)
    assert run.run(resume=True)
    assert (run.done, more.best) == (8, 6)


def test_a_best_checkpoint_that_is_gone_is_told(tmp_path: Path) -> None:
    trainer(tmp_path, Looks(answers({2: 0.5}), 2)).run()
    rmtree(tmp_path / "checkpoints" / "step-00000002")
    with pytest.raises(CheckpointError, match=r"best checkpoint of .* is that of step 2, which"):
        find(tmp_path)


@pytest.mark.parametrize(
    "looks",
    [
        3,
        [3],
        [{}],
        [{"step": 1}],
        [{"step": 1.5, "accuracy": 0.1, "low": 0.0, "high": 1.0}],
        [{"step": -1, "accuracy": 0.1, "low": 0.0, "high": 1.0}],
        [{"step": 1, "accuracy": 1.1, "low": 0.0, "high": 1.0}],
        [{"step": 1, "accuracy": True, "low": 0.0, "high": 1.0}],
        [{"step": 1, "accuracy": 0.1, "low": 0.0, "high": 1.0, "more": 0.0}],
    ],
    ids=str,
)
def test_looks_that_no_run_has_taken_are_refused(looks: Any, tmp_path: Path) -> None:
    run = trainer(tmp_path, None)
    manifest = {"steps": 8, "run": {}, "looks": []}
    folder = checkpoints.save(tmp_path, 8, run.policy, run.optimizer, manifest)
    path = folder / "manifest.json"
    told = json.loads(path.read_text()) | {"looks": looks}
    del told["sha256"], told["files"]
    path.write_text(json.dumps(told))
    with pytest.raises(CheckpointError, match="says no looks"):
        read_manifest(folder)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda out: trainer(None, Looks(answers({}), 1)), "give out"),
        (lambda out: trainer(out, None, keep=0), "at least one checkpoint"),
        (lambda out: Looks(answers({}), 0), "at least 1, but n is 0"),
        (lambda out: Looks(answers({}), 1, -1), "at least 0 looks"),
    ],
)
def test_what_cannot_work_is_refused(make: Any, says: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=says):
        make(tmp_path)


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_loggers_file_a_run_under_the_users_project(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: dict[str, Any] = {}
    logged: list[Any] = []

    class Stub(ModuleType):
        def init(self, **settings: Any) -> Any:
            told.update(settings)
            return self

        def log(self, *line: Any, **more: Any) -> None:
            logged.append((line, more))

        def finish(self) -> None:
            logged.append("finished")

    monkeypatch.setitem(sys.modules, name, Stub(name))
    trainer(tmp_path, None, steps=1, loggers=(name,), project="thoughts").run()
    assert told["project"] == "thoughts"
    assert len(logged) == 2 and logged[-1] == "finished"
