"""A run as data: one agent, one environment, one model.

The command line fills it in, and whoever acts or learns builds from it what it needs: this process,
or a worker on another machine to which it was sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentgym.agents.base import Agent, agent_class, config_dict
from latentgym.episodes.rng import derive
from latentgym.errors import UsageError
from latentgym.evaluation.answers import KEEP_THOUGHTS
from latentgym.progress import progress_bar
from latentgym.registry import make_vector_env, modules_of, qualified, resolve
from latentgym.system.terminal import say

if TYPE_CHECKING:
    from latentgym.lm import LatentLM
    from latentgym.rollout import Policy

_ONE_THREAD_BELOW = 2_000_000  # parameters
_SMALL = 10_000_000


@dataclass(frozen=True)
class Run:
    """What is run on what.

    Attributes:
        agent: name of the agent, or `module:Class`.
        config: its settings.
        env: id of the environment; `latent/` may be left out. Kept behind its module if it is of
            another package, which a worker then imports.
        env_options: keyword arguments of the environment.
        model: name of the model.
        checkpoint: weights to begin with, or None.
        lora: rank and scale of adapters to train instead of all weights, or None.
        control: what replaces thoughts when acting, or None.
        keep_thoughts: of the tokens of each thought so many are kept with answers, the heaviest.
        seed: of fresh weights, of order and random numbers.
        device, dtype: as `load_model` takes them. What learns has fp32 weights, and its forward
            pass alone is of that type; what only answers is of that type altogether.
        compile: decode with compiled steps (`Engine.compile`).
        load_in_4bit: keep the linear layers in 4 bits, below adapters if it learns (QLoRA).

    Raises:
        UsageError: an unknown agent or environment, or an agent of another family. Making a policy
            raises one too, where the agent's settings do not suit the environment.
    """

    agent: str
    config: Any
    env: str
    model: str
    env_options: Mapping[str, Any] = field(default_factory=dict)
    checkpoint: Path | None = None
    lora: Mapping[str, int] | None = None
    control: str | None = None
    keep_thoughts: int = KEEP_THOUGHTS
    seed: int = 0
    device: str = "auto"
    dtype: str = "auto"
    compile: bool = False
    load_in_4bit: bool = False

    def __post_init__(self) -> None:
        cls = agent_class(self.agent)
        _, task, family = resolve(self.env)
        if family not in cls.families:
            near = ", ".join(f"latent/{task}-{f}" for f in cls.families)
            raise UsageError(
                f"{cls.name} thinks in the {'/'.join(cls.families)} family; use {near}."
            )
        for name in ("num_envs", "model"):
            if name in self.env_options:
                raise UsageError(
                    f"{name} is no option of the environment here, as the run sets it; leave it "
                    "out."
                )
        if self.env_options.get("dynamics") is not None:
            raise UsageError(
                f"{cls.name} has a model of its own, beside which none stands inside the "
                "environment; leave dynamics out."
            )
        object.__setattr__(self, "env", qualified(self.env))
        plain = {k: str(v) if isinstance(v, Path) else v for k, v in self.env_options.items()}
        object.__setattr__(self, "env_options", plain)

    @property
    def agent_name(self) -> str:
        """What the agent calls itself, as records have it."""
        return agent_class(self.agent).name

    @property
    def env_id(self) -> str:
        """The full id of the environment."""
        return resolve(self.env)[0]

    @property
    def model_name(self) -> str:
        """The model's name as records have it, with what a tiny model leaves open."""
        from latentgym.lm.tiny import parse_tiny

        return str(parse_tiny(self.model) or self.model)

    @property
    def max_positions(self) -> int | None:
        """The longest sequence that the model can read, if it has a limit."""
        from latentgym.lm.tiny import TINY_POSITIONS, parse_tiny
        from latentgym.lm.zoo import describe

        return TINY_POSITIONS if parse_tiny(self.model) else describe(self.model).max_positions

    @property
    def stores_adapters(self) -> bool:
        """Whether checkpoints leave out the weights below adapters: `model` gives them again.

        It does not where a run began from weights that were all trained, or drew them at random.
        """
        from latentgym.lm.tiny import parse_tiny
        from latentgym.training.manifest import leaves_weights_out

        if self.lora is None or parse_tiny(self.model) is not None:
            return False
        return self.checkpoint is None or leaves_weights_out(self.checkpoint)

    def make_agent(self) -> Agent[Any]:
        """The agent with its settings."""
        agent = agent_class(self.agent)(self.config)
        agent.keep_thoughts = self.keep_thoughts
        return agent

    def make_env(self, num_envs: int, **more: Any) -> Any:
        """A vector environment; `more` overrides the run's options."""
        from latentgym.lm.tiny import vocabulary_of

        options = {**self.env_options, **more}
        return make_vector_env(self.env_id, num_envs, model=vocabulary_of(self.model), **options)

    def learner(self) -> Policy:
        """The policy that learns, with the weights to begin with.

        Raises:
            UsageError: its weights are in 4 bits, which cannot be trained, and it has no adapters;
                or the agent cannot begin with them (`Agent.check_start`).
        """
        if self.load_in_4bit and self.lora is None:
            raise UsageError(
                "weights in 4 bits cannot be trained, but adapters above them can; add --lora-r."
            )
        policy = self._begun(self._policy(acting=False))
        self.make_agent().check_start(policy)
        return policy

    def actor(self) -> Policy:
        """The policy that answers, with the weights to begin with."""
        policy = self._begun(self._policy(acting=True))
        if self.control is not None:
            from latentgym.heads import ControlHead

            group_size = self.make_agent().samples_per_question()
            policy.head = ControlHead(policy.head, self.control, group_size)
        return policy

    def acting(self, learner: Policy) -> Policy:
        """The policy that answers with what a learner has learnt."""
        return self.make_agent().acting(learner)

    def identity(self) -> dict[str, Any]:
        """What a resumed run must have in common with the run that it goes on with."""
        modules = modules_of(agent_class(self.agent).__module__, self.env_id)
        return {
            "agent": self.agent_name,
            "env": self.env_id,
            "env_options": dict(self.env_options),
            "model": self.model,
            "lora": None if self.lora is None else dict(self.lora),
            "seed": self.seed,
            "config": config_dict(self.config),
            "checkpoint": None if self.checkpoint is None else str(self.checkpoint),
            "dataset_hash": self.make_env(1).unwrapped.task.dataset_hash,
            **({"load_in_4bit": True} if self.load_in_4bit else {}),
            **({"modules": modules} if modules else {}),
        }

    def _policy(self, *, acting: bool) -> Policy:
        import torch

        agent = self.make_agent()
        agent.check(self.make_env(1).unwrapped.task.protocol())
        lm = self._lm(mixed_precision=not acting)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive(self.seed, 5))  # a head's fresh weights
            return agent.policy(lm, acting=acting)

    def _lm(self, *, mixed_precision: bool) -> LatentLM:
        import torch

        from latentgym.lm import load_model

        with progress_bar(f"loading {self.model}", None):
            lm: LatentLM = load_model(
                self.model,
                tokenizer=self.make_env(1).unwrapped.task.tokenizer,
                seed=self.seed,
                device=self.device,
                dtype=self.dtype,
                mixed_precision=mixed_precision,
                load_in_4bit=self.load_in_4bit,
            )
        lm.compiled = self.compile
        if self.lora is not None:
            lm.add_lora(**self.lora, seed=self.seed)
        if lm.n_parameters() < _ONE_THREAD_BELOW:
            # Threads that wait for each other cost a small model more than they bring, and a
            # hundred times more where another program wants the same cores.
            torch.set_num_threads(1)
        return lm

    def _begun(self, policy: Policy) -> Policy:
        if self.checkpoint is not None:
            from latentgym.training import checkpoint

            checkpoint.load_weights(self.checkpoint, policy, self.agent_name)
        return policy


def default_model(name: str) -> str:
    """The model where neither options nor a checkpoint name one, which is said."""
    say(f"model {name}, as there is no --model")
    return name


def rows_at_once(lm: LatentLM) -> int:
    """Rows that decode together: many for a tiny model, few where the cache would grow large."""
    return 512 if lm.n_parameters() < _SMALL else 32
