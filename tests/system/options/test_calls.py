"""Functions of the public interface look at what they are given before they begin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from latentgym.errors import UsageError
from latentgym.system.options.calls import checked
from latentgym.system.options.ranges import Seed


@checked
def f(
    name: str,
    seeds: Sequence[Seed] = (0,),
    *,
    options: Mapping[str, Any] | None = None,
    **more: Any,
) -> Any:
    return name, seeds, options, more


def test_numbers_of_numpy_become_pythons_own() -> None:
    given = f("a", np.arange(2), options={"x": [np.int64(1)]}, other=np.float64(0.5))
    assert given == ("a", [0, 1], {"x": [1]}, {"other": 0.5})
    assert type(given[1][0]) is type(given[2]["x"][0]) is int
    assert type(given[3]["other"]) is float
    assert f("a", range(2)) == ("a", range(2), None, {})


@pytest.mark.parametrize(
    ("places", "named", "says"),
    [
        ((None,), {}, "name of latentgym.f is text, not None"),
        (("a", 3), {}, "seeds of latentgym.f is a list"),
        (("a", [-1]), {}, r"not \[-1\]"),
        (("a",), {"options": ["x"]}, "options of latentgym.f is a mapping or none"),
    ],
)
def test_what_is_of_another_type_is_a_sentence(
    places: tuple[Any, ...], named: dict[str, Any], says: str
) -> None:
    with pytest.raises(UsageError, match=says):
        f(*places, **named)
