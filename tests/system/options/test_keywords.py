"""Keyword arguments that are checked by their annotations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentgym.errors import OptionError, UsageError
from latentgym.system.options.keywords import Keyword, Option, check, keywords, unexpected
from latentgym.system.options.ranges import Steps

Count = Annotated[int, Option("how many", least=1)]


def takes(
    place: int,
    *,
    count: Count = 3,
    share: Annotated[float, Option("of one", 0, 1)] = 0.5,
    maybe: Count | None = None,
    exact: bool = False,
    name: str = "",
    kind: Literal["a", "b"] = "a",
    config: dict[str, Any] | None = None,
    several: Sequence[Count | Literal["all"]] | None = None,
    steps: Steps = 1,
    other: Any = None,
) -> None:
    """Something with arguments."""


@dataclass(frozen=True)
class Settings:
    count: Count = 3
    plain: int = 0


def test_what_is_read_off_a_callable() -> None:
    known = keywords(takes, "sometimes")
    assert "place" not in known
    count, maybe = known["count"], known["maybe"]
    assert count == Keyword("count", (int,), 3, Option("how many", least=1), "sometimes")
    assert maybe.kinds == (int, type(None)) and maybe.option == count.option
    assert maybe.default is None and known["other"].kinds == (Any,)
    assert list(keywords(Settings)) == ["count", "plain"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("count", 1),
        ("count", np.int64(7)),
        ("share", 0),
        ("share", 0.25),
        ("share", np.float32(1)),
        ("maybe", None),
        ("maybe", 2),
        ("exact", True),
        ("name", "x"),
        ("kind", "b"),
        ("config", {}),
        ("several", ()),
        ("several", [1, "all"]),
        ("several", range(1, 3)),
        ("steps", 10**9),
        ("other", object()),
    ],
)
def test_values_that_fit(name: str, value: Any) -> None:
    check({name: value}, keywords(takes), "latent/X")


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("count", 0, "count of latent/X is a whole number from 1 to 2147483647, not 0"),
        ("count", 2**31, "to 2147483647, not 2147483648"),
        ("count", True, "not True"),
        ("count", 1.0, "not 1.0"),
        ("count", "3", "not '3'"),
        ("count", None, "not None"),
        ("share", 1.5, "a number from 0 to 1, not 1.5"),
        ("count", 10**400, r"not 1000.*\.\.\.\.$"),
        ("share", 10**400, "a number from 0 to 1"),
        ("share", math.nan, "not nan"),
        ("share", math.inf, "not inf"),
        ("maybe", 0, "or none, not 0"),
        ("exact", 1, "true or false, not 1"),
        ("name", 3, "text, not 3"),
        ("kind", "c", "'a' or 'b', not 'c'"),
        ("config", [], r"a mapping or none, not \[\]"),
        ("config", {1: 2}, r"a mapping or none, not {1: 2}"),
        ("several", "all", r"a list \(each 'all' or a whole number from 1 to 2147483647\) or none"),
        ("several", [1, 0], r"not \[1, 0\]"),
        ("several", 3, "not 3"),
        ("steps", 0, "a whole number from 1 to 1000000000, not 0"),
        ("name", ["x" * 100], r"xxx\.\.\.\.$"),
    ],
)
def test_values_that_do_not_fit(name: str, value: Any, says: str) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        check({name: value}, keywords(takes), "latent/X")
    assert not isinstance(caught.value, TypeError)  # nobody may go on without it


def test_a_number_that_cannot_be_written_is_told() -> None:
    with pytest.raises(UsageError, match="not a number of thousands of digits"):
        check({"count": 10**5000}, keywords(takes), "latent/X")


@given(value=st.one_of(st.integers(), st.floats(), st.text(), st.booleans(), st.none()))
def test_a_whole_number_is_one_in_its_range_or_refused(value: Any) -> None:
    fits = type(value) is int and 1 <= value < 2**31
    try:
        check({"count": value}, keywords(takes), "latent/X")
    except UsageError:
        assert not fits
    else:
        assert fits


def test_unknown_names_are_type_errors_that_name_the_options() -> None:
    with pytest.raises(OptionError) as caught:
        check({"conut": 3}, keywords(Settings), "latent/X")
    assert isinstance(caught.value, TypeError) and isinstance(caught.value, UsageError)
    assert str(caught.value) == (
        "latent/X got an unexpected keyword argument 'conut'; did you mean 'count'? Its options "
        "are count, plain."
    )
    far = unexpected("zzz", keywords(Settings), "latent/X")
    assert far.endswith("'zzz'; its options are count, plain.")
    there = unexpected("zzz", keywords(Settings), "latent/X", {"zzz": "elsewhere"})
    assert there.endswith("'zzz'; it has that one elsewhere.")
