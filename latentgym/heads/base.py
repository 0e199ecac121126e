"""What a policy head is.

A method is a policy head: given the model's last hidden state and logits, it says what is thought
at this step (`sample`), what the model reads next (`embed`), and how likely the thought was
(`log_prob`). Nothing else in the library needs to know which method it is.

A head may also keep a state from step to step (`initial_state`), choose at each step that a plain
token is read in place of its latent (`Action`), and make a thought of several parts, each with a
ratio of its own in policy gradients (`part_weights`): sub-tokens, a mode and a token, a latent and
the decision to stop.

Legend: ... any leading shape (rows, or rows and steps), V vocabulary, D width, P prompt positions,
J parts of a thought.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, runtime_checkable

import gymnasium as gym
import torch
from torch import Tensor, nn

from latentgym.episodes.spaces import family
from latentgym.errors import UsageError, told
from latentgym.heads.distributions import entropy, masked
from latentgym.heads.rng import CounterRNG

Action = dict[str, Tensor]
"""One thought per row: named tensors with the same leading shape.

It is all that is stored of a thought, so it must be enough to embed it and to score it again.
`token`, int64 of shape (...,), is always there: the id by which the thought is read. `plain`, bool
of shape (...,), may be: where it is True the model reads the embedding of that token, not what
`embed` makes of the thought. Such steps are recorded as tokens, so their share of latents is 0.
"""

State = dict[str, Tensor]
"""What a head keeps of each row from step to step: named tensors of shape (rows, ...)."""


@dataclass
class Readout:
    """What a head sees where it acts.

    Attributes:
        logits: fp32, (..., V).
        hidden: last hidden state, (..., D).
        table_VD: the input embedding table.
        memory: what the head remembers of the prompt, (..., P, E), for heads that declare
            `needs_memory`; else None. See `PolicyHead.remember`.
        memory_mask: which of them are real, bool (..., P).
        state: of the head, as it was before this step, where it keeps one; only in decoding.
    """

    logits: Tensor
    hidden: Tensor
    table_VD: Tensor
    memory: Tensor | None = None
    memory_mask: Tensor | None = None
    state: State = field(default_factory=dict)


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

    controlled: str | None = None
    """The tensor of an action that controls replace; None for all that the model reads of it."""

    part_weights: tuple[float, ...] = (1.0,)
    """Weight of each of the J parts of a thought in loss and divergence."""

    deterministic: bool = False
    """Whether nothing is drawn at random. Such thoughts are no actions: they take no part in
    losses, ratios and entropies."""

    @abstractmethod
    def sample(self, read: Readout, rng: CounterRNG) -> Action:
        """Think one step. Randomness comes from `rng` only.

        A head with a state returns what that is now beside the action, see `initial_state`.
        """

    def remember(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """What `Readout.memory` shall be, made once of a prompt for all its rows and steps.

        Only of heads that declare `needs_memory`; by default the hidden states as they are.

        Args:
            hidden: last hidden states of the prompt, (..., P, D).
            mask: which of them are real, bool (..., P). What stands at the others has no meaning.

        Returns:
            (..., P, E), differentiable.
        """
        return hidden

    @abstractmethod
    def embed(self, action: Action, table_VD: Tensor) -> Tensor:
        """What the model reads next, (..., D). Differentiable in parameters and table."""

    @abstractmethod
    def log_prob(self, action: Action, read: Readout) -> Tensor:
        """Log-probability (or log-density) of the thought, fp32 (...,). Differentiable.

        Of each of its parts, (..., J), where there are several. What is needed of a state must
        stand in the action: replay has none. A head that thinks without randomness answers zeros.
        """

    def entropy(self, action: Action, read: Readout) -> Tensor:
        """Entropy in nats of what the thought was drawn from, fp32 (...,). Differentiable.

        By default that of the next-token distribution. It is logged, and raised by the entropy
        bonus; where nothing can raise the thought's own, as with noise of a fixed size, a head
        gives what is worth logging, detached.
        """
        return entropy(read.logits)

    def drawn(self, action: Action) -> Tensor:
        """Which parts of thoughts were drawn at random, bool (..., J); by default all or none.

        A part that was not takes no part in losses; a thought of which none was is no action.
        """
        shape = (*action["token"].shape, len(self.part_weights))
        return action["token"].new_full(shape, not self.deterministic, dtype=torch.bool)

    def initial_state(self, rows: int, device: torch.device) -> State:
        """What is kept of rows that have not thought yet; by default nothing.

        `sample` finds it in `read.state` and returns it as it is after the step, under the same
        names beside the action. The engine takes it over for the rows that think, and keeps it in
        step with them where others are dropped; records do not have it.
        """
        return {}

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

    def remember_flops(self, hidden_size: int) -> float:
        """What `remember` costs for one position of a prompt, counted as in `flops`."""
        return 0.0

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

    _measured = False

    def measured(self, number: Tensor, measure: Callable[[], Tensor]) -> Tensor:
        """A buffer that is NaN until it is needed, then measured once, kept and saved.

        Args:
            number: the buffer, a scalar; a head has one at most.
            measure: gives its value.
        """
        if not self._measured:  # looked at once, as it waits for the device
            if bool(number.isnan()):
                with torch.no_grad():
                    number.copy_(measure())
            self._measured = True
        return number

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


def rms(x: Tensor) -> Tensor:
    """Root mean square of all numbers, fp32, a scalar tensor."""
    return x.float().square().mean().sqrt()


def part_log_probs(head: PolicyHead, action: Action, read: Readout) -> Tensor:
    """What a head's `log_prob` tells of each part of M thoughts, fp32 (M, J).

    Raises:
        UsageError: it is of another shape than (M,), or (M, J) for several parts.
    """
    parts, thoughts = len(head.part_weights), len(action["token"])
    shape = (thoughts,) if parts == 1 else (thoughts, parts)
    logp = shaped(head.log_prob(action, read), shape, head, "log_prob")
    return logp.float().view(thoughts, parts)


def drawn_parts(head: PolicyHead, action: Action) -> Tensor:
    """Which parts of M thoughts a head says were drawn at random, bool (M, J).

    Raises:
        UsageError: it is of another shape, or not of truth values.
    """
    shape = (len(action["token"]), len(head.part_weights))
    return shaped(head.drawn(action), shape, head, "drawn", truth=True)


def joint_log_prob(head: PolicyHead, action: Action, read: Readout) -> Tensor:
    """Log-probability of M thoughts as wholes, the sum over what was drawn of each, (M,).

    Raises:
        UsageError: as `part_log_probs`.
    """
    return masked(part_log_probs(head, action, read), drawn_parts(head, action)).sum(-1)


def shaped(
    x: Tensor, shape: tuple[int, ...], head: PolicyHead, method: str, *, truth: bool = False
) -> Tensor:
    """What a method of a head gave, if it is of the shape and kind that are needed.

    Another one might be broadcast, or its first numbers taken, and the policy trained on them.

    Args:
        x: what it gave.
        shape: what is needed.
        head: whose method it is.
        method: its name.
        truth: it is to be of truth values; else of floating-point numbers.

    Raises:
        UsageError: it is of another shape or kind.
    """
    if not isinstance(x, Tensor):
        raise UsageError(f"{type(head).__name__}.{method} gives {told(x)}, not a tensor; mend it.")
    if x.shape != shape:
        raise UsageError(
            f"{type(head).__name__}.{method} gives a tensor of shape {tuple(x.shape)}, but the "
            f"{shape[0]} actions it was asked for need {shape}; mend the head."
        )
    if x.dtype != torch.bool if truth else not x.is_floating_point():
        kind = "truth values" if truth else "floating-point numbers"
        raise UsageError(
            f"{type(head).__name__}.{method} gives a tensor of {x.dtype}, but {kind} are needed; "
            "mend the head."
        )
    return x
