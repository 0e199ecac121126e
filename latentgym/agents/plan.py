"""What is trained, as data: an agent on an environment, how long, and what is kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from latentgym.agents.run import Run
from latentgym.agents.train_options import TrainOptions

if TYPE_CHECKING:
    from latentgym.training.rewards import Rewards


@dataclass(frozen=True)
class Plan:
    """What a backend carries out.

    Attributes:
        run: an agent, an environment and a model, see `prepared`.
        options: how long, and what is kept.
        env_options: of the environment, as they were given; without a split.
        default: the agent's settings before those that were given.
        command: that trains it, from the modules that a record names.
        rewards: callables of the user's own, in the place of those that the settings name.
    """

    run: Run
    options: TrainOptions
    env_options: Mapping[str, Any]
    default: Any
    command: Callable[[Mapping[str, str]], str]
    rewards: Rewards | None = None
    identity: dict[str, Any] = field(init=False)
    """What a resumed run must have in common with the one that it goes on with."""

    def __post_init__(self) -> None:
        identity = self.run.identity()
        if self.options.skip_long:
            identity["skip_long"] = True
        if self.rewards is not None:
            identity["rewards"] = self.rewards.identity()
        object.__setattr__(self, "identity", identity)
