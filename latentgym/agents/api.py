"""What the command line does, in Python: `latentgym.load` and `latentgym.evaluate`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentgym.agents.base import config_dict
from latentgym.agents.lineage import trained_by
from latentgym.agents.run import Run, rows_at_once
from latentgym.agents.stored import stored_run
from latentgym.errors import UsageError
from latentgym.evaluation.evaluate import Evaluation, questions_of
from latentgym.evaluation.evaluate import evaluate as evaluate_policy
from latentgym.evaluation.results import RESULT
from latentgym.storage import writable
from latentgym.system.lock import in_use
from latentgym.training.manifest import run_of

if TYPE_CHECKING:
    from latentgym.rollout import Policy


def load(source: str | Path, env: str | None = None, **more: Any) -> Policy:
    """The policy of a run, with the settings that it was trained with, as it answers.

    Args:
        source: folder of a training run, of one of its checkpoints, or of a result; or name of a
            model, which needs an `env`.
        env: id of the environment; None for the run's own.
        more: see `latentgym.agents.stored.stored_run`: `agent`, `preset_name`, `options` of the
            environment, `device`, `dtype`, `control`.

    Raises:
        UsageError, CheckpointError: there is no such run, or it cannot be used so.
    """
    return stored_run(source, env, **more).actor()


def evaluate(
    source: str | Path,
    env: str | None = None,
    *,
    split: str = "test",
    limit: int | None = None,
    index: Sequence[int] = (),
    seeds: Sequence[int] = (0,),
    batch: int = 0,
    out: str | Path | None = None,
    options: Mapping[str, Any] | None = None,
    **more: Any,
) -> Evaluation:
    """Answer the questions of a split and grade the answers, as `latentgym eval` does.

    Args:
        source, env: as in `load`.
        split: of the environment.
        limit: the first so many questions; None for all.
        index: only the questions of these numbers.
        seeds: each answers all questions once.
        batch: rows at once; 0 chooses by the size of the model.
        out: folder for the record; None keeps it in memory.
        options: further options of the environment.
        more: as in `load`.

    Returns:
        Result (accuracy, interval, costs, settings) and answers.

    Raises:
        UsageError, CheckpointError: as `load`; no such split or questions; or the folder holds a
            result already.
    """
    folder = None if out is None else Path(out)
    if folder is not None and (folder / RESULT).exists():
        raise UsageError(f"{folder} holds a result already; choose another folder.")
    run = stored_run(source, env, options={**(options or {}), "split": split}, **more)
    questions_of(run.make_env(1).unwrapped.task, limit, index)
    settings = answering_settings(run, seeds, limit, index, folder)
    with in_use(folder):
        policy = run.actor()
        rows = batch or rows_at_once(policy.lm)
        evaluation = evaluate_policy(
            run.make_agent(), policy, run.env_id, run.make_env(rows), **settings
        )
        if folder is not None:
            with writable(folder):
                evaluation.save(folder)
    return evaluation


def answering_settings(
    run: Run,
    seeds: Sequence[int],
    limit: int | None,
    index: Sequence[int],
    folder: Path | None,
) -> dict[str, Any]:
    """What an evaluation is told of a run, for its record and for whoever resumes it.

    Args:
        run: that answers.
        seeds, limit, index: which questions, see `evaluate`.
        folder: of the record.
    """
    trained = run_of(run.checkpoint)
    return {
        "seeds": list(seeds),
        "limit": limit,
        "index": list(index),
        "checkpoint": None if run.checkpoint is None else str(run.checkpoint),
        "control": run.control,
        "config": {"agent": config_dict(run.config), "env_options": dict(run.env_options)},
        "journal": folder,
        "trained": trained_by(trained, run.checkpoint) if trained else None,
    }
