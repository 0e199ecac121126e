"""Checkpoints: whole, atomic, without pickle.

A checkpoint is a folder `step-00000100` with `policy.safetensors` (model and head),
`optimizer.safetensors` and `manifest.json`. It is written under another name and renamed when it
is complete, so a killed run never leaves half of one. The manifest has the SHA-256 of the other
files and its own (in older checkpoints it has not, and a warning says so), and what is loaded must
be what was written: every tensor, in its shape and kind of number, finite.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file, save_model
from torch import Tensor

import latentgym
from latentgym.errors import CheckpointError
from latentgym.options.ranges import Range
from latentgym.registry import stored_fault
from latentgym.rollout import Policy
from latentgym.storage import atomic_write, discard
from latentgym.system.sealed import digest, digests, is_of, note_unverified, read_sealed, sealed

SCHEMA = 1
_NAME = re.compile(r"step-(\d{8})$")
_POLICY, _OPTIMIZER, _MANIFEST = "policy.safetensors", "optimizer.safetensors", "manifest.json"
# What is read of a manifest, and of the run in it: of what types.
_KINDS = {
    "step": int,
    "steps": int | None,
    "lengths": list[dict[str, int]] | None,
    "files": dict[str, str] | None,
    "run": dict[str, Any] | None,
}
_RUN = {
    "model": str,
    "agent": str | None,
    "env": str,
    "env_options": dict[str, Any],
    "checkpoint": str | None,
    "lora": dict[str, int] | None,
    "config": dict[str, Any] | None,
    "modules": dict[str, str] | None,
}
_MOST_STEPS = 10**9
_LORA = Range(1, 2**16)
_LM = "lm."  # where a policy's language model stands


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
    try:
        root.mkdir(parents=True, exist_ok=True)
        with atomic_write(final) as work:
            work.mkdir()
            save_model(policy, str(work / _POLICY))
            if optimizer is not None:
                save_file(_flat(optimizer), str(work / _OPTIMIZER))
            version = {"schema": SCHEMA, "latentgym": latentgym.__version__}
            about = {**version, "step": step, "files": digests(work), **manifest}
            (work / _MANIFEST).write_text(json.dumps(sealed(about), indent=2))
            for file in work.iterdir():
                _flush(file)
        _flush(root)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"cannot write the checkpoint {final} ({error}); make room or choose another --out, "
            "then go on with --resume: the last complete checkpoint is untouched."
        ) from error
    for old in _complete(root):
        if old != final:
            with suppress(OSError):
                discard(old)
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
        manifest, verified = read_sealed(path)
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{folder} is no checkpoint: it has no {_MANIFEST}; give a step-... folder or a run."
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
    if wrong:
        raise CheckpointError(
            f"{path} is damaged (it says no {wrong[0]}); use an older checkpoint."
        )
    if not verified and "files" not in manifest:
        note_unverified(f"the checkpoint {folder}")
    return manifest


def _no_count(steps: int | None) -> bool:
    return steps is not None and not 0 <= steps <= _MOST_STEPS


def load(folder: Path, policy: Policy, optimizer: torch.optim.Optimizer | None = None) -> int:
    """Load weights, and the optimiser's state if one is given; the number of steps taken.

    Raises:
        CheckpointError: the checkpoint is of another model, or damaged.
    """
    manifest = read_manifest(folder)
    _fill(policy, _tensors(folder, _POLICY, manifest), folder, manifest)
    if optimizer is not None:
        try:
            _unflatten(optimizer, _tensors(folder, _OPTIMIZER, manifest))
        except CheckpointError:
            raise
        except (RuntimeError, ValueError, LookupError) as error:
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
    lora = run.get("lora")
    fault = stored_fault(run["env_options"])
    if lora is not None and (
        lora.keys() != {"r", "alpha"} or not all(v in _LORA for v in lora.values())
    ):
        fault = f"{lora} are no adapters"
    if fault:
        raise CheckpointError(f"{path} is damaged ({fault}); use another checkpoint.")
    return run


def load_weights(path: Path, policy: Policy, agent: str | None = None) -> None:
    """Load a checkpoint's language model, and its head where the policy has the same.

    A checkpoint of one agent may start another, as a supervised chain of words starts a latent
    policy; a head with parameters must then be new.

    Args:
        path: the checkpoint, or its run.
        policy: to fill.
        agent: whose it is; in a checkpoint of the same agent its head must be there too.

    Raises:
        CheckpointError: the checkpoint is of another model, or damaged.
    """
    folder = find(path)
    manifest, own = read_manifest(folder), policy.state_dict()
    tensors, run = _tensors(folder, _POLICY, manifest), manifest.get("run")
    same = isinstance(run, dict) and run.get("agent", "") == agent
    if not same and own.keys().isdisjoint(name for name in tensors if not _of_model(name)):
        tensors = {name: tensor for name, tensor in tensors.items() if _of_model(name)}
        of_lm = {name.removeprefix(_LM): x for name, x in tensors.items()}
        _fill(policy.lm, of_lm, folder, manifest)
    else:
        _fill(policy, tensors, folder, manifest)


def _of_model(name: str) -> bool:
    return name.startswith(_LM)


def _tensors(folder: Path, name: str, manifest: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors of a file, which must be as it was written.

    Raises:
        CheckpointError: it is not, or cannot be read.
    """
    path = folder / name
    try:
        written = manifest.get("files", {}).get(name)  # older ones do not say
        if written not in (None, digest(path)):
            raise CheckpointError(
                f"{path} is not the file that was written (its SHA-256 differs from the "
                "manifest's); use another checkpoint."
            )
        tensors: dict[str, Tensor] = load_file(str(path))
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} is damaged ({error}); use another checkpoint.") from error
    return tensors


