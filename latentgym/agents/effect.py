"""Which of an agent's settings have no effect on what is about to be done with them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from latentgym.agents.base import Agent
from latentgym.errors import UsageError
from latentgym.lm.model import LatentLM
from latentgym.rollout import Policy


def idle(
    cls: type[Agent[Any]], given: Any, default: Any, lm: LatentLM, *, training: bool
) -> list[str]:
    """Settings that were given, yet change nothing of policies, training and answers.

    Each is set back by itself: what is then made of all of them must be something else.

    Args:
        cls: the agent.
        given: its settings.
        default: what they would be if none had been given.
        lm: the model.
        training: whether the agent is trained, or only answers.
    """
    changed = list(_changed(given, default))
    if not changed:
        return []
    whole = _made(cls, given, lm, training)
    found = []
    for name, value in changed:
        if cls.answers_with(name.split(".")[0]):
            continue
        try:
            without = _made(cls, _set(given, name.split("."), value), lm, training)
        except UsageError:  # the others cannot do without it
            continue
        if without == whole:
            found.append(f"--{name.replace('_', '-')}")
    return found


def _changed(given: Any, default: Any, within: str = "") -> Iterator[tuple[str, Any]]:
    for field in dataclasses.fields(given):
        new, old = getattr(given, field.name), getattr(default, field.name)
        if dataclasses.is_dataclass(new):
            yield from _changed(new, old, f"{within}{field.name}.")
        elif new != old:
            yield within + field.name, old


def _set(config: Any, path: list[str], value: Any) -> Any:
    name, *rest = path
    new = _set(getattr(config, name), rest, value) if rest else value
    return dataclasses.replace(config, **{name: new})


def _made(cls: type[Agent[Any]], config: Any, lm: LatentLM, training: bool) -> list[Any]:
    """What the settings come to: recipe and policies, in a form that can be compared."""
    agent = cls(config)
    made: list[Any] = [agent.recipe()] if training else []
    frozen = [p for p in lm.parameters() if not p.requires_grad]
    for acting in (True, False) if training else (True,):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            made += _traits(agent.policy(lm, acting=acting), lm)
    lm.requires_grad_(True)  # a policy may have frozen the model, which the next may train
    for parameter in frozen:
        parameter.requires_grad_(False)
    return made


def _traits(policy: Policy, lm: LatentLM) -> list[Any]:
    own = {id(p) for p in lm.parameters()}
    groups = [
        {k: v for k, v in group.items() if k != "params"}
        for group in policy.head.parameter_groups(1.0)
        if not own & {id(p) for p in group["params"]}
    ]
    trained = any(p.requires_grad for p in lm.parameters())
    heads = [[type(head).__name__, _settings(head)] for head in (policy.head, policy.voice)]
    return [heads, groups, trained, policy.cue, policy.attend_padding]


def _settings(module: nn.Module) -> list[Any]:
    """A module's own attributes and weights, and those of the modules in it."""
    plain = [
        {k: v for k, v in vars(part).items() if not k.startswith("_") and _is_plain(v)}
        for part in module.modules()
    ]
    weights = {name: _sum(p) for name, p in module.named_parameters()}
    return [plain, weights]


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float | str | tuple)


def _sum(tensor: Tensor) -> tuple[torch.Size, float]:
    return tensor.shape, float(tensor.detach().double().sum())
