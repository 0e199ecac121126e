"""What answers again as it did: a trained run, a stored evaluation, or a model as it is."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from latentgym.agents.base import Agent, agent_class, preset
from latentgym.agents.run import Run
from latentgym.agents.settings import restored
from latentgym.errors import CheckpointError, UsageError
from latentgym.evaluation.results import RESULT, load_result
from latentgym.registry import AGENTS, recorded, recorded_options
from latentgym.system.nearby import no_folder, runs_in
from latentgym.system.options.keywords import check, keywords
from latentgym.training.manifest import env_options_of, find, run_of

_OF_THE_RUN = ("agent", "config", "env", "env_options", "model", "checkpoint", "lora")
_TEST = {"split": "test"}  # where neither a result nor the user says


def stored_run(
    source: str | Path,
    env: str | None = None,
    *,
    agent: str | None = None,
    preset_name: str | None = None,
    options: Mapping[str, Any] | None = None,
    **more: Any,
) -> Run:
    """The run behind a folder, with the settings that it was trained or evaluated with.

    Args:
        source: folder of a training run or one of its checkpoints, of a result that eval wrote, or
            name of a model.
        env: id of the environment; None for the run's own.
        agent: that thinks; None for the run's own, or `cot` for a model. A run's own is named by
            `module:Class` where its name is not known.
        preset_name: named settings of the agent, with a model; None for the run's own.
        options: of the environment, over the run's own; the test split unless they say another.
        more: further fields of `Run`, but for those that say what was trained.

    Raises:
        UsageError: a model without an environment, another agent than a run's, or settings of a run
            that has its own.
        CheckpointError: the folder holds none that can be used.
    """
    known = {k: v for k, v in keywords(Run).items() if k not in _OF_THE_RUN}
    known |= keywords(stored_run, places=True)
    named = {"source": source, "env": env, "agent": agent, "options": options}
    named["preset_name"] = preset_name
    check({**named, **more}, known, "what is loaded")
    options = options or {}
    folder = Path(source)
    model = (folder / "config.json").is_file() or not folder.is_dir()
    if model and not (folder / RESULT).exists():
        return _of_model(str(source), env, agent, preset_name, options, more)
    if preset_name is not None:
        raise UsageError(f"{folder} has settings of its own; leave --preset out, or give a model.")
    try:
        checkpoint = find(folder)  # a run has a result too, but knows more
    except CheckpointError:
        if not (folder / RESULT).is_file():
            raise
        return _of_result(folder, env, agent, options, more)
    trained = run_of(checkpoint)
    if not trained.get("agent"):
        raise UsageError(f"{folder} does not say which agent it trained; give a run of train.")
    cls = _own(agent, trained["agent"], trained.get("modules"), folder)
    own = env or recorded(trained["env"], trained.get("modules"), folder)
    return Run(
        agent=agent or _name(cls),
        config=restored(cls, trained["config"], folder),
        env=own,
        env_options={**env_options_of(trained, own, options), **_TEST, **options},
        model=trained["model"],
        checkpoint=checkpoint,
        lora=trained.get("lora"),
        **{"load_in_4bit": trained.get("load_in_4bit", False), **more},
    )


def _name(cls: type[Agent[Any]]) -> str:
    """By what a run finds the class again."""
    return cls.name if cls.name in AGENTS else f"{cls.__module__}:{cls.__name__}"


def _own(
    named: str | None, stored: str, modules: Mapping[str, str] | None, folder: Path
) -> type[Agent[Any]]:
    """The class of the agent that a folder is of, which may be of another package.

    Raises:
        UsageError: it is not known by its name, or another agent is named.
    """
    if named is None and stored not in AGENTS and (module := (modules or {}).get("agent")):
        # A record imports nothing; what the user has imported may be looked through.
        there = vars(sys.modules[module]).values() if module in sys.modules else ()
        agents = (each for each in there if isinstance(each, type) and issubclass(each, Agent))
        for cls in agents:
            if getattr(cls, "name", None) == stored:
                return cls
        raise UsageError(
            f"{folder} is of {stored}, an agent of the module {module}; add --module {module}, or "
            "in Python import it first."
        )
    cls = agent_class(named or stored)
    if cls.name != stored:
        raise UsageError(f"{folder} is of {stored}, not {cls.name}; leave --agent out.")
    return cls


def _of_model(
    model: str,
    env: str | None,
    agent: str | None,
    preset_name: str | None,
    options: Mapping[str, Any],
    more: Mapping[str, Any],
) -> Run:
    if env is None:
        path = Path(model)
        if path.is_file() or (len(path.parts) > 1 and not path.is_dir() and runs_in(path.parent)):
            raise UsageError(f"{no_folder(path)}; give the folder of a run.")
        not_there = "" if path.is_dir() else f"there is no folder {model}, so "
        raise UsageError(
            f"{not_there}{model} is taken for a model, which needs something to think about; name "
            "an environment behind it, such as latent/GSM8K-token, or give the folder of a run."
        )
    cls = agent_class(agent or "cot")
    return Run(
        agent or cls.name, preset(cls, preset_name), env, model, {**_TEST, **options}, **more
    )


def _of_result(
    folder: Path,
    env: str | None,
    agent: str | None,
    options: Mapping[str, Any],
    more: Mapping[str, Any],
) -> Run:
    result = load_result(folder)
    cls = _own(agent, result.agent, result.modules, folder)
    own = env or recorded(result.env, result.modules, folder / RESULT)
    checkpoint = None if result.checkpoint is None else Path(result.checkpoint)
    if checkpoint is not None and not checkpoint.exists():
        raise UsageError(
            f"the checkpoint {checkpoint} of {folder} is not there; go to the folder from which it "
            "was evaluated, or give the run itself."
        )
    known = result.config.get("env_options", {}) if env is None else {}
    known = recorded_options({k: v for k, v in known.items() if k not in options}, folder / RESULT)
    return Run(
        agent=agent or _name(cls),
        config=restored(cls, result.config.get("agent", {}), folder),
        env=own,
        env_options={**(_TEST if env else {}), **known, **options},
        model=result.model,
        checkpoint=checkpoint,
        lora=run_of(checkpoint).get("lora"),
        **{
            "control": result.control,
            "load_in_4bit": result.config.get("load_in_4bit", False),
            **more,
        },
    )
