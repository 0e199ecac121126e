"""Code of other packages: what they announce, what is imported of it, and on whose word.

An installed package announces tasks and agents by entry points, which are read as text. A module is
imported when what it holds is used, not before, and importing it runs it. So whoever uses the
library may name any module, but a file (a record, a manifest, a prompt of vLLM) only a trusted one.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import sys
import warnings
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from latentgym.errors import LatentGymError, Notice, UsageError, told

OURS = "latentgym"
TRUSTED = "LATENTGYM_MODULES"
"""The environment variable that names trusted modules, with commas between them."""

_MODULE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")
_ENTRY_POINT = re.compile(rf"{_MODULE.pattern}:[^\W\d]\w*")

_trusted: set[str] = set()  # announced by an installed package, or named by the user
_packages: dict[tuple[str, str], str] = {}  # by name and entry point
_refused: list[tuple[str, str]] = []  # names of what is left out, and why


@dataclass(frozen=True)
class Announced:
    """An entry point of an installed package.

    Attributes:
        package: its name, as it was installed.
        group: of the entry point.
        name: of the task or agent.
        entry_point: `module:attribute`.
    """

    package: str
    group: str
    name: str
    entry_point: str


def announced(groups: Collection[str]) -> Iterator[Announced]:
    """The entry points of installed packages in some groups; nothing is imported.

    Of a package that is there twice, the first on the path counts, as when it is imported. What
    cannot be read is left out.

    Args:
        groups: of entry points.
    """
    from importlib import metadata

    seen: set[str] = set()
    for distribution in metadata.distributions():
        package = "without a name"
        try:
            text = distribution.read_text("entry_points.txt") or ""
            if not any(group in text for group in groups):  # parsing all packages would take longer
                continue
            package = str(distribution.metadata["Name"])
            found = list(distribution.entry_points)
        except Exception as error:  # metadata may be anything
            refuse("", f"the entry points of the package {package} cannot be read ({_line(error)})")
            continue
        if package in seen:
            continue
        seen.add(package)
        for each in found:
            if each.group not in groups:
                continue
            if _ENTRY_POINT.fullmatch(each.value) is None:
                refuse(
                    each.name,
                    f"the entry point {each.name!r} of the package {package} is left out, as "
                    f"{told(each.value)} is no module:attribute",
                )
                continue
            _trusted.add(each.value.partition(":")[0])
            _packages[each.name, each.value] = package
            yield Announced(package, each.group, each.name, each.value)


def refuse(name: str, why: str) -> None:
    """Leave out what has that name; who uses the name, or lists all, is told why."""
    if (name, why) not in _refused:
        _refused.append((name, why))


def tell_refused(name: str | None = None) -> None:
    """Warn of what is left out: what has that name, or all."""
    for refused, why in _refused:
        if name in (None, refused):
            warnings.warn(why, Notice, stacklevel=3)


def leave_out(kind: str, name: str, entry_point: str, error: UsageError) -> None:
    """Warn that something of another package cannot be loaded, so that the rest is still listed.

    Args:
        kind: task or agent.
        name: of it.
        entry_point: of it.
        error: that it has raised.

    Raises:
        UsageError: the error itself, if it is ours.
    """
    package = _packages.get((name, entry_point))
    if package is None and not foreign(entry_point):
        raise error
    package = package or entry_point.partition(":")[0]
    why = f"the {kind} {name!r} of the package {package} is left out: {error}"
    warnings.warn(why, Notice, stacklevel=3)


def load(entry_point: str) -> Any:
    """What `module:attribute` names.

    Raises:
        UsageError: it is in another package, and cannot be imported.
    """
    module, _, attribute = entry_point.partition(":")
    if _first(module) == OURS:
        return getattr(importlib.import_module(module), attribute)
    holder = _import(module)
    try:
        return getattr(holder, attribute)
    except AttributeError as error:
        raise UsageError(
            f"the module {module} has no {attribute!r}; look at its name, or at the version of the "
            "package that is installed."
        ) from error


def import_named(module: str) -> None:
    """Import a module that the user has named, which may register tasks; files may name it, too.

    Raises:
        UsageError: there is no such module, or it fails.
    """
    _import(module)
    _trusted.add(module)


def require_trusted(module: str, where: object) -> None:
    """Refuse a module that a file names, unless a user or an installed package vouches for it.

    Args:
        module: its name.
        where: the file, or its folder, for the message.

    Raises:
        UsageError: nobody vouches for it, nor for the package that it is in.
    """
    named = {name.strip() for name in os.environ.get(TRUSTED, "").split(",")} - {""}
    if not any(_within(module, each) or _within(each, module) for each in _trusted | named):
        raise UsageError(
            f"{where} names the module {told(module)}, which is not imported on a file's word, as "
            f"that would run it; if you trust it, add --module {module}, or set {TRUSTED}."
        )


def foreign(module: str) -> bool:
    """Whether a module is another package's: neither ours nor a script, which has no name."""
    return _first(module) not in (OURS, "__main__")


def _import(module: str) -> Any:
    if _MODULE.fullmatch(module) is None:
        raise UsageError(f"{told(module)} is no name of a module; write one such as my_pkg.tasks.")
    try:
        with contextlib.redirect_stdout(sys.stderr):  # stdout holds results, and JSON alone
            return importlib.import_module(module)
    except LatentGymError:
        raise
    except (Exception, SystemExit) as error:  # a module may raise anything
        if isinstance(error, ModuleNotFoundError) and error.name and _within(module, error.name):
            raise UsageError(
                f"there is no module {error.name!r}; install the package that it is in, or put the "
                "folder that it is in on PYTHONPATH."
            ) from error
        raise UsageError(
            f"the module {module} cannot be imported ({_line(error)}); mend it, or uninstall it."
        ) from error


def _within(module: str, package: str) -> bool:
    return f"{module}.".startswith(f"{package}.")


def _first(module: str) -> str:
    return module.partition(":")[0].partition(".")[0]


def _line(error: BaseException) -> str:
    said = str(error).strip().splitlines()
    return f"{type(error).__name__}: {said[0]}" if said else type(error).__name__
