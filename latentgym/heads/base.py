"""What a policy head is.

A method is a policy head: given the model's last hidden state and logits, it says what is thought
at this step (`sample`), what the model reads next (`embed`), and how likely the thought was
(`log_prob`). Nothing else in the library needs to know which method it is.

Legend: ... any leading shape (rows, or rows and steps), V vocabulary, D width, P prompt positions.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import gymnasium as gym
import torch
from torch import Tensor, nn

from latentgym.episodes.rng import CounterRNG
from latentgym.episodes.spaces import family
from latentgym.errors import UsageError

Action = dict[str, Tensor]
"""One thought per row: named tensors with the same leading shape.

It is all that is stored of a thought, so it must be enough to embed it and to score it again.
`token`, int64 of shape (...,), is always there: the id by which the thought is read.
"""


@dataclass
class Readout:
    """What a head sees where it acts.

    Attributes:
        logits: fp32, (..., V).
        hidden: last hidden state, (..., D).
        table_VD: the input embedding table.
        memory: last hidden states of the prompt, (..., P, D), for heads that declare
            `needs_memory`; else None.
        memory_mask: which of them are real, bool (..., P).
    """

    logits: Tensor
    hidden: Tensor
    table_VD: Tensor
    memory: Tensor | None = None
    memory_mask: Tensor | None = None


class PolicyHead(nn.Module, ABC):
    """Base of all heads.

    A head that owns parameters is an ordinary module, in fp32: optimiser, checkpoints and
    distributed workers find them by themselves. Write the three methods for any leading shape: the
    rollout calls them with rows, the replay with all acted positions at once.
    """

    family: ClassVar[str]
    """Action family: `token`, `hybrid` or `continuous`."""

    needs_memory: ClassVar[bool] = False
    """Whether the head reads the prompt's hidden states."""

    controlled: ClassVar[str | None] = None
    """The tensor of an action that controls replace; None for all that the model reads of it."""

    @abstractmethod
    def sample(self, read: Readout, rng: CounterRNG) -> Action:
        """Think one step. Randomness comes from `rng` only."""

    @abstractmethod
    def embed(self, action: Action, table_VD: Tensor) -> Tensor:
        """What the model reads next, (..., D). Differentiable in parameters and table."""

    @abstractmethod
    def log_prob(self, action: Action, read: Readout) -> Tensor:
        """Log-probability (or log-density) of the thought, fp32 (...,). Differentiable.

        A head that thinks without randomness answers zeros.
        """

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> PolicyHead:
        """Goes where it is sent, but stays in fp32, whatever precision the model is put in.

        Densities of many elements and gates near 1 cannot be told from each other in bf16.
        """

        def applied(x: Tensor) -> Tensor:
            y = fn(x)
            narrow = y.is_floating_point() and torch.finfo(y.dtype).bits < 32
            return x.to(y.device, torch.float32) if narrow else y

        super()._apply(applied, recurse)  # type: ignore[no-untyped-call]
        return self

    def action_space(self, vocab_size: int, hidden_size: int, support: int = 1) -> gym.Space[Any]:
        """The Gymnasium space that the head's thoughts live in."""
        return family(self.family).space(vocab_size, hidden_size, support)

    def flops(self, vocab_size: int, hidden_size: int) -> tuple[float, float]:
        """What a thought costs beside the model's own pass, in floating-point operations.

        Two per weight, as `latentgym.evaluation.accounting` counts; nothing unless a head says so.

        Returns:
            Of one thought; and of one thought for each position of the prompt, for heads that read
            the prompt's hidden states.
        """
        return 0.0, 0.0

    def reference(self) -> PolicyHead:
        """What the policy that a run is held near thinks with: this head as it is now, frozen."""
        return copy.deepcopy(self).requires_grad_(False)

    def heaviest(self, action: Action, read: Readout, most: int) -> tuple[Tensor, Tensor] | None:
        """The tokens that a thought mixes, the heaviest first, for whoever looks at it.

        Args:
            action: what `sample` gave.
            read: what it was given.
            most: so many tokens at most.

        Returns:
            Ids, int64 (..., k), and their weights in the whole mixture, which add up to one over
            all of it, fp32 (..., k), k <= `most`; a weight of 0 is no part of it. None, as by
            default, for a head whose thoughts mix no tokens.
        """
        return None

    def statistics(self, action: Action, table_VD: Tensor) -> dict[str, Tensor]:
        """Numbers to log of some thoughts by name, each of their leading shape; none by default."""
        return {}

    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        """Optimiser groups of the head's own parameters; override for several learning rates.

        A group without a `weight_decay` decays as the model does: matrices do, vectors do not.
        """
        parameters = [p for p in self.parameters() if p.requires_grad]
        return [{"params": parameters, "lr": lr}] if parameters else []


@runtime_checkable
class VectorHead(Protocol):
    """A head that predicts the next input embedding as a normal distribution over vectors.

    Stages that regress vectors (CoLaR's compression) train any such head.

    Attributes:
        deterministic: it predicts the mean alone.
    """

    deterministic: bool

    def distribution(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and logarithm of the standard deviation of the next z, both (..., D)."""

    def scale_of(self, table_VD: Tensor) -> Tensor:
        """What z is multiplied by to be an embedding, a scalar tensor."""


def matrix_flops(module: nn.Module) -> float:
    """Operations of one vector on its way through all matrices of a module."""
    return 2.0 * sum(p.numel() for p in module.parameters() if p.dim() > 1)


def shaped(x: Tensor, shape: tuple[int, ...], head: PolicyHead, method: str) -> Tensor:
    """What a method of a head gave, if it is of the shape that is needed.

    Another one might be broadcast, or its first numbers taken, and the policy trained on them.

    Args:
        x: what it gave.
        shape: what is needed.
        head: whose method it is.
        method: its name.

    Raises:
        UsageError: it is of another shape.
    """
    if x.shape != shape:
        raise UsageError(
            f"{type(head).__name__}.{method} gives a tensor of shape {tuple(x.shape)}, but the "
            f"{shape[0]} actions it was asked for need {shape}; mend the head."
        )
    return x
