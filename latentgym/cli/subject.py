"""What an analysis looks at: a trained run, a stored evaluation, or a model as it is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from latentgym.agents.base import agent_class, preset
from latentgym.agents.run import Run
from latentgym.agents.settings import restored
from latentgym.cli.as_trained import env_as_trained
from latentgym.errors import UsageError
from latentgym.evaluation.results import RESULT, load_result
from latentgym.registry import recorded
from latentgym.training.manifest import find, run_of


def subject(
    source: str,
    env: str | None,
    agent: str | None,
    preset_name: str | None,
    options: Mapping[str, Any],
    **more: Any,
) -> Run:
    """What to run on what, so that the rollouts are those of a run, an evaluation or a model.

    Args:
        source: folder of a training run or one of its checkpoints, of a result that eval wrote, or
            name of a model.
        env: id of the environment; None for the run's own.
        agent: that thinks; None for the run's own, or `cot` for a model.
        preset_name: named settings of the agent, with a model; None for the run's own.
        options: of the environment, over the run's own.
        more: further fields of `Run`.

    Raises:
        UsageError: a model without an environment, or settings of a run that has its own.
    """
    folder = Path(source)
    if not folder.is_dir():
        return _of_model(source, env, agent, preset_name, options, more)
    if (folder / "config.json").is_file() and not (folder / RESULT).exists():
        return _of_model(source, env, agent, preset_name, options, more)
    if agent is not None or preset_name is not None:
        raise UsageError(
            f"{folder} has an agent and settings of its own; leave --agent and --preset out, or "
            "give a model."
        )
    if (folder / RESULT).is_file():
        return _of_result(folder, env, options, more)
    trained = run_of(folder)
    if not trained.get("agent"):
        raise UsageError(f"{folder} does not say which agent it trained; give a run of train.")
    cls = agent_class(trained["agent"])
    own = env or recorded(trained["env"], trained.get("modules"), folder)
    return Run(
        agent=trained["agent"],
        config=restored(cls, trained["config"], folder),
        env=own,
        env_options={**env_as_trained(trained, own), **options},
        model=trained["model"],
        checkpoint=find(folder),
        lora=trained.get("lora"),
        **more,
    )


def _of_model(
    model: str,
    env: str | None,
    agent: str | None,
    preset_name: str | None,
    options: Mapping[str, Any],
    more: Mapping[str, Any],
) -> Run:
    if env is None:
        raise UsageError(
            f"{model} is taken for a model, which needs something to think about; name an "
            "environment behind it, such as latent/GSM8K-token, or give the folder of a run."
        )
    cls = agent_class(agent or "cot")
    return Run(cls.name, preset(cls, preset_name), env, model, options, **more)


def _of_result(
    folder: Path, env: str | None, options: Mapping[str, Any], more: Mapping[str, Any]
) -> Run:
    result = load_result(folder)
    cls = agent_class(result.agent)
    own = env or recorded(result.env, result.modules, folder / RESULT)
    checkpoint = None if result.checkpoint is None else Path(result.checkpoint)
    known = result.config.get("env_options", {}) if env is None else {}
    return Run(
        agent=result.agent,
        config=restored(cls, result.config.get("agent", {}), folder),
        env=own,
        env_options={**known, **options},
        model=result.model,
        checkpoint=checkpoint,
        lora=run_of(checkpoint).get("lora"),
        control=result.control,
        **more,
    )
