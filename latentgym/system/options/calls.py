"""Functions that people call from Python, where nothing has looked at the arguments yet."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import numpy as np

from latentgym.system.options.keywords import check, keywords

_Arguments = ParamSpec("_Arguments")
_Given = TypeVar("_Given")


def checked(function: Callable[_Arguments, _Given]) -> Callable[_Arguments, _Given]:
    """The function; what it is given is held to its annotations before it begins.

    Numbers and arrays of numpy become Python's own, as records and checkpoints are JSON.

    Raises:
        UsageError: an argument is of another type, or outside its range.
    """
    known, name = keywords(function, places=True), f"latentgym.{function.__name__}"

    @wraps(function)
    def call(*places: _Arguments.args, **named: _Arguments.kwargs) -> _Given:
        values, others = plain(list(places)), plain(named)
        given = {**dict(zip(known, values, strict=False)), **others}
        check({k: v for k, v in given.items() if k in known}, known, name)
        return function(*values, **others)

    return call


def plain(value: Any) -> Any:
    """A value with Python's own numbers in the place of numpy's, also within lists and dicts."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if type(value) is dict:
        return {name: plain(each) for name, each in value.items()}
    if type(value) in (list, tuple):
        return type(value)(plain(each) for each in value)
    return value
