"""What an evaluation takes from the run that wrote its checkpoint."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from latentgym.agents.base import Agent, agent_class
from latentgym.agents.run import Run
from latentgym.agents.settings import differences, restored
from latentgym.cli.agent_options import Words, of_preset
from latentgym.cli.options import env_model
from latentgym.errors import UsageError
from latentgym.lm import load_model
from latentgym.registry import (
    resolve,
    task_maker,
)
from latentgym.system.terminal import say
from latentgym.text.tokenizers import ByteTokenizer
from latentgym.training.manifest import best_step, env_options_of, find, read_manifest, run_of


def as_trained(cls: type[Agent[Any]], words: Words) -> Any:
    """The agent's settings as its checkpoint has them; those of `--preset` come first.

    Raises:
        UsageError: the checkpoint is another agent's, and `--force` does not say that it may be.
    """
    path, force = words.value("--checkpoint"), "--force" in words.argv
    if force and not path:
        raise UsageError("--force is for the checkpoint of another agent; give --checkpoint too.")
    run = run_of(Path(path)) if path else {}
    trained = run.get("agent")
    if trained not in (None, cls.name) and not force:
        of = f" of {module}" if (module := (run.get("modules") or {}).get("agent")) else ""
        raise UsageError(
            f"{path} was trained with {trained}{of}; evaluate it with {trained}, or give --force "
            f"to let {cls.name} have its weights."
        )
    if trained == cls.name and not cls.trains():  # its settings may name code to import
        raise UsageError(
            f"{path} cannot be trained with {trained}, which needs no training; use another "
            "checkpoint."
        )
    if trained != cls.name or words.value("--preset") is not None or "config" not in run:
        return of_preset(cls, words)
    return restored(cls, run["config"], Path(str(path)))


def _of_answering(cls: type[Agent[Any]], before: Any, now: Any) -> Iterator[tuple[str, Any, Any]]:
    """The settings in which two of an agent's differ, of those that take part in how it answers."""
    from latentgym.agents.effect import idle

    lm = load_model("tiny:gpt2:1x1x8", tokenizer=ByteTokenizer())
    without = idle(cls, now, before, lm, training=False)
    for name, was, value in differences(before, now):
        if name not in without:
            yield name, was, value


def _defaults(run: Run) -> dict[str, Any]:
    """What the options of an evaluation's environment are where nothing says otherwise."""
    _, task, _ = resolve(run.env)
    keywords = getattr(task_maker(task), "keywords", None)
    known = keywords(task, env_model(run.model) is not None) if keywords else {}
    return {name: keyword.default for name, keyword in known.items()}


def tell_step(path: Path | None) -> None:
    """Say which weights of a run those of its folder are, if not those of its end.

    Args:
        path: what `--checkpoint` names; who names a step's own folder knows.
    """
    if path is None or (found := find(path)) == path:
        return
    manifest = read_manifest(found)
    step, steps = manifest["step"], manifest.get("steps")
    if steps is not None and step < steps:
        best = " (the best look)" if best_step(manifest) == step else ""
        say(f"weights of {path}: step {step:,}{best} of {steps:,}")


def announce(run: Run, trained: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Say what comes from a checkpoint's run and would not be so without it, and what was changed.

    Args:
        run: what is evaluated.
        trained: the checkpoint's run.
        given: options of the environment that the user gave.
    """
    tell_step(run.checkpoint)
    taken, changed = [], []
    if run.agent_name == trained.get("agent") and "config" in trained:
        cls = agent_class(run.agent)
        stored = restored(cls, trained["config"], Path(str(run.checkpoint)))
        default = cls.config_class()
        taken += [f"{name} {value}" for name, _, value in _of_answering(cls, default, stored)]
        told = _of_answering(cls, stored, run.config)
        changed += [f"{name} {was} to {now}" for name, was, now in told]
    options = env_options_of(trained, run.env, given)
    usual = _defaults(run)
    taken += [f"{k} {value}" for k, value in options.items() if k not in usual or usual[k] != value]
    changed += [
        f"{name} {options[name]} to {value}" if name in options else f"{name} set to {value}"
        for name, value in run.env_options.items()
        if name != "split" and options.get(name) != value
    ]
    if run.model != trained["model"]:
        changed.append(f"model {trained['model']} to {run.model}")
    if taken:
        say(f"settings of {run.checkpoint}: {', '.join(taken)}")
    if changed:
        say(f"changed for this evaluation: {', '.join(changed)}")
