"""What a checkpoint says of itself and of the run that wrote it, read without its tensors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from latentgym.errors import CheckpointError
from latentgym.registry import (
    current_run,
    recorded_options,
    resolve,
    split_module,
    stored_fault,
    task_name,
)
from latentgym.system.nearby import no_folder, none_itself
from latentgym.system.options.ranges import Range
from latentgym.system.sealed import is_of, note_unverified, read_sealed

SCHEMA = 1
_NAME = re.compile(r"step-(\d{8})$")
MANIFEST = "manifest.json"
# What is read of a manifest, and of the run in it: of what types.
_KINDS = {
    "step": int,
    "steps": int | None,
    "lengths": list[dict[str, int]] | None,
    "looks": list[dict[str, float]] | None,
    "files": dict[str, str] | None,
    "frozen": str | None,
    "run": dict[str, Any] | None,
}
_RUN = {
    "model": str,
    "agent": str | None,
    "env": str,
    "env_options": dict[str, Any],
    "checkpoint": str | None,
    "lora": dict[str, int] | None,
    "load_in_4bit": bool | None,
    "config": dict[str, Any] | None,
    "modules": dict[str, str] | None,
    "held_out": float | None,
}
_MOST_STEPS = 10**9
# What says where questions are, and what says how those of the test are kept apart there.
_TESTED = {
    "source": ("holdout",),
    "data": ("holdout", "test_data"),
    "test_data": ("holdout",),
    "holdout": ("test_data",),
}
_LORA = Range(1, 2**16)


def complete(root: Path) -> list[Path]:
    """The complete checkpoints in a folder, the oldest first."""
    if not root.is_dir():
        return []
    return sorted(p for p in root.iterdir() if _NAME.match(p.name) and (p / MANIFEST).is_file())


def latest(root: Path) -> Path | None:
    """The newest complete checkpoint in a folder, or None."""
    found = complete(root)
    return found[-1] if found else None


def read_manifest(folder: Path) -> dict[str, Any]:
    """What a checkpoint says of itself.

    Raises:
        CheckpointError: there is none, or it is damaged or of another version.
    """
    path = folder / MANIFEST
    try:
        manifest, verified = read_sealed(path)
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{folder} is no checkpoint: it has no {MANIFEST}; give a step-... folder or a run."
        ) from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged ({error}); use an older checkpoint.") from error
    found = manifest.get("schema")
    if found != SCHEMA:
        raise CheckpointError(
            f"{folder} is of checkpoint version {found}, but this latentgym reads {SCHEMA}; train "
            "again, or install the version that wrote it."
        )
    wrong = [key for key, kind in _KINDS.items() if not is_of(manifest.get(key), kind)]
    wrong += [key for key in ("step", "steps") if key not in wrong and _no_count(manifest.get(key))]
    if "looks" not in wrong and not all(map(_is_look, manifest.get("looks") or ())):
        wrong.append("looks")
    if wrong:
        raise CheckpointError(
            f"{path} is damaged (it says no {wrong[0]}); use an older checkpoint."
        )
    if not verified and "files" not in manifest:
        note_unverified(f"the checkpoint {folder}")
    run = manifest.get("run")
    return manifest if run is None else {**manifest, "run": current_run(run)}


def _no_count(steps: int | None) -> bool:
    return steps is not None and not 0 <= steps <= _MOST_STEPS


def _is_look(look: Mapping[str, Any]) -> bool:
    """Whether it is one, as `training.looks` has them."""
    names = ("low", "accuracy", "high")
    if look.keys() != {"step", *names} or not is_of(look["step"], int):
        return False
    return not _no_count(look["step"]) and all(0 <= look[name] <= 1 for name in names)


def best_step(manifest: Mapping[str, Any]) -> int | None:
    """The step of the best look of a run so far, as its newest checkpoint says; None without any.

    Of several that are as good it is the first.
    """
    looks = manifest.get("looks") or []
    best = max(looks, key=lambda look: (look["accuracy"], -look["step"]), default=None)
    return None if best is None else int(best["step"])


def folder_of(root: Path, step: int) -> Path:
    """Where the checkpoint of a step is."""
    return root / f"step-{step:08d}"


def find(path: Path) -> Path:
    """A checkpoint's own folder, from it, from its run, or from the run's `checkpoints`.

    Of a run that was evaluated while it trained it is the best, else the newest.

    Raises:
        CheckpointError: there is none, or the best is gone.
    """
    if (path / MANIFEST).is_file():
        return path
    for root in (path, path / "checkpoints"):
        found = latest(root)
        if found is None:
            continue
        best = best_step(read_manifest(found))
        if best is None:
            return found
        if (folder_of(root, best) / MANIFEST).is_file():
            return folder_of(root, best)
        raise CheckpointError(
            f"the best checkpoint of {path} is that of step {best}, which is not there any more; "
            f"give another one, such as {found}."
        )
    if not path.is_dir():
        raise CheckpointError(f"{no_folder(path)}; give the --out of a training run.")
    raise CheckpointError(
        f"{none_itself(path, 'complete checkpoint')}; give the --out of a training run."
    )


def is_run(path: Path) -> bool:
    """Whether a folder is a checkpoint or a run that has one."""
    try:
        find(path)
    except CheckpointError:
        return False
    return True


def run_of(path: Path | None) -> dict[str, Any]:
    """What a checkpoint says of the run that wrote it: its model, adapters, settings.

    Raises:
        CheckpointError: there is none, or what it says is not what a run does.
    """
    if path is None:
        return {}
    run: dict[str, Any] = read_manifest(find(path)).get("run") or {}
    for name, kind in _RUN.items():
        if not is_of(run.get(name), kind):
            raise CheckpointError(
                f"{path} does not say its {name}, as a run of latentgym train does; train again."
            )
    lora, held_out = run.get("lora"), run.get("held_out")
    fault = stored_fault(run["env_options"])
    if lora is not None and (
        lora.keys() != {"r", "alpha"} or not all(v in _LORA for v in lora.values())
    ):
        fault = f"{lora} are no adapters"
    if held_out is not None and not 0 < held_out < 1:
        fault = f"{held_out} of its questions cannot be held out"
    if fault:
        raise CheckpointError(f"{path} is damaged ({fault}); use another checkpoint.")
    return run


def leaves_weights_out(path: Path | None) -> bool:
    """Whether a checkpoint holds adapters alone; see `latentgym.training.frozen`."""
    return path is not None and read_manifest(find(path)).get("frozen") is not None


def env_options_of(
    run: Mapping[str, Any], env: str, given: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Options of the environment that a run was trained on, but for those that choose questions.

    Another task has other options: for it there are none. What is held out, and the test that is
    apart, are of the run's own data, so they do not go with other data that is given.

    Args:
        run: as `run_of` tells it.
        env: id of the environment that is to be made.
        given: options that are given for it.

    Raises:
        UsageError: an option needs a module that is not trusted.
    """
    _, task, _ = resolve(env)
    if not run or task_name(split_module(run["env"])[1]) != task:
        return {}
    given = given or {}
    left = {"split", "limit"}.union(*(_TESTED[name] for name in given.keys() & _TESTED.keys()))
    options = {k: v for k, v in run["env_options"].items() if k not in left}
    recorded_options({k: v for k, v in options.items() if k not in given}, "the checkpoint")
    return options
