"""Which tasks there are, and how they are made. Names are data; classes load when they are used."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from latentgym.envs.task import Task, TaskMaker
from latentgym.episodes.spaces import Family
from latentgym.errors import OptionError, UsageError, told
from latentgym.registry import NAMESPACE, task_maker
from latentgym.system.options.keywords import Keyword, check, keywords
from latentgym.text.tokenizers import Tokenizer

DEFAULT_WIDTH = 64

Factory = Callable[[str, Family, "Tokenizer | None", Mapping[str, Any]], Task]
Makers = list[tuple[str, Callable[..., Any]]]

GENERATED = "source=generated"
NOTHING_HELD = "rows are held out of a file, and these are generated; leave holdout out."


def make_task(
    name: str,
    family: Family,
    model: str | None,
    options: Mapping[str, Any],
    known: Mapping[str, Keyword] = MappingProxyType({}),
    tokenizer: Tokenizer | None = None,
) -> tuple[Task, int]:
    """A task by name, and the width of its model's latents.

    Args:
        name: as in the environment ids.
        family: action family.
        model: whose vocabulary and prompts to use; None for the task's own small tokenizer.
        options: keyword arguments of the task.
        known: keyword arguments that its environment takes beside, for messages.
        tokenizer: in the place of a model's.

    Raises:
        OptionError: the task does not take such an argument.
        UsageError: no such task or model, or a value that an argument cannot have.
    """
    factory = task_maker(name)
    env = f"{NAMESPACE}/{name}-{family.name}"
    width = DEFAULT_WIDTH
    if model is not None:
        from latentgym.lm.tiny import parse_tiny
        from latentgym.lm.zoo import describe

        spec = parse_tiny(model)
        if spec is None:
            info = describe(model)
            tokenizer, width = info.tokenizer, info.hidden_size
        else:
            width = spec.width  # tiny models speak the task's own symbols
    if isinstance(factory, TaskMaker):
        words = tokenizer is not None
        other = "without a model of words" if words else "with the model= of a language model"
        check(
            options,
            {**known, **factory.keywords(name, words)},
            env,
            dict.fromkeys(factory.keywords(name, not words), other),
        )
    try:
        task = factory(name, family, tokenizer, options)
    except TypeError as error:
        if "abstract class" in str(error):  # Python's own sentence names the methods
            raise UsageError(f"{env} is not whole: {error}; write what is missing.") from error
        if isinstance(factory, TaskMaker) or "unexpected keyword argument" not in str(error):
            raise
        raise OptionError(f"{env} does not take all of these arguments: {error}.") from error
    return _whole(task, env), width


def _whole(task: Any, env: str) -> Task:
    """What a maker of anyone's has made, which must be a task with all that a task has.

    Raises:
        UsageError: it is not.
    """
    if not isinstance(task, Task):
        raise UsageError(f"what makes {env} gives {told(task)}; let it give a latentgym.envs.Task.")
    if lacking := task.lacking():
        raise UsageError(
            f"the task of {env} lacks {', '.join(lacking)}; set them in its class or its __init__, "
            "as latentgym.envs.Task describes them."
        )
    if not len(task):
        raise UsageError(f"{env} has no questions with these options; change them.")
    return task


def _make_maths(
    name: str, family: Family, tokenizer: Tokenizer | None, options: Mapping[str, Any]
) -> Task:
    from latentgym.envs.chains import GENERATOR_OPTIONS, ChainsTask
    from latentgym.envs.maths import MathsTask

    if options.get("source") == "generated":
        if name != ChainsTask.name:
            raise UsageError(f"{name} cannot be generated; leave source out, or name another.")
        if "holdout" in options:
            raise UsageError(NOTHING_HELD)
        return ChainsTask(family, tokenizer, **{k: v for k, v in options.items() if k != "source"})
    if name == ChainsTask.name and (extra := sorted(GENERATOR_OPTIONS & options.keys())):
        raise UsageError(
            f"only generated questions have {' and '.join(extra)}; add source=generated."
        )
    return MathsTask(name, family, tokenizer, **options)


def _maths_takes(name: str, as_text: bool) -> Makers:
    from latentgym.envs.chains import ChainsTask
    from latentgym.envs.maths import MathsTask

    generated: Makers = [(GENERATED, ChainsTask)] if name == ChainsTask.name else []
    return [("", MathsTask), *generated]


def _make_search(
    name: str, family: Family, tokenizer: Tokenizer | None, options: Mapping[str, Any]
) -> Task:
    from latentgym.envs.graphs import GraphTask
    from latentgym.envs.mnns import MNNS
    from latentgym.envs.natural_language import NaturalLanguageTask

    worded = keywords(NaturalLanguageTask) if tokenizer is not None else {}
    words = {key: value for key, value in options.items() if key in worded}
    options = {key: value for key, value in options.items() if key not in worded}
    task = MNNS(family, **options) if name == "MNNS" else GraphTask(name, family, **options)
    return task if tokenizer is None else NaturalLanguageTask(task, family, tokenizer, **words)


def _search_takes(name: str, as_text: bool) -> Makers:
    from latentgym.envs.graphs import GraphTask
    from latentgym.envs.mnns import MNNS
    from latentgym.envs.natural_language import NaturalLanguageTask

    # What is asked in words passes its budgets on to the words.
    worded: Makers = [("", NaturalLanguageTask)] if as_text else []
    return [*worded, ("", MNNS if name == "MNNS" else GraphTask)]


def _make_reasoning_gym(
    name: str, family: Family, tokenizer: Tokenizer | None, options: Mapping[str, Any]
) -> Task:
    from latentgym.envs.reasoning_gym import ReasoningGymTask

    return ReasoningGymTask(name, family, tokenizer, **options)


def _reasoning_gym_takes(name: str, as_text: bool) -> Makers:
    from latentgym.envs.reasoning_gym import ReasoningGymTask

    return [("", ReasoningGymTask)]


make_maths = TaskMaker(_make_maths, _maths_takes)
"""Mathematics; the questions of GSM8KAug may be generated."""

make_search = TaskMaker(_make_search, _search_takes)
"""Search puzzles: in their own symbols, or in words for a language model."""

make_reasoning_gym = TaskMaker(_make_reasoning_gym, _reasoning_gym_takes)
"""Procedural tasks of Reasoning Gym."""
