"""Checkpoints: whole, atomic, without pickle.

A checkpoint is a folder `step-00000100` with `policy.safetensors` (model and head),
`optimizer.safetensors` and `manifest.json`. It is written under another name and renamed when it
is complete, so a killed run never leaves half of one.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, load_model, save_file, save_model

import latentgym
from latentgym.errors import CheckpointError
from latentgym.rollout import Policy

SCHEMA = 1
_NAME = re.compile(r"step-(\d{8})$")
_POLICY, _OPTIMIZER, _MANIFEST = "policy.safetensors", "optimizer.safetensors", "manifest.json"


def save(
    root: Path,
    step: int,
    policy: Policy,
    optimizer: torch.optim.Optimizer | None,
    manifest: dict[str, Any],
) -> Path:
    """Write the checkpoint of a step; older ones of the same run go when it is complete.

    Args:
        root: folder of the run's checkpoints.
        step: how many steps have been taken.
        policy: its weights.
        optimizer: its state; None where another library keeps it.
        manifest: what the run is; anything JSON can say.

    Raises:
        CheckpointError: the folder cannot be written, for instance because the disk is full.
    """
    final = root / f"step-{step:08d}"
    work = root / f".{final.name}.{os.getpid()}"
    try:
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        save_model(policy, str(work / _POLICY))
        if optimizer is not None:
            save_file(_flat(optimizer), str(work / _OPTIMIZER))
        about = {"schema": SCHEMA, "latentgym": latentgym.__version__, "step": step, **manifest}
        (work / _MANIFEST).write_text(json.dumps(about, indent=2))
        for file in work.iterdir():
            _flush(file)
        shutil.rmtree(final, ignore_errors=True)
        work.rename(final)
        _flush(root)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(work, ignore_errors=True)
        raise CheckpointError(
            f"cannot write the checkpoint {final} ({error}); make room or choose another --out, "
            "then go on with --resume: the last complete checkpoint is untouched."
        ) from error
    for old in _complete(root):
        if old != final:
            shutil.rmtree(old, ignore_errors=True)
    return final


def latest(root: Path) -> Path | None:
    """The newest complete checkpoint in a folder, or None."""
    found = _complete(root)
    return found[-1] if found else None


def read_manifest(folder: Path) -> dict[str, Any]:
    """What a checkpoint says of itself.

    Raises:
        CheckpointError: there is none, or it is damaged or of another version.
    """
    path = folder / _MANIFEST
    try:
        manifest = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{folder} is no checkpoint: it has no {_MANIFEST}; give a step-... folder or a run."
        ) from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged ({error}); use an older checkpoint.") from error
    if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA:
        found = manifest.get("schema") if isinstance(manifest, dict) else None
        raise CheckpointError(
            f"{folder} is of checkpoint version {found}, but this latentgym reads {SCHEMA}; train "
            "again, or install the version that wrote it."
        )
    return manifest


def load(folder: Path, policy: Policy, optimizer: torch.optim.Optimizer | None = None) -> int:
    """Load weights, and the optimiser's state if one is given; the number of steps taken.

    Raises:
        CheckpointError: the checkpoint is of another model, or damaged.
    """
    manifest = read_manifest(folder)
    try:
        load_model(policy, str(folder / _POLICY))
        if optimizer is not None:
            _unflatten(optimizer, load_file(str(folder / _OPTIMIZER)))
    except CheckpointError:
        raise
    except (SafetensorError, OSError, RuntimeError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0]
        raise CheckpointError(
            f"{folder} does not fit this model and head ({reason}); give the --model and the "
            "options it was trained with."
        ) from error
    return int(manifest["step"])


def find(path: Path) -> Path:
    """A checkpoint's own folder, from it, from its run, or from the run's `checkpoints`.

    Raises:
        CheckpointError: there is none.
    """
    if (path / _MANIFEST).is_file():
        return path
    for root in (path, path / "checkpoints"):
        found = latest(root)
        if found is not None:
            return found
    raise CheckpointError(f"{path} holds no complete checkpoint; give the --out of a training run.")


def run_of(path: Path | None) -> dict[str, Any]:
    """What a checkpoint says of the run that wrote it: its model, adapters, settings."""
    if path is None:
        return {}
    run = read_manifest(find(path)).get("run")
    if not isinstance(run, dict) or not isinstance(run.get("model"), str):
        raise CheckpointError(f"{path} does not say its model; train again.")
    return run


def load_weights(path: Path, policy: Policy) -> None:
    """Load a checkpoint's language model, and its head where the policy has the same.

    A checkpoint of one agent may start another, as a supervised chain of words starts a latent
    policy; a head with parameters must then be new.

    Raises:
        CheckpointError: the checkpoint is of another model, or damaged.
    """
    folder = find(path)
    try:
        tensors = load_file(str(folder / _POLICY))
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{folder} is damaged ({error}); use another checkpoint.") from error
    own = policy.state_dict()
    misfits = [k for k, v in tensors.items() if k in own and own[k].shape != v.shape]
    unknown = [k for k in tensors if k.startswith("lm.") and k not in own]
    if misfits or unknown:
        raise CheckpointError(
            f"{folder} is of another model ({(misfits + unknown)[0]} does not fit); give the "
            "--model and the environment it was trained with."
        )
    policy.load_state_dict({k: v for k, v in tensors.items() if k in own}, strict=False)


def _complete(root: Path) -> list[Path]:
    if not root.is_dir():
        return []
    return sorted(p for p in root.iterdir() if _NAME.match(p.name) and (p / _MANIFEST).is_file())


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _flat(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """The optimiser's tensors by `parameter/name`, and the global random state."""
    state = optimizer.state_dict()["state"]
    tensors = {
        f"{index}/{name}": torch.as_tensor(value).clone()
        for index, entry in state.items()
        for name, value in entry.items()
    }
    return {**tensors, "rng": torch.get_rng_state()}


def _unflatten(optimizer: torch.optim.Optimizer, tensors: dict[str, torch.Tensor]) -> None:
    torch.set_rng_state(tensors.pop("rng"))
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split("/")
        state.setdefault(int(index), {})[name] = value
    # Parameters are known by their place in the groups alone, and torch would not mind another's.
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    if any(
        value.ndim and value.shape != parameters[index].shape
        for index, entry in state.items()
        for value in entry.values()
    ):
        raise CheckpointError(
            "this run's optimiser had its parameters in other groups, as before weight decay left "
            "out biases and norms, so it cannot be resumed; begin another run from its weights "
            "with --checkpoint."
        )
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
