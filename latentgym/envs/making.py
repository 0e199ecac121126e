"""Batched environments, with or without a model inside."""

from __future__ import annotations

from typing import Any

from latentgym.envs.arguments import Dynamics
from latentgym.envs.dynamics.options import DynamicsOptions
from latentgym.envs.vector import LatentVectorEnv
from latentgym.errors import OptionError
from latentgym.registry import NAMESPACE
from latentgym.system.options.keywords import keywords, unexpected


def make_vec(
    task: str,
    family: str,
    num_envs: int = 1,
    *,
    dynamics: Dynamics | None = None,
    model: str | None = None,
    rows: type[LatentVectorEnv] = LatentVectorEnv,
    **options: Any,
) -> LatentVectorEnv:
    """What `gymnasium.make_vec` calls: a `LatentVectorEnv`, or a `LatentDynamics` around one.

    Args:
        task, family, num_envs: as `LatentVectorEnv` has them.
        dynamics: a model inside, as `LatentDynamics` takes it; None for none.
        model: whose vocabulary and prompts to use; that of `dynamics` by default.
        rows: the class of the environment below.
        options: of the environment and of its dynamics.

    Raises:
        OptionError: neither takes such an argument.
        UsageError: an argument that cannot work.
    """
    env, own = f"{NAMESPACE}/{task}-{family}", keywords(DynamicsOptions)
    inside = {name: options.pop(name) for name in own if name in options}
    if dynamics is None:
        if inside:
            known, name = rows._known(), next(iter(inside))
            elsewhere = {name: "with dynamics="}
            raise OptionError(unexpected(name, known, env, elsewhere))
        return rows(task, family, num_envs, model=model, **options)
    from latentgym.envs.dynamics.loading import of_environment
    from latentgym.envs.dynamics.rows import LatentDynamics

    worded, as_trained = of_environment(dynamics, env, options)
    try:
        envs = rows(task, family, num_envs, model=model or worded, **{**as_trained, **options})
    except OptionError as error:
        if error.unknown is None:
            raise
        wrong, without, _, others = error.unknown
        every = (*without, *own)
        told = OptionError(unexpected(wrong, every, env, others))
        told.unknown = wrong, every, env, others
        raise told from None
    return LatentDynamics(envs, dynamics, **inside)
