"""What a batch of rows does at one step: which actions, of which kinds, and how they are read.

Legend: B rows, V vocabulary, D width.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from latentgym.episodes.protocol import BoolArray
from latentgym.episodes.rng import CounterRNG
from latentgym.heads import Action, PolicyHead, Readout
from latentgym.heads.base import shaped
from latentgym.heads.distributions import entropy
from latentgym.rollout.policy import Policy
from latentgym.rollout.rollouts import IntArray, StepKind


@dataclass(frozen=True)
class Chosen:
    """The actions of one step.

    Attributes:
        token_B: the ids that they are read by, int64; of rows that stand still, anything.
        thought: what the head sampled, of all rows; empty where none thinks.
        acting_B: rows that act: think, answer, or read a forced token.
        forced_B: rows whose token the environment forces.
    """

    token_B: IntArray
    thought: Action
    acting_B: BoolArray
    forced_B: BoolArray

    def kinds(self, thought_B: BoolArray) -> IntArray:
        """The kinds of the steps, `StepKind`, given which of them are thoughts."""
        kind_B = np.where(self.acting_B, StepKind.TOKEN, StepKind.PAD)
        kind_B[thought_B] = StepKind.THOUGHT
        kind_B[self.forced_B] = StepKind.INSERTED
        return kind_B


def choose(
    policy: Policy,
    read: Readout,
    rng: CounterRNG,
    thinking_B: BoolArray,
    answering_B: BoolArray,
    forced_B: IntArray,
) -> Chosen:
    """Sample what each row does.

    Args:
        policy: with its two heads.
        read: what the model makes of the rows so far.
        rng: random numbers of the rows.
        thinking_B, answering_B: what the rows do.
        forced_B: the ids that the environment forces, -1 for none.
    """
    thought: Action = {}
    token_B = np.where(forced_B < 0, 0, forced_B)
    if thinking_B.any():
        thought = policy.head.sample(read, rng)
        token_B[thinking_B] = _ids(thought)[thinking_B]
    if answering_B.any():
        # One head for both has sampled all rows already.
        shared = policy.thinks_in_tokens and bool(thought)
        answer = thought if shared else policy.answer_head.sample(read, rng)
        token_B[answering_B] = _ids(answer)[answering_B]
    forced = forced_B >= 0
    return Chosen(token_B, thought, thinking_B | answering_B | forced, forced)


def inputs(policy: Policy, chosen: Chosen, thought_B: BoolArray, table_VD: Tensor) -> Tensor:
    """What the model reads of the actions, (B, D): embeddings of tokens, latents of thoughts."""
    x_BD = policy.lm.embed(_tensor(chosen.token_B, policy))
    if not thought_B.any() or policy.thinks_in_tokens:
        return x_BD
    latent_BD = latents(policy.head, chosen.thought, x_BD, table_VD)
    return torch.where(_tensor(thought_B, policy)[:, None], latent_BD, x_BD)


def latents(head: PolicyHead, thought: Action, x_BD: Tensor, table_VD: Tensor) -> Tensor:
    """What the model reads of thoughts, in the shape and type of other inputs `x_BD`."""
    latent_BD = head.embed(thought, table_VD)
    shaped(latent_BD, tuple(x_BD.shape), head, "embed")
    return latent_BD.to(x_BD.dtype)


def look(policy: Policy, read: Readout, thought: Action, most: int) -> Action:
    """What is kept of thoughts for whoever looks at them; see `Rollouts.seen`.

    Args:
        policy: that thought them.
        read: what the model makes of the rows so far.
        thought: what the head sampled.
        most: so many of the heaviest tokens of each.
    """
    kept, heaviest = {"entropy": entropy(read.logits)}, policy.head.heaviest(thought, read, most)
    if heaviest is not None:
        kept |= zip(("ids", "weights"), heaviest, strict=True)
    return kept


def log_probs(policy: Policy, read: Readout, chosen: Chosen, thought_B: BoolArray) -> Tensor:
    """Log-probabilities of the actions, (B,)."""
    logp_B = policy.answer_head.log_prob({"token": _tensor(chosen.token_B, policy)}, read)
    if not thought_B.any():
        return logp_B
    thought_logp = policy.head.log_prob(chosen.thought, read)
    shaped(thought_logp, tuple(logp_B.shape), policy.head, "log_prob")
    return torch.where(_tensor(thought_B, policy), thought_logp, logp_B)


def _ids(action: Action) -> IntArray:
    ids: IntArray = action["token"].cpu().numpy()
    return ids


def _tensor(array: npt.NDArray[np.generic], policy: Policy) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array)).to(policy.lm.device)
