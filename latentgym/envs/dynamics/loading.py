"""The model inside an environment, from whatever names it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from latentgym.envs.dynamics.options import DynamicsOptions
from latentgym.envs.task import Task
from latentgym.errors import UsageError, told
from latentgym.lm.tiny import vocabulary_of
from latentgym.training.manifest import env_options_of, is_run, run_of

_LOOKED_AT = 64  # tokens by which vocabularies are compared


def of_environment(
    dynamics: Any, env: str, given: Mapping[str, Any]
) -> tuple[str | None, dict[str, Any]]:
    """The `model` of an environment with this model inside, and its options where none are given.

    Args:
        dynamics: as `LatentDynamics` takes it.
        env: id of the environment.
        given: options that are given for it.

    Returns:
        The model whose vocabulary and prompts the task has, None for its own symbols; and the
        options that a run was trained with on the same task.
    """
    if isinstance(dynamics, str | Path) and is_run(Path(dynamics)):
        run = run_of(Path(dynamics))
        return vocabulary_of(run["model"]), env_options_of(run, env, given)
    if isinstance(dynamics, str | Path):
        return vocabulary_of(str(dynamics)), {}
    lm = getattr(dynamics, "lm", dynamics)
    return vocabulary_of(str(getattr(lm, "name", "tiny"))), {}


def as_model(given: Any, task: Task, o: DynamicsOptions) -> tuple[Any, tuple[int, ...]]:
    """A `LatentLM`, and the prompt suffix that belongs to it.

    Raises:
        UsageError: it is no model, or a run whose method reads a suffix of its own.
        CheckpointError: a damaged run.
    """
    from latentgym.lm import LatentLM
    from latentgym.rollout import Policy

    if isinstance(given, Policy):
        return given.lm, given.prompt_suffix
    if isinstance(given, LatentLM):
        return given, ()
    if not isinstance(given, str | Path):
        raise UsageError(
            f"dynamics is the name of a model, the folder of a training run, a LatentLM or a "
            f"Policy, not {told(given)}."
        )
    if is_run(Path(given)):
        return _of_run(Path(given), task, o), ()
    return _load(str(given), task, o), ()


def _load(name: str, task: Task, o: DynamicsOptions, seed: int = 0) -> Any:
    from latentgym.lm import load_model

    return load_model(name, tokenizer=task.tokenizer, seed=seed, device=o.device, dtype=o.dtype)


def _of_run(folder: Path, task: Task, o: DynamicsOptions) -> Any:
    from latentgym.heads import TokenHead
    from latentgym.rollout import Policy
    from latentgym.training import checkpoint

    run = run_of(folder)
    if (run.get("config") or {}).get("prompt_suffix"):
        raise UsageError(
            f"{folder} was trained with a prompt suffix of its method, which its weights do not "
            "tell; give LatentDynamics its policy (latentgym.agents.run.Run(...).actor())."
        )
    lm = _load(run["model"], task, o, run.get("seed", 0))
    lora: Mapping[str, int] | None = run.get("lora")
    if lora is not None:
        lm.add_lora(**lora)
    checkpoint.load_weights(folder, Policy(lm, TokenHead()))
    return lm


def check_vocabulary(lm: Any, task: Task) -> None:
    """Raise `UsageError` unless the model speaks the task's tokens."""
    own, asked = lm.tokenizer, task.tokenizer
    size = asked.vocab_size
    some = range(0, size, max(1, size // _LOOKED_AT))
    same = own is asked or (
        own.vocab_size == size and all(own.decode([i]) == asked.decode([i]) for i in some)
    )
    if lm.vocab_size != size or not same:
        raise UsageError(
            f"the model {lm.name!r} has {lm.vocab_size} tokens, but {task.name} is asked in "
            f"{size} of {asked.name}; make the environment with model={lm.name!r}, or choose the "
            "model that it was made with."
        )
