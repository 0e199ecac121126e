"""Functions of the user's own, named `module:function`, and what they take."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection
from typing import Any, TypeGuard

from latentgym.errors import UsageError, told
from latentgym.system import plugins

_NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")


def named(text: Any) -> TypeGuard[str]:
    """Whether a value is written as the name of a function, `module:function`."""
    return isinstance(text, str) and _NAME.fullmatch(text) is not None


def function_of(name: str, what: str) -> Callable[..., Any]:
    """The function that a user has named; its module is imported.

    Args:
        name: `module:function`.
        what: it is to be, for messages: "the grader", "the reward".

    Raises:
        UsageError: there is none of that name, or it cannot be called.
    """
    if not named(name):
        raise UsageError(
            f"{what} {told(name)} is no module:function; write one such as mine:score."
        )
    plugins.import_named(name.partition(":")[0])
    function: Callable[..., Any] | None = plugins.load(name)
    if not callable(function):
        raise UsageError(f"{what} {name} is {told(function)}, which cannot be called.")
    return function


def taken(
    function: Callable[..., Any], known: Collection[str], what: str, places: int = 0
) -> list[str]:
    """Which keyword arguments a function takes: all that are known, if it has `**kwargs`.

    Args:
        function: of the user's own.
        known: the arguments that there are.
        what: the function is, for messages.
        places: how many arguments it is given by their place.

    Raises:
        UsageError: it asks for another one.
    """
    try:
        parameters = list(inspect.signature(function).parameters.values())[places:]
    except ValueError:  # some of C have none to look at
        return list(known)
    if any(each.kind is each.VAR_KEYWORD for each in parameters):
        names = list(known)
    else:
        names = [name for name in known if any(name == each.name for each in parameters)]
    single = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    needed = [p.name for p in parameters if p.kind in single and p.default is p.empty]
    if missing := [name for name in needed if name not in known]:
        raise UsageError(
            f"{what} asks for {', '.join(missing)}, which is not there; there are "
            f"{', '.join(sorted(known))}."
        )
    return names
