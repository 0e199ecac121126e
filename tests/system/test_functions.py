"""Functions that a user names, and what they take."""

from __future__ import annotations

import functools
from typing import Any

import pytest

from latentgym.errors import UsageError
from latentgym.system.functions import function_of, named, taken


@pytest.mark.parametrize("text", ["mine:best", "my_pkg.rewards:best", "_a:_b"])
def test_names(text: str) -> None:
    assert named(text)


NONE = ["best", "mine:", ":best", "a:b:c", "a.:b", "a b:c", "1:b", None, 3]


@pytest.mark.parametrize("text", NONE)
def test_what_is_no_name(text: Any) -> None:
    assert not named(text)
    with pytest.raises(UsageError, match="is no module:function; write one such as"):
        function_of(text, "the reward")


def test_what_is_named_must_be_there() -> None:
    assert function_of("functools:partial", "the reward") is functools.partial
    for name, says in (("functools:nothing", "has no 'nothing'"), ("os:sep", "cannot be called")):
        with pytest.raises(UsageError, match=says):
            function_of(name, "the reward")


KNOWN = ("prompts", "level")


@pytest.mark.parametrize(
    ("function", "names"),
    [
        (lambda a, b, **more: 0, list(KNOWN)),
        (lambda a, b: 0, []),
        (lambda a, b, level: 0, ["level"]),
        (lambda a, b, *rest, prompts=None: 0, ["prompts"]),
        (lambda a, b, other=None: 0, []),
        (functools.partial(lambda a, b, c, level: 0, 1), ["level"]),
    ],
)
def test_a_function_is_given_what_it_takes(function: Any, names: list[str]) -> None:
    assert taken(function, KNOWN, "it", places=2) == names


def test_what_a_function_asks_for_must_be_there() -> None:
    def asks(a: Any, b: Any, level: Any, colour: Any, size: Any = 1) -> None: ...

    with pytest.raises(UsageError, match="it asks for colour, which is not there; there are level"):
        taken(asks, KNOWN, "it", places=2)