def _fill(
    module: torch.nn.Module,
    tensors: Mapping[str, Tensor],
    folder: Path,
    manifest: Mapping[str, Any],
) -> None:
    """Load tensors into a module, all of whose own must be there, and nothing else.

    Raises:
        CheckpointError: one is missing, has another shape or kind of number, is unknown or has
            numbers that are not finite.
    """
    own = module.state_dict()
    there = {_storage(own[name]) for name in tensors if name in own}
    missing = [name for name, tensor in own.items() if _storage(tensor) not in there]
    faults = [f"{name} is missing" for name in missing]
    for name, tensor in tensors.items():
        if name not in own:
            faults.append(f"{name} is unknown")
        elif tensor.shape != own[name].shape:
            faults.append(f"{name} is {tuple(tensor.shape)}, not {tuple(own[name].shape)}")
        elif tensor.is_floating_point() != own[name].is_floating_point():
            faults.append(f"{name} is {tensor.dtype}, not {own[name].dtype}")
    if faults:
        more = f" and {len(faults) - 1} more" if len(faults) > 1 else ""
        raise CheckpointError(
            f"{folder} does not fit this model and head ({faults[0]}{more}): "
            f"{_origin(manifest)}so it is of another model or task, or damaged; give the "
            "environment, --model and options it was trained with, or another checkpoint."
        )
    for name, tensor in tensors.items():
        # What is not known before training, such as a measured scale, is no number in both.
        if _finite(own[name]) and not _finite(tensor):
            raise CheckpointError(
                f"{folder} is damaged ({name} has numbers that are not finite); use another "
                "checkpoint."
            )
    module.load_state_dict(tensors, strict=False)  # of tied tensors only one is stored


def _origin(manifest: Mapping[str, Any]) -> str:
    """What a checkpoint was trained on, as far as it says so."""
    run = manifest.get("run")
    if not isinstance(run, Mapping) or not isinstance(run.get("env"), str):
        return ""
    return f"it was trained on {run['env']} with {run.get('model')}, "


def _storage(tensor: Tensor) -> tuple[int, torch.Size]:
    """What tied tensors have in common."""
    return tensor.data_ptr(), tensor.shape


def _finite(tensor: Tensor) -> bool:
    return not tensor.is_floating_point() or bool(tensor.isfinite().all())


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


def _unflatten(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    rng = tensors.pop("rng")
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split("/")
        # Parameters are known by their place in the groups alone, and torch takes any shape.
        if value.dim() and value.shape != parameters[int(index)].shape:
            raise CheckpointError(
                "this run's optimiser had its parameters in other groups, as before weight decay "
                "left out biases and norms, so it cannot be resumed; begin another run from its "
                "weights with --checkpoint."
            )
        if not _finite(value):
            raise ValueError(f"the optimiser's {name} of parameter {index} is not finite")
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    torch.set_rng_state(rng)
