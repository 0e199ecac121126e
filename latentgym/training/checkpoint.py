"""Checkpoints: whole, atomic, without pickle.

A checkpoint is a folder `step-00000100` with `policy.safetensors` (model and head),
`optimizer.safetensors` and `manifest.json`, and `kept.safetensors` where a stage keeps another
policy. A run that trains adapters leaves the weights below them out, which are those of its model,
and keeps a digest of them. A checkpoint is written under another name and renamed when it
is complete, so a killed run never leaves half of one. The manifest has the SHA-256 of the other
files and its own (in older checkpoints it has not, and a warning says so), and what is loaded must
be what was written: every tensor, in its shape and kind of number, finite.
"""

from __future__ import annotations

import json
import os
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
from latentgym.lm.model import LatentLM
from latentgym.rollout import Policy
from latentgym.storage import atomic_write, discard
from latentgym.system.sealed import digest, digests, sealed
from latentgym.training.frozen import LM, digest_of_frozen, frozen_names
from latentgym.training.manifest import (
    MANIFEST,
    SCHEMA,
    best_step,
    complete,
    find,
    folder_of,
    read_manifest,
)
from latentgym.training.optimizers import flat, unflatten

_POLICY, _OPTIMIZER = "policy.safetensors", "optimizer.safetensors"
_KEPT = "kept.safetensors"


def save(
    root: Path,
    step: int,
    policy: Policy,
    optimizer: torch.optim.Optimizer | None,
    manifest: dict[str, Any],
    keep: int = 1,
    kept: Policy | None = None,
    *,
    adapters: bool = False,
) -> Path:
    """Write the checkpoint of a step; older ones of the same run go when it is complete.

    The best stays, where the manifest has evaluations that say which that is.

    Args:
        root: folder of the run's checkpoints.
        step: how many steps have been taken.
        policy: its weights.
        optimizer: its state; None where another library keeps it.
        manifest: what the run is; anything JSON can say.
        keep: how many stay, this one among them.
        kept: another policy that steps change, see `Stage.kept`.
        adapters: leave out the model's weights that are not trained; who loads the checkpoint has
            them.

    Raises:
        CheckpointError: the folder cannot be written, for instance because the disk is full.
    """
    final = folder_of(root, step)
    left_out = frozen_names(policy) if adapters else set()
    if left_out:
        manifest = {**manifest, "frozen": digest_of_frozen(policy.lm)}
    try:
        root.mkdir(parents=True, exist_ok=True)
        with atomic_write(final) as work:
            work.mkdir()
            _write(policy, work / _POLICY, left_out)
            if kept is not None:
                _write(kept, work / _KEPT, left_out)
            if optimizer is not None:
                save_file(flat(optimizer), str(work / _OPTIMIZER))
            version = {"schema": SCHEMA, "latentgym": latentgym.__version__}
            about = {**version, "step": step, "files": digests(work), **manifest}
            (work / MANIFEST).write_text(json.dumps(sealed(about), indent=2))
            mode = (work / MANIFEST).stat().st_mode  # safetensors lets nobody else read its files
            for file in work.iterdir():
                file.chmod(mode)
                _flush(file)
        _flush(root)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"cannot write the checkpoint {final} ({error}); make room or choose another --out, "
            "then go on with --resume: the last complete checkpoint is untouched."
        ) from error
    best = best_step(manifest)
    stay = {*complete(root)[-keep:], final, *([] if best is None else [folder_of(root, best)])}
    for old in complete(root):
        if old not in stay:
            with suppress(OSError):
                discard(old)
    return final


def _write(policy: Policy, path: Path, left_out: set[str]) -> None:
    if not left_out:
        save_model(policy, str(path))
        return
    stored = {n: x.contiguous() for n, x in policy.state_dict().items() if n not in left_out}
    save_file(stored, str(path))


def load(
    folder: Path,
    policy: Policy,
    optimizer: torch.optim.Optimizer | None = None,
    kept: Policy | None = None,
) -> int:
    """Load weights, and those of the kept policy and the optimiser's state if these are given.

    Returns:
        The number of steps taken.

    Raises:
        CheckpointError: the checkpoint is of another model, or damaged.
    """
    manifest = read_manifest(folder)
    _fill(policy, _tensors(folder, _POLICY, manifest), folder, manifest)
    if kept is not None:
        _fill(kept, _tensors(folder, _KEPT, manifest), folder, manifest)
    if optimizer is not None:
        try:
            unflatten(optimizer, _tensors(folder, _OPTIMIZER, manifest))
        except CheckpointError:
            raise
        except (RuntimeError, ValueError, LookupError) as error:
            reason = str(error).strip().splitlines()[0]
            raise CheckpointError(
                f"{folder} does not fit this model and head ({reason}); give the --model and the "
                "options it was trained with."
            ) from error
    return int(manifest["step"])


def load_weights(path: Path, policy: Policy, agent: str | None = None) -> None:
    """Load a checkpoint's language model, and its head where the policy has the same.

    A checkpoint of one agent may start another, as a supervised chain of thought starts a latent
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
    tensors = _below_adapters(tensors, own)
    same = isinstance(run, dict) and run.get("agent", "") == agent
    if not same and own.keys().isdisjoint(name for name in tensors if not _of_model(name)):
        tensors = {name: tensor for name, tensor in tensors.items() if _of_model(name)}
        of_lm = {name.removeprefix(LM): x for name, x in tensors.items()}
        _fill(policy.lm, of_lm, folder, manifest)
    else:
        _fill(policy, tensors, folder, manifest)


def _below_adapters(tensors: dict[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a model that had no adapters, named as peft names them below fresh ones."""
    fresh = {name: x for name, x in own.items() if ".lora_" in name}
    if not fresh or any(".lora_" in name for name in tensors):
        return tensors
    wrapped = {
        name.replace(".base_model.model", "", 1).replace(".base_layer.", "."): name for name in own
    }
    return {**fresh, **{wrapped.get(name, name): x for name, x in tensors.items()}}


def _of_model(name: str) -> bool:
    return name.startswith(LM)


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
    module: Policy | LatentLM,
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
    left_out = frozen_names(module) if "frozen" in manifest else set()
    missing = [
        name
        for name, tensor in own.items()
        if name not in left_out and _storage(tensor) not in there
    ]
    faults = [f"{name} is missing" for name in missing]
    lm = module.lm if isinstance(module, Policy) else module
    if not faults and "frozen" in manifest and manifest["frozen"] != digest_of_frozen(lm):
        faults = ["its adapters are to another model's weights"]
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


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
