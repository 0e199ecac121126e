"""Building what a run needs: agent, environment factory, model, policy; and reading it back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latentgym.agents.base import Agent, agent_class
from latentgym.errors import CheckpointError, UsageError
from latentgym.registry import env_ids, make_vector_env

DEFAULT_TINY = "tiny:gpt2:2x2x32"
_ONE_THREAD_BELOW = 2_000_000  # parameters


@dataclass(frozen=True)
class Setting:
    """An agent class that fits an environment, and how to make the environment.

    Attributes:
        agent_class: the agent's class.
        env_id, task, family: of the environment.
        model: name of the model.
        make_env: `make_env(num_envs, **options)`.
    """

    agent_class: type[Agent[Any]]
    env_id: str
    task: str
    family: str
    model: str
    make_env: Callable[..., Any]


def setting(agent: str, env_id: str, model: str, options: dict[str, Any]) -> Setting:
    """Check that agent, environment and model go together.

    Raises:
        UsageError: an unknown name, or an agent of another family.
    """
    cls = agent_class(agent)
    env_id = env_id if "/" in env_id else f"latent/{env_id}"
    known = {known_id: (task, family) for known_id, task, family in env_ids()}
    if env_id not in known:
        make_vector_env(env_id, 1)  # raises with a suggestion
    task, family = known[env_id]
    if family not in cls.families:
        near = ", ".join(f"latent/{task}-{f}" for f in cls.families)
        raise UsageError(f"{agent} thinks in the {'/'.join(cls.families)} family; use {near}.")
    words = None if model.startswith("tiny") else model

    def make_env(num_envs: int, **more: Any) -> Any:
        return make_vector_env(env_id, num_envs, model=words, **{**options, **more})

    return Setting(cls, env_id, task, family, model, make_env)


def load_lm(setting: Setting, env: Any, *, seed: int, device: str, dtype: str) -> Any:
    """The language model of a setting; tiny models take the task's symbols."""
    import torch

    from latentgym.lm import load_model

    lm = load_model(
        setting.model,
        tokenizer=env.unwrapped.task.tokenizer,
        seed=seed,
        device=device,
        dtype=dtype,
    )
    if lm.n_parameters() < _ONE_THREAD_BELOW:
        # Threads that wait for each other cost a small model more than they bring, and a
        # hundred times more where another program wants the same cores.
        torch.set_num_threads(1)
    return lm


def find_checkpoint(path: Path) -> Path:
    """A checkpoint's own folder, from it, from its run, or from the run's `checkpoints`.

    Raises:
        CheckpointError: there is none.
    """
    from latentgym.training import checkpoint

    if (path / "manifest.json").is_file():
        return path
    for root in (path, path / "checkpoints"):
        found = checkpoint.latest(root)
        if found is not None:
            return found
    raise CheckpointError(f"{path} holds no complete checkpoint; give the --out of a training run.")


def checkpoint_model(path: Path) -> str:
    """The model that a checkpoint was trained from."""
    from latentgym.training import checkpoint

    manifest = checkpoint.read_manifest(find_checkpoint(path))
    model = manifest.get("run", {}).get("model")
    if not isinstance(model, str):
        raise CheckpointError(f"{path} does not say its model; give --model.")
    return model


def load_policy_weights(path: Path, policy: Any) -> None:
    """Load a checkpoint's language model, and its head where the policy has the same.

    A checkpoint of one agent may start another, as a supervised chain of words starts a latent
    policy; a head with parameters must then be new.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    folder = find_checkpoint(path)
    try:
        tensors = load_file(str(folder / "policy.safetensors"))
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{folder} is damaged ({error}); use another checkpoint.") from error
    own = policy.state_dict()
    misfits = [k for k, v in tensors.items() if k in own and own[k].shape != v.shape]
    unknown = [k for k in tensors if k.startswith("lm.") and k not in own]
    if misfits or unknown:
        raise CheckpointError(
            f"{folder} is of another model ({(misfits + unknown)[0]} does not fit); give the "
            "--model and the environment it was trained with."
        )
    policy.load_state_dict({k: v for k, v in tensors.items() if k in own}, strict=False)
