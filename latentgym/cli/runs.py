"""Building what a run needs: agent, environment factory, model, policy; and reading it back."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from latentgym.agents.base import Agent, agent_class, preset
from latentgym.cli.options import parse
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


def load_lm(
    setting: Setting,
    env: Any,
    *,
    seed: int,
    device: str,
    dtype: str,
    lora: dict[str, int] | None = None,
) -> Any:
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
    if lora is not None:
        lm.add_lora(**lora)
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


def checkpoint_run(path: Path | None) -> dict[str, Any]:
    """What a checkpoint says of the run that wrote it: its model, adapters, settings."""
    if path is None:
        return {}
    from latentgym.training import checkpoint

    run = checkpoint.read_manifest(find_checkpoint(path)).get("run")
    if not isinstance(run, dict) or not isinstance(run.get("model"), str):
        raise CheckpointError(f"{path} does not say its model; train again.")
    return run


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


def rows_at_once(lm: Any) -> int:
    """Rows that decode together: many for a tiny model, few where the cache would grow large."""
    return 512 if lm.n_parameters() < 10_000_000 else 32


def parse_with_agent(kind: Any, argv: Sequence[str], prog: str, about: str) -> tuple[Any, Any]:
    """Parse the options of a command together with those of the agent that it names.

    The agent and its preset decide which options there are and what their defaults are, so they
    are looked up first.
    """
    positional = [word for word in argv if not word.startswith("-")]
    if not positional:
        return parse(kind, argv, prog, about), None  # prints usage, or help
    cls = agent_class(positional[0])
    name = None
    for i, word in enumerate(argv):
        if word == "--preset" and i + 1 < len(argv):
            name = argv[i + 1]
        elif word.startswith("--preset="):
            name = word.partition("=")[2]
    default = preset(cls, name)
    both = dataclasses.make_dataclass(
        "Options",
        [
            ("run", Annotated[kind, tyro.conf.arg(name="")]),
            ("config", Annotated[cls.config_class, tyro.conf.arg(name="")], field(default=default)),
        ],
        frozen=True,
    )
    parsed = parse(both, argv, prog, about)
    return parsed.run, parsed.config
