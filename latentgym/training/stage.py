"""A stage of training: what one step does to a policy."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
from torch import Tensor

from latentgym.rng import derive
from latentgym.rollout import Policy
from latentgym.training.config import Optimisation

Metrics: TypeAlias = "dict[str, float]"
Update: TypeAlias = "Callable[[Iterable[Tensor]], float]"
"""Back-propagates losses one after the other, takes one optimiser step, tells the gradient norm."""


class Stage(ABC):
    """One way to train: supervised, or by policy gradient.

    A step is a function of (policy, seed, step number) alone: nothing is carried from one step to
    the next, so a run that is resumed at a step goes on as if it had never stopped.

    Attributes:
        policy: what is trained.
    """

    policy: Policy

    @abstractmethod
    def step(self, number: int, update: Update) -> Metrics:
        """Take one training step, calling `update` once per optimiser step; what to log."""


MakeEnv: TypeAlias = "Callable[..., Any]"
"""`make_env(num_envs, **options)`: a vector environment of the id at hand."""


class StageConfig(Protocol):
    """Settings of a stage, as data."""

    def build(self, policy: Policy, make_env: MakeEnv, seed: int) -> Stage:
        """The stage that trains this policy."""
        ...


@dataclass(frozen=True)
class Recipe:
    """How an agent trains, as data that any backend can carry out.

    Attributes:
        stage: what a step does.
        optimisation: how parameters move.
    """

    stage: StageConfig
    optimisation: Optimisation


def batch_indices(n: int, size: int, seed: int, number: int) -> npt.NDArray[np.int64]:
    """The items of batch `number`: epochs of shuffled items, as a function of its arguments.

    Args:
        n: items in all.
        size: of a batch; it may span epochs.
        seed: of the shuffles.
        number: of the batch, from 0.

    Returns:
        int64 (size,).
    """
    positions = np.arange(number * size, (number + 1) * size)
    epochs = positions // n
    out = np.empty(size, dtype=np.int64)
    for epoch in np.unique(epochs):
        order = np.random.default_rng(derive(seed, int(epoch))).permutation(n)
        out[epochs == epoch] = order[positions[epochs == epoch] % n]
    return out
