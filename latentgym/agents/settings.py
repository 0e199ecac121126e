"""The settings of a trained agent, read back from its checkpoint."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_type_hints

from latentgym.agents.base import Agent
from latentgym.errors import CheckpointError
from latentgym.system.options.keywords import check, keywords
from latentgym.system.sealed import is_of


def restored(cls: type[Agent[Any]], stored: Mapping[str, Any], where: Path) -> Any:
    """The settings of an agent from plain data, as `config_dict` made it.

    Settings that came later have their defaults, under which nothing has changed.

    Args:
        cls: the agent.
        stored: its settings.
        where: they are stored, for the error.

    Raises:
        CheckpointError: a setting that the agent does not have, or a value of another kind.
    """
    return _filled(cls.config_class(), stored, where, "")


def _filled(default: Any, stored: Any, where: Path, within: str) -> Any:
    fields = {f.name: getattr(default, f.name) for f in dataclasses.fields(default)}
    if not isinstance(stored, Mapping):
        raise _damaged(where, within.rstrip("."), stored)
    if unknown := sorted(stored.keys() - fields.keys()):
        raise CheckpointError(
            f"{where} was trained with settings that this version does not have "
            f"({', '.join(unknown)}); evaluate it with the version that wrote it."
        )
    kinds = get_type_hints(type(default))
    values = {}
    for name, value in stored.items():
        if dataclasses.is_dataclass(fields[name]):
            values[name] = _filled(fields[name], value, where, f"{within}{name}.")
        elif is_of(value, kinds[name]):
            values[name] = value
        else:
            raise _damaged(where, within + name, value)
    return dataclasses.replace(default, **values)


def _damaged(where: Path, name: str, value: Any) -> CheckpointError:
    return CheckpointError(f"{where} is damaged: its setting {name} is {value!r}; train again.")


def with_settings(config: Any, settings: Mapping[str, Any], agent: str) -> Any:
    """Settings with some of them changed.

    Args:
        config: an agent's settings.
        settings: new values by name; of a group, `group.name` as on the command line, where a
            hyphen stands for an underscore.
        agent: its name, for the error.

    Raises:
        UsageError: there is no such setting, or a value is of another type.
    """
    for name, value in settings.items():
        config = _changed(config, name.replace("-", "_").split("."), value, agent)
    return config


def _changed(config: Any, path: list[str], value: Any, of: str) -> Any:
    name, *rest = path
    if rest and dataclasses.is_dataclass(old := getattr(config, name, None)):
        value = _changed(old, rest, value, f"{name} of {of}")
    else:
        check({".".join(path): value}, keywords(type(config)), of)
    return dataclasses.replace(config, **{name: value})


def differences(one: Any, other: Any) -> Iterator[tuple[str, Any, Any]]:
    """Settings in which two of an agent's own differ, with the value of each.

    Those of training, which are grouped, are left out.
    """
    for field in dataclasses.fields(one):
        a, b = getattr(one, field.name), getattr(other, field.name)
        if a != b and not dataclasses.is_dataclass(a):
            yield field.name, a, b
