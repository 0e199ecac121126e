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

    Returns:
        Their names; of one in a group, behind the group's name and a dot.
    """
    found = []
    for name, value in _changed(given, default):
        if cls.answers_with(name.split(".")[0]):
            continue
        try:
            without = _set(given, name.split("."), value)
            # Another recipe is effect enough. Its policy is not made: it might freeze the model.
            if training and cls(without).recipe() != cls(given).recipe():
                continue
            same = _made(cls, without, lm, training) == _made(cls, given, lm, training)
        except UsageError:  # the others cannot do without it
            continue
        if same:
            found.append(name)
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
    """The policies that the settings come to, in a form that can be compared."""
    agent, made = cls(config), list[Any]()
    for acting in (True, False) if training else (True,):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            made += _traits(agent.policy(lm, acting=acting))
    return made


def _traits(policy: Policy) -> list[Any]:
    groups = [
        {k: v for k, v in group.items() if k != "params"}
        for group in policy.head.parameter_groups(1.0)
    ]
    heads = [[type(head).__name__, _settings(head)] for head in (policy.head, policy.voice)]
    return [heads, groups, policy.cue, policy.attend_padding]


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
