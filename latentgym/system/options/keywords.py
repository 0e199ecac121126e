"""Keyword arguments that are checked: their names, types and ranges, told at the parameter itself.

A parameter says what it is by an annotation,

    think: Annotated[int, Option("most thoughts of an episode", least=0)] = 256

and what callables take is read off them, for checks, messages and the pages of the tasks.
"""

from __future__ import annotations

import inspect
import math
import types
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from numbers import Integral, Real
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from latentgym.errors import OptionError, UsageError, did_you_mean, told
from latentgym.system.options.ranges import Range

_BOUND = 2**31 - 1  # of whole numbers that say nothing else: what counts in 64 bits stays safe


@dataclass(frozen=True)
class Option:
    """What a keyword argument is.

    Attributes:
        about: in a few words.
        least, most: the range of a number; None where it has no such end.
        usual: the value that None stands for in the action family of this name, where that decides.
    """

    about: str
    least: float | None = None
    most: float | None = None
    usual: Callable[[str], Any] | None = None


@dataclass(frozen=True)
class Keyword:
    """A keyword argument that some callable takes.

    Attributes:
        name: of it.
        kinds: the types of its values, as annotated; `Any` for those that nothing is said of.
        default: that it has.
        option: what it is.
        when: where it counts, such as "source=generated"; empty for everywhere.
    """

    name: str
    kinds: tuple[Any, ...]
    default: Any
    option: Option
    when: str = ""

    def check(self, value: Any, env: str) -> None:
        """Make sure that this may be a value.

        Raises:
            UsageError: it may not; it names the environment.
        """
        if not self.fits(value):
            wrong = f"{self.name} of {env} is {self.expected}, not {told(value)}"
            advice = did_you_mean(value, self._choices) if isinstance(value, str) else ""
            raise UsageError(f"{wrong}; {advice}" if advice.startswith("did") else f"{wrong}.")

    def fits(self, value: Any) -> bool:
        """Whether this may be a value."""
        return any(_is(value, kind) for kind in self.kinds) and self._in_range(value)

    @property
    def expected(self) -> str:
        """The values that it takes, in words."""
        choices = [repr(choice) for choice in self._choices]
        plain = [self._words(kind) for kind in self.kinds if get_origin(kind) is not Literal]
        *some, last = dict.fromkeys((*choices, *plain))
        return f"{', '.join(some)} or {last}" if some else last

    @property
    def _choices(self) -> list[Any]:
        """The values that it names one by one."""
        literals = (kind for kind in self.kinds if get_origin(kind) is Literal)
        return [choice for kind in literals for choice in get_args(kind)]

    def _in_range(self, value: Any) -> bool:
        if type(value) is bool or not isinstance(value, Real):
            return True
        low, high = self._range(int if isinstance(value, Integral) else float)
        given: Any = value  # no float: that would not hold every whole number
        return bool(low <= given <= high)

    def _range(self, kind: Any) -> tuple[float, float]:
        bound = _BOUND if kind is int else math.inf
        least, most = self.option.least, self.option.most
        return -bound if least is None else least, bound if most is None else most

    def _words(self, kind: Any) -> str:
        if kind in (int, float):
            low, high = self._range(kind)
            between = f" from {low:g}" if low > -_BOUND else ""
            between += f" to {high:.10g}" if high < math.inf else " on" if between else ""
            return f"a {'whole ' if kind is int else ''}number{between}"
        names = {bool: "true or false", type(None): "none", Any: "anything", str: "text"}
        names |= {dict: "a mapping", Mapping: "a mapping", Callable: "a function"}
        plain = get_origin(kind) or kind
        if plain in (list, Sequence) and get_args(kind):
            return f"a list (each {_entry(kind).expected})"
        article = "an" if plain.__name__[:1] in "AEIOU" else "a"
        return names.get(plain, f"{article} {plain.__name__}")


