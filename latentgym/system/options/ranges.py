"""Numeric options say in their type between what bounds they make sense, and are held to it.

    temperature: NotNegative = 0.7

A dataclass of such options is checked as a whole, wherever it comes from: the command line, a
checkpoint, or Python.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Annotated, Any, TypeAlias, get_args, get_type_hints

from latentgym.errors import UsageError


@dataclasses.dataclass(frozen=True)
class Range:
    """The numbers that an option may have.

    Attributes:
        least, most: bounds, themselves inside unless the range is open there.
        above, below: whether it is open at its lower, at its upper end.
    """

    least: float = -math.inf
    most: float = math.inf
    above: bool = False
    below: bool = False

    def __contains__(self, value: float) -> bool:
        try:
            if not math.isfinite(value):
                return False
        except OverflowError:  # a whole number that no float holds, so that nothing can compute
            return False
        low = self.least < value if self.above else self.least <= value
        return low and (value < self.most if self.below else value <= self.most)

    @property
    def closed(self) -> tuple[float | None, float | None]:
        """The bounds as if both were inside; None where there is none."""
        least, most = (x if math.isfinite(x) else None for x in (self.least, self.most))
        return least, most

    def __str__(self) -> str:
        ends = []
        if math.isfinite(self.least):
            ends.append(f"{'above' if self.above else 'at least'} {self.least:,}")
        if math.isfinite(self.most):
            ends.append(f"{'below' if self.below else 'at most'} {self.most:,}")
        return " and ".join(ends) or "finite"


# Models compute with 32 bits and fewer, of which squares and quotients must be numbers too.
Number: TypeAlias = Annotated[float, Range(-1e9, 1e9)]
NotNegative: TypeAlias = Annotated[float, Range(0, 1e9)]
Positive: TypeAlias = Annotated[float, Range(1e-12, 1e6)]
Rate: TypeAlias = Annotated[float, Range(0, 1e6, above=True)]
"""Of learning: beyond, no optimiser can compute."""
Share: TypeAlias = Annotated[float, Range(0, 1)]
ShareBelowOne: TypeAlias = Annotated[float, Range(0, 1, below=True)]
PositiveShare: TypeAlias = Annotated[float, Range(1e-6, 1)]
Seed: TypeAlias = Annotated[int, Range(0, 2**63 - 1)]
Steps: TypeAlias = Annotated[int, Range(1, 10**9)]
"""One after the other: how many there are is a matter of patience."""
Interval: TypeAlias = Annotated[int, Range(0, 10**9)]
"""Steps between two events; 0 says something of its own."""
Size: TypeAlias = Annotated[int, Range(1, 2**16)]
"""Side by side: how many there are is a matter of memory."""
SizeOrZero: TypeAlias = Annotated[int, Range(0, 2**16)]
"""The same, where 0 says something of its own."""

Kept: TypeAlias = Annotated[int, Range(0, 50)]
"""How many are kept of something that people look at; 0 keeps none."""


_MOST_ROWS = 2**16


def check_rows(rows: int) -> None:
    """Refuse more rows than any memory has room for.

    Raises:
        UsageError: there are more.
    """
    if rows > _MOST_ROWS:
        raise UsageError(
            f"a step would have {rows:,} rows side by side, but {_MOST_ROWS:,} is the most; ask "
            "fewer questions, or draw fewer episodes of each."
        )


def check_ranges(options: Any, within: str = "") -> None:
    """Hold the numbers of a dataclass to their ranges.

    Args:
        options: with all that it contains.
        within: what its options are called after on the command line, such as `grpo.`.

    Raises:
        UsageError: a number that lies outside.
    """
    for name, value, allowed in _numbers(options, within):
        if value not in allowed:
            raise UsageError(f"--{name} must be {allowed}, but is {value:,}.")


def _numbers(options: Any, within: str) -> Iterator[tuple[str, float, Range]]:
    hints = get_type_hints(type(options), include_extras=True)
    for f in dataclasses.fields(options):
        value, name = getattr(options, f.name), within + f.name.replace("_", "-")
        if dataclasses.is_dataclass(value):
            # A group that the command line gives no name (tyro's `arg(name="")`) has none here.
            plain = any(getattr(extra, "name", None) == "" for extra in get_args(hints[f.name])[1:])
            yield from _numbers(value, within if plain else f"{name}.")
        elif (allowed := range_of(hints[f.name])) is not None:
            each = value if isinstance(value, list | tuple) else (value,)
            yield from ((name, v, allowed) for v in each if isinstance(v, int | float))


def range_of(kind: Any) -> Range | None:
    """The range in a type, such as that of `list[Seed]` or `Size | None`; None if there is none."""
    for part in get_args(kind):
        if isinstance(part, Range):
            return part
        found = range_of(part)
        if found is not None:
            return found
    return None
