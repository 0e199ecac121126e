"""Checkpoints and resume: a run that was killed ends as the one that was not."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from latentgym.errors import CheckpointError, TrainingError, UsageError
from latentgym.heads import MixtureHead
from latentgym.lm import load_model
from latentgym.registry import make_vector_env
from latentgym.rollout import Policy
from latentgym.training import Optimisation, Supervised, SupervisedConfig, Trainer
from latentgym.training import checkpoint as checkpoints
from latentgym.training.manifest import latest, read_manifest


def trainer(out: Path | None, steps: int = 6, width: int = 16, **more: Any) -> Trainer:
    env = make_vector_env("latent/MNNS-continuous", 1, limit=64)
    lm = load_model(f"tiny:gpt2:1x1x{width}", tokenizer=env.unwrapped.task.tokenizer)
    policy = Policy(lm, MixtureHead())
    stage = Supervised(policy, env, SupervisedConfig(8, dropout=0.1, own_thoughts=0.5))
    identity = more.pop("identity", {"name": "test"})
    return Trainer(stage, Optimisation(), steps, out=out, identity=identity, **more)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    newest = latest(folder / "checkpoints")
    assert newest is not None
    return load_file(str(newest / "policy.safetensors"))


def test_resumed_equals_uninterrupted_bit_for_bit(tmp_path: Path) -> None:
    trainer(tmp_path / "whole", save_every=2).run()

    stopped = trainer(tmp_path / "parts", save_every=2)
    step = stopped.stage.step

    def stop_at_four(number: int, update: Any) -> Any:
        if number == 4:
            raise KeyboardInterrupt
        return step(number, update)

    stopped.stage.step = stop_at_four  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        stopped.run()
    trainer(tmp_path / "parts", save_every=2).run(resume=True)
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    lines = (tmp_path / "parts" / "metrics.jsonl").read_text().splitlines()
    steps = [json.loads(line)["step"] for line in lines]
    assert steps == sorted(set(steps))


def test_a_half_written_checkpoint_is_not_seen(tmp_path: Path) -> None:
    trainer(tmp_path, save_every=2).run()
    half = tmp_path / "checkpoints" / "step-00000999"
    half.mkdir()
    (half / "policy.safetensors").write_bytes(b"half")
    newest = latest(tmp_path / "checkpoints")
    assert newest is not None
    assert newest.name == "step-00000006"


@pytest.mark.parametrize(
    "damage", [b"\xff\n", b"[1]\n", b"{}\n", b'{"step": "x"}\n', b"[" * 9000 + b"\n"]
)
def test_a_damaged_log_is_told_by_its_line(damage: bytes, tmp_path: Path) -> None:
    trainer(tmp_path, save_every=2, log_every=1).run()
    path = tmp_path / "metrics.jsonl"
    first, *rest = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([first, damage, *rest]))
    with pytest.raises(UsageError, match=r"metrics\.jsonl is damaged in line 2; delete that line"):
        trainer(tmp_path, save_every=2).run(resume=True)
    path.write_bytes(b"".join([first, *rest, damage.rstrip(b"\n")]))
    trainer(tmp_path, save_every=2, log_every=1).run(resume=True)
    assert path.read_bytes() == b"".join([first, *rest])


def test_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    trainer(tmp_path, save_every=2).run()
    with pytest.raises(UsageError, match=r"another run \(it differs in name\)"):
        trainer(tmp_path, identity={"name": "other"}).run(resume=True)


def test_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    trainer(tmp_path).run()
    newest = latest(tmp_path / "checkpoints")
    assert newest is not None
    with pytest.raises(CheckpointError, match="does not fit"):
        checkpoints.load(newest, trainer(None, width=32).policy)


def test_checkpoint_of_another_version_is_refused(tmp_path: Path, changed: Any) -> None:
    trainer(tmp_path).run()
    newest = latest(tmp_path / "checkpoints")
    assert newest is not None
    changed(newest / "manifest.json", lambda manifest: manifest.update(schema=99))
    with pytest.raises(CheckpointError, match="version 99"):
        trainer(tmp_path).run(resume=True)


@pytest.mark.parametrize("damage", [b"", b"{", b"[]"])
def test_damaged_manifest_is_refused(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "manifest.json").write_bytes(damage)
    with pytest.raises(CheckpointError):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"step": None}, "says no step"),
        ({"step": -5}, "says no step"),
        ({"step": True}, "says no step"),
        ({"step": 10**30}, "says no step"),
        ({"steps": "6"}, "says no steps"),
        ({"steps": -1}, "says no steps"),
        ({"steps": None}, "cannot be resumed"),
        ({"lengths": 3}, "says no lengths"),
        ({"lengths": [[]]}, "says no lengths"),
        ({"files": {"policy.safetensors": 3}}, "says no files"),
        ({"run": "x"}, "says no run"),
    ],
    ids=str,
)
def test_a_manifest_of_other_values_is_refused(
    change: dict[str, Any], says: str, tmp_path: Path, changed: Any
) -> None:
    run = trainer(tmp_path)
    folder = checkpoints.save(
        tmp_path / "checkpoints", 6, run.policy, run.optimizer, {"steps": 6, "run": run.identity}
    )
    changed(folder / "manifest.json", lambda manifest: manifest.update(change))
    with pytest.raises(CheckpointError, match=says):
        run.run(resume=True)


def test_full_disk_is_said_and_the_last_checkpoint_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer(tmp_path, steps=2).run()

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints, "save_file", full)
    with pytest.raises(CheckpointError, match="No space left"):
        trainer(tmp_path, steps=4).run()
    newest = latest(tmp_path / "checkpoints")
    assert newest is not None
    assert newest.name == "step-00000002"
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["step-00000002"]


def test_nothing_to_train_is_refused() -> None:
    run = trainer(None)
    run.policy.requires_grad_(False)
    with pytest.raises(UsageError, match="nothing to train"):
        Trainer(run.stage, Optimisation(), 1)


def test_learning_rate_warms_up_and_falls() -> None:
    plan = Optimisation(schedule="cosine", warmup=0.1)
    factors = [plan.factor(step, 100) for step in range(100)]
    assert factors[0] == pytest.approx(0.1)
    assert max(factors) == factors[9] == 1.0
    assert factors[-1] < 0.01
    assert Optimisation(schedule="constant", warmup=0).factor(99, 100) == 1.0
    assert Optimisation(schedule="linear", warmup=0).factor(50, 100) == pytest.approx(0.5)


@pytest.mark.parametrize("fault", ["loss", "gradient", "weights"])
@pytest.mark.parametrize("clipped", [True, False])
def test_numbers_that_are_not_finite_stop_the_run_and_the_last_checkpoint_stays(
    tmp_path: Path, fault: str, clipped: bool
) -> None:
    run = trainer(tmp_path, save_every=2)
    if not clipped:
        run.optimisation = replace(run.optimisation, max_grad_norm=0.0)
    weight, step = next(run.policy.parameters()), run.stage.step

    def poisoned(number: int, update: Any) -> Any:
        def spoil(losses: Any) -> Any:
            for loss in losses:
                yield {"loss": loss + float("inf"), "gradient": loss * float("inf")}[fault]

        if number == 3 and fault == "weights":
            metrics = step(number, update)
            weight.data[0, 0] = float("nan")
            return metrics
        return step(number, lambda losses: update(spoil(losses) if number == 3 else losses))

    run.stage.step = poisoned  # type: ignore[method-assign]
    with pytest.raises(TrainingError, match=r"stopped at step 4:.*step-00000002 is the last good"):
        run.run()
    assert all(bool(tensor.isfinite().all()) for tensor in weights(tmp_path).values())
    if fault != "weights":  # no step was taken with it
        assert all(bool(p.isfinite().all()) for p in run.policy.parameters())


def test_weights_that_a_model_cannot_compute_with_are_not_saved(tmp_path: Path) -> None:
    run = trainer(tmp_path, steps=4, save_every=1)
    step = run.step

    def exploding(number: int) -> dict[str, float]:
        metrics = step(number)
        if number == 1:
            with torch.no_grad():
                for parameter in run.policy.parameters():
                    parameter.mul_(1e30)
        return metrics

    run.step = exploding  # type: ignore[method-assign]
    with pytest.raises(TrainingError, match=r"step 2: .*logits are not finite; .*step-00000001 is"):
        run.run()


def test_a_run_is_made_longer_and_says_what_that_means(tmp_path: Path) -> None:
    trainer(tmp_path, steps=2).run()
    with pytest.warns(UserWarning, match="of 2 steps and is now of 4: its learning rate goes on"):
        trainer(tmp_path, steps=4).run(resume=True)
    newest = latest(tmp_path / "checkpoints")
    assert newest is not None
    manifest = read_manifest(newest)
    assert (manifest["step"], manifest["steps"]) == (4, 4)
    assert manifest["lengths"] == [{"at_step": 2, "from": 2, "to": 4}]
    with pytest.raises(UsageError, match="has taken 4 steps already"):
        trainer(tmp_path, steps=3).run(resume=True)


def test_without_a_schedule_a_longer_run_is_the_run_of_that_length(tmp_path: Path) -> None:
    constant = Optimisation(schedule="constant", warmup=0.0)
    for steps, resume in ((2, False), (4, True)):
        run = trainer(tmp_path / "longer", steps=steps)
        run.optimisation = constant
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            run.run(resume=resume)
    whole = trainer(tmp_path / "whole", steps=4)
    whole.optimisation = constant
    whole.run()
    one, other = weights(tmp_path / "longer"), weights(tmp_path / "whole")
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    "settings",
    [{"lr": value} for value in (0.0, -1.0, float("nan"), float("inf"))]
    + [{"beta1": 1.0}, {"beta2": float("nan")}, {"weight_decay": float("inf")}, {"warmup": 2.0}],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        Optimisation(**settings).validate()
