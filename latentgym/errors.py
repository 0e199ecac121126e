"""Errors that a user can act on: one sentence that says what is wrong and what to do next."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any


class LatentGymError(Exception):
    """Base of the errors that latentgym raises on purpose; the command line exits with code 2."""


class UsageError(LatentGymError, ValueError):
    """An argument, option or combination of them that cannot work."""


class OptionError(UsageError, TypeError):
    """A keyword argument that an environment does not take.

    Also a `TypeError`, as Python's own is: libraries try an argument, and go on without it then.

    Attributes:
        unknown: what `latentgym.system.options.keywords.unexpected` makes its sentence of, where it
            did.
    """

    unknown: tuple[str, Collection[str], str, Mapping[str, str] | None] | None = None


class ActionError(LatentGymError, ValueError):
    """An action outside the action space, or one with NaN or infinite numbers in it."""


class PromptTooLongError(LatentGymError, ValueError):
    """A question whose prompt does not fit the prompt budget of its environment."""


class CheckpointError(LatentGymError, RuntimeError):
    """A checkpoint that is damaged, of another model, or of another version."""


class TrainingError(LatentGymError, ArithmeticError):
    """Training that cannot go on: numbers that are not finite."""


class Notice(UserWarning):
    """Something that a user should know, though it stops nothing."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The tail of an error message: the nearest known names, or all of them if none is near."""
    known = sorted(known)
    same = [each for each in known if each.casefold() == name.casefold()]
    folded = {each.casefold(): each for each in known}
    close = difflib.get_close_matches(name.casefold(), folded, n=3, cutoff=0.5)
    near = same or [folded[each] for each in close]
    if near:
        return f"did you mean {' or '.join(repr(n) for n in near)}?"
    return f"known names are {', '.join(known)}."


def sentence(text: str) -> str:
    """A text with a full stop, unless it ends as a sentence does."""
    return text if text.endswith((".", "?", "!")) else f"{text}."


def told(value: Any, most: int = 60) -> str:
    """A value in a sentence, cut off where it is long."""
    try:
        text = repr(value)
    except Exception as error:  # what a class of the user's own may raise
        if isinstance(value, int) and isinstance(error, ValueError):  # Python writes no such number
            return "a number of thousands of digits"
        return f"a {type(value).__name__}"
    return text if len(text) <= most else f"{text[: most - 3]}..."


def require_same(stored: Mapping[str, Any], asked: Mapping[str, Any], where: Path) -> None:
    """What is resumed must be what was started.

    Args:
        stored: settings that it was started with.
        asked: settings that it would go on with.
        where: it is stored.

    Raises:
        UsageError: they differ; it says in what.
    """
    different = list(_differences(stored, asked))
    if different:
        raise UsageError(
            f"{where} is of another run (it differs in {', '.join(different)}); resume with the "
            "settings it was started with, or choose another --out."
        )


def _differences(
    one: Mapping[str, Any], other: Mapping[str, Any], within: str = ""
) -> Iterator[str]:
    for key in sorted({*one, *other}):
        a, b = one.get(key), other.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            yield from _differences(a, b, f"{within}{key}.")
        elif a != b:
            yield within + key
