"""Optimisers by name, and their states as tensors by name.

A state may hold tensors, lists of them (SOAP's preconditioners, one for each dimension, empty where
there is none), numbers, and mappings of these (bitsandbytes); some optimisers count their steps by
group.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from latentgym.errors import CheckpointError, UsageError
from latentgym.training.config import Optimisation

_RNG, _GROUP, _NUMBER, _IN = "rng", "group", "number", ":"
_SHAPED = ("exp_avg", "exp_avg_sq", "state1", "state2")  # as parameters are


def optimizer_for(groups: list[dict[str, Any]], optimisation: Optimisation) -> Optimizer:
    """The optimiser of these parameter groups.

    Raises:
        UsageError: its package is missing.
    """
    o = optimisation
    settings: dict[str, Any] = {
        "lr": o.lr,
        "betas": (o.beta1, o.beta2),
        "eps": o.eps,
        "weight_decay": o.weight_decay,
    }
    if o.optimizer == "soap":
        try:
            from pytorch_optimizer import SOAP
        except ImportError as error:
            raise UsageError(
                "SOAP needs the package pytorch-optimizer; pip install 'latentgym[soap]'."
            ) from error
        soap: Optimizer = SOAP(groups, **settings)
        return soap
    if o.optimizer.endswith("8bit"):
        return _in_8_bits(groups, settings, paged=o.optimizer.startswith("paged"))
    return torch.optim.AdamW(groups, **settings)


def _in_8_bits(groups: list[dict[str, Any]], settings: dict[str, Any], *, paged: bool) -> Optimizer:
    """AdamW with states in 8 bits, block by block ("8-bit Optimizers", arXiv 2110.02861).

    Tensors of fewer than 4,096 numbers keep theirs in fp32.
    """
    try:
        from bitsandbytes.optim.adamw import AdamW8bit, PagedAdamW8bit
    except ImportError as error:
        raise UsageError(
            "optimisers in 8 bits need bitsandbytes; pip install 'latentgym[bitsandbytes]'."
        ) from error
    if paged and groups[0]["params"][0].device.type != "cuda":
        raise UsageError(
            "states are paged out of a GPU's memory, and this is none; use adamw-8bit."
        )
    made: Optimizer = (PagedAdamW8bit if paged else AdamW8bit)(groups, **settings)
    return made


def flat(optimizer: Optimizer) -> dict[str, Tensor]:
    """Its tensors by `parameter/name` or `parameter/name/place`, and the global random state."""
    whole = optimizer.state_dict()
    tensors: dict[str, Tensor] = {_RNG: torch.get_rng_state()}
    for index, entry in whole["state"].items():
        for name, value in _named(entry):
            if isinstance(value, list):
                for place, each in enumerate(value):
                    tensors[f"{index}/{name}/{place}"] = torch.as_tensor(each).clone().contiguous()
            elif isinstance(value, Tensor):
                tensors[f"{index}/{name}"] = value.clone()
            else:
                tensors[f"{index}/{name}/{_NUMBER}"] = _exact(value)
    for index, group in enumerate(whole["param_groups"]):
        if "step" in group:
            tensors[f"{_GROUP}/{index}"] = _exact(group["step"])
    return tensors


def _named(entry: Mapping[str, Any], within: str = "") -> Iterator[tuple[str, Any]]:
    """What a state holds, of a mapping in it by `mapping:name`."""
    for name, value in entry.items():
        if isinstance(value, Mapping):
            yield from _named(value, f"{within}{name}{_IN}")
        else:
            yield within + name, value


def unflatten(optimizer: Optimizer, tensors: dict[str, Tensor]) -> None:
    """Fill an optimiser's state, and the global random state.

    Raises:
        CheckpointError: the state is of parameters in other groups.
        ValueError, LookupError, RuntimeError: of another optimiser, or damaged.
    """
    rng = tensors.pop(_RNG)
    whole = optimizer.state_dict()
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Any]] = {}
    for key, value in sorted(tensors.items(), key=lambda item: _place(item[0])):
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise ValueError(f"the optimiser's {key} is not finite")
        index, name, *place = key.split("/")
        if index == _GROUP:
            whole["param_groups"][int(name)]["step"] = value.item()
            continue
        entry = state.setdefault(int(index), {})
        *within, name = name.split(_IN)
        for each in within:
            entry = entry.setdefault(each, {})
        if place == [_NUMBER]:
            entry[name] = value.item()
        elif place:
            entry.setdefault(name, []).append(value if value.numel() else [])
        # Parameters are known by their place in the groups alone, and torch takes any shape.
        elif name in _SHAPED and value.shape != parameters[int(index)].shape:
            raise CheckpointError(
                "this run's optimiser had its parameters in other groups, as before weight decay "
                "left out biases and norms, so it cannot be resumed; begin another run from its "
                "weights with --checkpoint."
            )
        else:
            entry[name] = value
    optimizer.load_state_dict({**whole, "state": state})
    torch.set_rng_state(rng)


def _exact(number: float) -> Tensor:
    """A number without rounding."""
    return torch.tensor(number, dtype=torch.int64 if isinstance(number, int) else torch.float64)


def _place(key: str) -> tuple[str, int]:
    """Sorts the elements of a list as they stand in it."""
    head, _, tail = key.rpartition("/")
    return (head, int(tail)) if tail.isdigit() else (key, 0)
