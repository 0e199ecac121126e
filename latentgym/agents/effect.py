"""Which of an agent's settings have no effect on what is about to be done with them.

Legend: B rows, P prompt positions, V vocabulary, D width.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Container, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np
import torch
from torch import Tensor, nn

from latentgym.agents.base import Agent, agent_class
from latentgym.errors import UsageError
from latentgym.heads import Readout
from latentgym.heads.rng import CounterRNG
from latentgym.lm.model import LatentLM
from latentgym.rollout import Policy

_ROWS = 2


def refuse_idle(agent: str, given: Any, default: Any, lm: LatentLM, *, training: bool) -> None:
    """Refuse settings that were given and have no effect.

    Args:
        agent: its name.
        given, default, lm, training: see `idle`.

    Raises:
        UsageError: there are such.
    """
    settings = cls, *_ = agent_class(agent), given, default, lm
    names = idle(*settings, training=training)
    if not names:
        return
    partner = goes_with(*settings, names[0], training=training)
    does = "trains and answers" if training else "answers"
    advice = "leave it out, or set what it goes with"
    if partner is not None:
        advice = f"{_option(names[0])} is used by {_option(*partner)}; add that, or leave it out"
    raise UsageError(
        f"{' and '.join(map(_option, names))} would have no effect on how {cls.name} {does} here; "
        f"{advice}."
    )


def _option(name: str, value: Any = None) -> str:
    """A setting as the command line has it, with its value if there is one."""
    dashed = name.replace("_", "-")
    if isinstance(value, bool):
        group, _, last = dashed.rpartition(".")
        return f"--{dashed}" if value else f"--{group + '.' if group else ''}no-{last}"
    return f"--{dashed}" if value is None else f"--{dashed} {value}"


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
        try:
            counts = _counts(cls, given, name, value, lm, training)
        except UsageError:  # the others cannot do without it
            continue
        if not counts:
            found.append(name)
    return found


def goes_with(
    cls: type[Agent[Any]], given: Any, default: Any, lm: LatentLM, name: str, *, training: bool
) -> tuple[str, Any] | None:
    """With which one other setting an idle one would count: its name and value; None for none.

    Args:
        cls, given, default, lm, training: see `idle`.
        name: of the idle setting.
    """
    path = name.split(".")
    value = functools.reduce(getattr, path, default)
    for other, choice in _alternatives(given):
        try:
            if other != name and _counts(
                cls, _set(given, other.split("."), choice), name, value, lm, training
            ):
                return other, choice
        except UsageError:  # the others do not allow for it
            continue
    return None


def _counts(
    cls: type[Agent[Any]], given: Any, name: str, value: Any, lm: LatentLM, training: bool
) -> bool:
    """Whether another value of a setting makes something else of all settings."""
    without = _set(given, name.split("."), value)
    # Another recipe is effect enough. Its policy is not made: it might freeze the model.
    if training and cls(without).recipe() != cls(given).recipe():
        return True
    return _made(cls, without, lm, training) != _made(cls, given, lm, training)


def _alternatives(config: Any, within: str = "") -> Iterator[tuple[str, Any]]:
    """Other values of single settings: of choices, of switches, and of numbers that are 0."""
    hints = get_type_hints(type(config))
    for field in dataclasses.fields(config):
        value, name = getattr(config, field.name), within + field.name
        if dataclasses.is_dataclass(value):
            yield from _alternatives(value, f"{name}.")
        elif isinstance(value, bool):
            yield name, not value
        elif value == 0:
            yield name, value + 1
        else:
            kinds = (hints[field.name], *get_args(hints[field.name]))  # one may be in a union
            choices = (get_args(kind) for kind in kinds if get_origin(kind) is Literal)
            yield from ((name, c) for c in itertools.chain(*choices) if c != value)


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
    """What the settings come to, in a form that can be compared."""
    agent = cls(config)
    made: list[Any] = [agent.answering()]
    for acting in (True, False) if training else (True,):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            policy = agent.policy(lm, acting=acting)
            made += _acting(policy) if acting else _learning(policy)
    return made


def _acting(policy: Policy) -> list[Any]:
    """Of a policy that answers only what it reads on the way counts.

    A nucleus of a greedy head, or a learning rate, is there, but nobody looks at it.
    """
    heads = (policy.head, policy.answer_head)
    with _reads(heads) as read:
        _think(policy)
    return [policy.prompt_suffix, *(_traits(head, read) for head in heads)]


def _learning(policy: Policy) -> list[Any]:
    groups = [
        {k: v for k, v in group.items() if k != "params"}
        for group in policy.head.parameter_groups(1.0)
    ]
    return [
        policy.prompt_suffix,
        policy.attend_padding,
        groups,
        *map(_traits, (policy.head, policy.answer_head)),
    ]


def _think(policy: Policy) -> None:
    """One step of each head, about nothing in particular."""
    lm, device, row = policy.lm, policy.lm.device, np.arange(_ROWS)
    hidden_BD = torch.randn(_ROWS, lm.hidden_size).to(device)
    memory_BPD = torch.randn(_ROWS, 3, lm.hidden_size).to(device)
    mask_BP = torch.ones(_ROWS, 3, dtype=torch.bool, device=device)
    logits_BV = torch.randn(_ROWS, lm.vocab_size).to(device)
    read = Readout(logits_BV, hidden_BD, lm.table_VD, memory_mask=mask_BP)
    with torch.no_grad():
        for head in (policy.head, policy.answer_head):
            read.memory = head.remember(memory_BPD, mask_BP)
            read.state = head.initial_state(_ROWS, device)
            head.embed(head.sample(read, CounterRNG.at(0, row, row, row, device)), lm.table_VD)


@contextmanager
def _reads(heads: Iterable[nn.Module]) -> Iterator[set[tuple[int, str]]]:
    """Which attributes of these modules, and of those in them, are read within it."""
    read: set[tuple[int, str]] = set()

    def watched(kind: type[nn.Module]) -> type[nn.Module]:
        def look(self: nn.Module, name: str) -> Any:
            read.add((id(self), name))
            return kind.__getattribute__(self, name)

        return type(kind.__name__, (kind,), {"__getattribute__": look})

    kinds = {part: type(part) for head in heads for part in head.modules()}
    try:
        for part, kind in kinds.items():
            part.__class__ = watched(kind)
        yield read
    finally:
        for part, kind in kinds.items():
            part.__class__ = kind


def _traits(module: nn.Module, read: Container[tuple[int, str]] | None = None) -> list[Any]:
    """A module's own attributes and weights, and those of the modules in it.

    Args:
        module: a head.
        read: the attributes that count; None for all.
    """
    plain = [
        {
            name: value
            for name, value in vars(part).items()
            if not name.startswith("_")
            and _is_plain(value)
            and (read is None or (id(part), name) in read)
        }
        for part in module.modules()
    ]
    weights = {name: _sum(p) for name, p in module.named_parameters()}
    return [type(module).__name__, plain, weights]


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float | str | tuple)


def _sum(tensor: Tensor) -> tuple[torch.Size, float]:
    return tensor.shape, float(tensor.detach().double().sum())
