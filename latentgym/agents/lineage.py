"""What the weights of a checkpoint were trained on: in its run, and in those it began from."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from latentgym.errors import LatentGymError, Notice, UsageError
from latentgym.evaluation.overlap import Trained
from latentgym.lm.tiny import vocabulary_of
from latentgym.registry import make_vector_env, recorded, recorded_options
from latentgym.training.manifest import run_of

_MOST_RUNS = 16  # one started from the other


def trained_by(run: Mapping[str, Any], path: Path | None) -> Trained:
    """What a run was trained on, and before it the run that it began from, and so on.

    What cannot be had any more is said.

    Args:
        run: what its checkpoint says of it.
        path: of the checkpoint.
    """
    tasks: list[Any] = []
    shares: list[float] = []
    try:
        while run:
            if len(tasks) == _MOST_RUNS:
                raise UsageError(f"it is the last of more than {_MOST_RUNS} runs.")
            words = vocabulary_of(run["model"])
            options = recorded_options(run["env_options"], path)
            env = recorded(run["env"], run.get("modules"), path)
            tasks.append(make_vector_env(env, 1, model=words, **options).unwrapped.task)
            shares.append(run.get("held_out") or 0.0)
            parent = run.get("checkpoint")
            path = None if parent is None else Path(parent)
            run = run_of(path)
    except LatentGymError as error:
        told = f"not all that this checkpoint was trained on is known: {error}"
        warnings.warn(told, Notice, stacklevel=2)
        return Trained(tuple(tasks), whole=False, shares=tuple(shares))
    return Trained(tuple(tasks), shares=tuple(shares))
