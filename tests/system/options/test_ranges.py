"""Every numeric option has a range, and is held to it."""

from __future__ import annotations

import dataclasses
import importlib
import math
from collections.abc import Iterator
from typing import Any, get_args, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentgym import training
from latentgym.agents.base import agent_class
from latentgym.cli import baseline, data, envs, evaluate, index, train
from latentgym.cli.bench import BENCHES
from latentgym.errors import UsageError
from latentgym.registry import AGENTS
from latentgym.system.options.ranges import (
    Positive,
    Range,
    Seed,
    Share,
    Size,
    check_ranges,
    check_rows,
    range_of,
)

COMMANDS = [
    train.TrainOptions,
    evaluate.EvalOptions,
    baseline.BaselineOptions,
    data.AmazonOptions,
    data.MovieLensOptions,
    index.BuildOptions,
    index.SearchOptions,
    envs.EnvOptions,
    *(getattr(importlib.import_module(module), name) for module, name, _ in BENCHES.values()),
]
SETTINGS = [
    *(agent_class(name).config_class for name in AGENTS),
    *(getattr(training, name) for name in training.__all__ if name.endswith("Config")),
    training.Optimisation,
]


def numeric(cls: Any) -> Iterator[tuple[str, Any]]:
    for name, kind in get_type_hints(cls, include_extras=True).items():
        if any(dataclasses.is_dataclass(part) for part in (kind, *get_args(kind))):
            continue  # a group of options, looked at by itself
        if {int, float} & set(_parts(kind)):
            yield name, kind


def _parts(kind: Any) -> Iterator[Any]:
    yield kind
    for part in get_args(kind):
        yield from _parts(part)


@pytest.mark.parametrize("cls", [*COMMANDS, *SETTINGS], ids=lambda cls: cls.__name__)
def test_every_number_has_a_range_that_its_default_is_in(cls: Any) -> None:
    for name, kind in numeric(cls):
        allowed = range_of(kind)
        assert allowed is not None, f"{cls.__name__}.{name} has no range"
        default = next(f.default for f in dataclasses.fields(cls) if f.name == name)
        if isinstance(default, int | float):
            assert default in allowed, f"{cls.__name__}.{name}"


@pytest.mark.parametrize("cls", SETTINGS, ids=lambda cls: cls.__name__)
def test_numbers_outside_are_refused_by_name(cls: Any) -> None:
    for name, kind in numeric(cls):
        allowed = range_of(kind)
        assert allowed is not None
        outside = [math.nan, math.inf] if float in _parts(kind) else []
        outside += [allowed.least - 1] if math.isfinite(allowed.least) else []
        for value in outside:
            options = object.__new__(cls)  # as it might come from a checkpoint
            for f in dataclasses.fields(cls):
                known = f.default is not dataclasses.MISSING
                default = f.default if known else f.default_factory()  # type: ignore[misc]
                object.__setattr__(options, f.name, default)
            object.__setattr__(options, name, value)
            with pytest.raises(UsageError, match=f"--{name.replace('_', '-')} must be "):
                check_ranges(options)


@given(st.floats(allow_nan=True), st.floats(-9, 9), st.floats(0, 9), st.booleans(), st.booleans())
def test_a_range_is_its_inequalities(
    value: float, least: float, width: float, above: bool, below: bool
) -> None:
    allowed = Range(least, least + width, above, below)
    low = value > least if above else value >= least
    assert (value in allowed) == (
        low and (value < least + width if below else value <= least + width)
    )


@dataclasses.dataclass(frozen=True)
class Inner:
    rate: Positive = 1.0


@dataclasses.dataclass(frozen=True)
class Outer:
    share: Share | None = None
    seeds: list[Seed] = dataclasses.field(default_factory=list)
    inner: Inner = dataclasses.field(default_factory=Inner)
    size: Size = 3


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (Outer(share=1.5), "--share must be at least 0 and at most 1, but is 1.5."),
        (Outer(seeds=[0, -1]), "--seeds must be at least 0"),
        (
            Outer(inner=Inner(0.0)),
            "--inner.rate must be at least 1e-12 and at most 1,000,000.0, but is 0.0.",
        ),
        (Outer(size=10**400), "--size must be at least 1"),
        (Outer(size=10**9), "--size must be at least 1 and at most 65,536, but is 1,000,000,000."),
    ],
)
def test_what_is_outside_is_told_as_the_command_line_names_it(options: Outer, says: str) -> None:
    with pytest.raises(UsageError) as error:
        check_ranges(options)
    assert says in str(error.value)
    check_ranges(Outer())


def test_more_rows_than_fit_are_refused() -> None:
    check_rows(2**16)
    with pytest.raises(UsageError, match="rows side by side"):
        training.GRPOConfig(prompts=2**16, group_size=2).validate()
