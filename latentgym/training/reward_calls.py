"""Calling reward functions with the episodes of a step, and what they give back.

Legend: N episodes.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import math
import sys
import threading
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from latentgym.errors import TrainingError, told
from latentgym.system.functions import taken

FloatArray = npt.NDArray[np.float64]
Arguments = dict[str, list[Any]]
STATE = "trainer_state"

# A function of the user's own may raise anything; sys.exit in it is no way to end a run in order.
_FAILURES = (Exception, SystemExit, GeneratorExit, asyncio.CancelledError)


class Call:
    """A function that is called with the episodes of a step, or with some of them.

    Args:
        name: of it.
        function: of the user's own; it may be asynchronous.
        arguments: what there is to give it, by name, of each episode.
        state: of the trainer.
    """

    def __init__(
        self, name: str, function: Callable[..., Any], arguments: Arguments, state: Any
    ) -> None:
        self.name, self._function = name, function
        self.index = arguments["index"]
        names = taken(self._function, [*arguments, STATE], f"the reward {self.name}")
        self._arguments = {name: arguments[name] for name in names if name != STATE}
        self._state = {STATE: state} if STATE in names else {}

    def started(self, rows: Sequence[int]) -> Any:
        """What it gives of these episodes, which may have to be awaited."""
        # Lists of its own: what it does with them is no other function's concern.
        some = {name: [value[row] for row in rows] for name, value in self._arguments.items()}
        return self._function(**some, **self._state)

    def values(self, given: Any) -> FloatArray:
        """Numbers of all episodes, NaN where the function does not apply; float64 (N,).

        Raises:
            TrainingError: it has given something else.
        """
        wanted = f"give a list of {len(self.index)} numbers, one for each completion"
        if isinstance(given, str | bytes | Mapping):
            raise TrainingError(f"the reward {self.name} gives {told(given)}; {wanted}.")
        try:
            values = list(given)
        except TypeError as error:
            raise TrainingError(f"the reward {self.name} gives {told(given)}; {wanted}.") from error
        if len(values) != len(self.index):
            raise TrainingError(
                f"the reward {self.name} gives {len(values)} values for the questions "
                f"{_few(self.index)}; {wanted}."
            )
        return np.array([self._number(*pair) for pair in zip(values, self.index, strict=True)])

    def _number(self, value: Any, question: int) -> float:
        if value is None:
            return math.nan
        try:
            number = math.nan if isinstance(value, str | bytes) else float(value)
        except Exception:  # a number of the user's own may raise anything
            number = math.nan
        if not math.isfinite(number):
            raise TrainingError(
                f"the reward {self.name} gives {told(value)} for an episode of question "
                f"{question}; give a finite number, or None where it does not apply."
            )
        return number

    def failed(self, error: BaseException) -> TrainingError:
        """The error of a function that has failed, with the question that it fails on alone."""
        where = f"the questions {_few(self.index)}, though on none of them alone"
        for question in dict.fromkeys(self.index):
            rows = [row for row, each in enumerate(self.index) if each == question]
            if again := _outcomes([functools.partial(self.started, rows)])[1].get(0):
                error, where = again, f"question {question}"
                break
        what = " ".join(_message(error).split())[:200]
        return TrainingError(
            f"the reward {self.name} failed on {where} ({what}); mend it. Completions are texts, "
            "or with --grpo.completions messages lists of one chat message."
        )


def all_values(calls: Sequence[Call]) -> list[FloatArray]:
    """What all functions give; those that are asynchronous run side by side.

    Raises:
        TrainingError: one failed, or gives something else.
    """
    given, errors = _outcomes(
        [functools.partial(call.started, range(len(call.index))) for call in calls]
    )
    for number, error in errors.items():
        raise calls[number].failed(error) from error
    return [call.values(given[number]) for number, call in enumerate(calls)]


def _outcomes(
    begin: Sequence[Callable[[], Any]],
) -> tuple[dict[int, Any], dict[int, BaseException]]:
    """What calls come to, by number: results, and errors."""
    results: dict[int, Any] = {}
    errors: dict[int, BaseException] = {}
    pending: dict[int, Awaitable[Any]] = {}
    with contextlib.redirect_stdout(sys.stderr):  # stdout holds results, and JSON alone
        for number, call in enumerate(begin):
            try:
                results[number] = call()
            except _FAILURES as error:
                errors[number] = error
                continue
            if inspect.isawaitable(results[number]):
                pending[number] = results.pop(number)
        outcomes: list[tuple[Any, BaseException | None]] = []
        if pending:
            together = asyncio.run_coroutine_threadsafe(_together(pending.values()), _loop())
            outcomes = together.result()
    for number, (result, failure) in zip(pending, outcomes, strict=True):
        if failure is None:
            results[number] = result
        else:
            errors[number] = failure
    return results, dict(sorted(errors.items()))


async def _together(
    pending: Iterable[Awaitable[Any]],
) -> list[tuple[Any, BaseException | None]]:
    return await asyncio.gather(*map(_settled, pending))


async def _settled(awaitable: Awaitable[Any]) -> tuple[Any, BaseException | None]:
    """What it gives, or its error: kept from the loop, which sys.exit would end."""
    try:
        return await awaitable, None
    except _FAILURES as error:
        return None, error


@functools.lru_cache(maxsize=1)
def _loop() -> asyncio.AbstractEventLoop:
    """One loop for all steps, as clients stay bound to it; a notebook has one in its own thread."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True, name="rewards").start()
    return loop


def _message(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # its own message fails
        return type(error).__name__


def _few(index: Sequence[int]) -> str:
    known = list(dict.fromkeys(index))
    more = ", ..." if len(known) > 8 else ""
    return ", ".join(map(str, known[:8])) + more
