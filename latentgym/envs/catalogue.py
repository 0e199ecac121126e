"""Which tasks there are, and how they are made. Names are data; classes load when they are used."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

from latentgym.envs.task import Task
from latentgym.errors import UsageError, did_you_mean
from latentgym.registry import TASKS
from latentgym.spaces import Family
from latentgym.tokenizers import Tokenizer

_DEFAULT_WIDTH = 64

Factory = Callable[[str, Family, "Tokenizer | None", Mapping[str, Any]], Task]


def make_task(
    name: str, family: Family, model: str | None, options: Mapping[str, Any]
) -> tuple[Task, int]:
    """A task by name, and the width of its model's latents.

    Args:
        name: as in the environment ids.
        family: action family.
        model: whose vocabulary and prompts to use; None for the task's own small tokenizer.
        options: keyword arguments of the task.

    Raises:
        UsageError: no such task, model or option.
    """
    entry = TASKS.get(name)
    if entry is None:
        raise UsageError(f"no task {name!r}; {did_you_mean(name, TASKS)}")
    tokenizer, width = None, _DEFAULT_WIDTH
    if model is not None:
        from latentgym.lm.zoo import describe, parse_tiny

        spec = parse_tiny(model)
        if spec is None:
            info = describe(model)
            tokenizer, width = info.tokenizer, info.hidden_size
        else:
            width = spec.width  # tiny models speak the task's own symbols
    module, attribute = entry.split(":")
    factory: Factory = getattr(importlib.import_module(module), attribute)
    try:
        return factory(name, family, tokenizer, options), width
    except TypeError as error:
        if "unexpected keyword argument" not in str(error):
            raise
        raise UsageError(f"{name} does not know this option: {error}.") from error


def make_maths(
    name: str, family: Family, tokenizer: Tokenizer | None, options: Mapping[str, Any]
) -> Task:
    """A mathematics task; those of GSM8KAug may be generated."""
    from latentgym.envs.chains import GENERATOR_OPTIONS, ChainsTask
    from latentgym.envs.maths import MathsTask

    if options.get("source") == "generated":
        if name != ChainsTask.name:
            raise UsageError(f"{name} cannot be generated; leave source out, or name another.")
        return ChainsTask(family, tokenizer, **{k: v for k, v in options.items() if k != "source"})
    if name == ChainsTask.name and (extra := sorted(GENERATOR_OPTIONS & options.keys())):
        raise UsageError(
            f"only generated questions have {' and '.join(extra)}; add source=generated."
        )
    return MathsTask(name, family, tokenizer, **options)


def make_search(
    name: str, family: Family, tokenizer: Tokenizer | None, options: Mapping[str, Any]
) -> Task:
    """A search puzzle: in its own symbols, or in words for a language model."""
    from latentgym.envs.search import MNNS, GraphTask
    from latentgym.envs.words import WordsTask

    words = {}
    if tokenizer is not None:
        known = ("format", "system", "think", "answer", "exact_thoughts", "force_answer")
        words = {key: value for key, value in options.items() if key in known}
        options = {key: value for key, value in options.items() if key not in known}
    task = MNNS(family, **options) if name == "MNNS" else GraphTask(name, family, **options)
    return task if tokenizer is None else WordsTask(task, family, tokenizer, **words)


def make_reasoning_gym(
    name: str, family: Family, tokenizer: Tokenizer | None, options: Mapping[str, Any]
) -> Task:
    """A procedural task of Reasoning Gym."""
    from latentgym.envs.reasoning_gym import ReasoningGymTask

    return ReasoningGymTask(name, family, tokenizer, **options)