def keywords(
    maker: Callable[..., Any], when: str = "", *, places: bool = False
) -> dict[str, Keyword]:
    """The keyword arguments of a function, a class or a dataclass, by name.

    Args:
        maker: with annotations; arguments that have a place are left out, but for a dataclass.
        when: they count.
        places: arguments that have a place too.
    """
    return {k: Keyword(k, *known, when) for k, known in _read(maker, places).items()}


@lru_cache(maxsize=64)
def _read(
    maker: Callable[..., Any], places: bool
) -> dict[str, tuple[tuple[Any, ...], Any, Option]]:
    fields = hasattr(maker, "__dataclass_fields__")
    made = maker.__init__ if isinstance(maker, type) and not fields else maker  # type: ignore[misc]
    hints = get_type_hints(made, include_extras=True)
    found = {}
    for name, parameter in inspect.signature(maker).parameters.items():
        placed = parameter.kind is parameter.POSITIONAL_OR_KEYWORD and (places or fields)
        if parameter.kind is parameter.KEYWORD_ONLY or placed:
            kinds, option = _parts(hints.get(name, Any))
            found[name] = kinds, parameter.default, option or Option("")
    return found


def _parts(hint: Any) -> tuple[tuple[Any, ...], Option | None]:
    """The types of a union, and the option that is noted on it or on one of them."""
    if get_origin(hint) is Annotated:
        inner, *notes = get_args(hint)
        kinds, option = _parts(inner)
        said = [Option("", *n.closed) if isinstance(n, Range) else n for n in notes]
        return kinds, next((n for n in said if isinstance(n, Option)), option)
    if get_origin(hint) in (Union, types.UnionType):
        parts = [_parts(part) for part in get_args(hint)]
        noted = next((option for _, option in parts if option is not None), None)
        return tuple(kind for kinds, _ in parts for kind in kinds), noted
    return (hint,), None


def _entry(kind: Any) -> Keyword:
    """What an entry of a list may be."""
    kinds, option = _parts(get_args(kind)[0])
    return Keyword("", kinds, None, option or Option(""))


def _is(value: Any, kind: Any) -> bool:
    """Whether a value is of a type, as people mean it: true is no number, and nan is none."""
    if kind is Any:
        return True
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if kind in (int, float):
        if isinstance(value, bool) or not isinstance(value, Integral if kind is int else Real):
            return False
        return isinstance(value, Integral) or math.isfinite(value)
    plain, inner = get_origin(kind) or kind, get_args(kind)
    if not isinstance(value, plain):
        return False
    if plain in (list, Sequence) and inner:  # a text is none, though it has letters
        return not isinstance(value, str) and all(map(_entry(kind).fits, value))
    return plain not in (dict, Mapping) or all(isinstance(name, str) for name in value)


def check(
    given: Mapping[str, Any],
    known: Mapping[str, Keyword],
    env: str,
    elsewhere: Mapping[str, str] | None = None,
) -> None:
    """Whether these keyword arguments can be given to an environment.

    Args:
        given: the arguments.
        known: those that it takes.
        env: its id.
        elsewhere: names that it takes under other circumstances, with which.

    Raises:
        OptionError: it takes no argument of that name.
        UsageError: a value is of another type or outside its range.
    """
    for name, value in given.items():
        if name not in known:
            error = OptionError(unexpected(name, known, env, elsewhere))
            error.unknown = name, tuple(known), env, elsewhere
            raise error
        known[name].check(value, env)


def unexpected(
    name: str,
    known: Collection[str],
    env: str,
    elsewhere: Mapping[str, str] | None = None,
) -> str:
    """The sentence about an argument that an environment does not take; see `check`.

    It begins as Python's own does, as other libraries look for that.
    """
    sentence = f"{env} got an unexpected keyword argument {name!r}"
    if elsewhere and name in elsewhere:
        return f"{sentence}; it has that one {elsewhere[name]}."
    advice = did_you_mean(name, known)
    if advice.startswith("did"):
        advice += f" Its options are {', '.join(sorted(known))}."
    return f"{sentence}; {advice.replace('known names', 'its options')}"
