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
from latentgym.errors import UsageError
from latentgym.heads import Action, PolicyHead, Readout
from latentgym.heads.base import State, joint_log_prob, shaped
from latentgym.heads.distributions import entropy
from latentgym.rollout.policy import Policy
from latentgym.rollout.rollouts import THOUGHTS, IntArray, StepKind


@dataclass(frozen=True)
class Chosen:
    """The actions of one step.

    Attributes:
        token_B: the ids that they are read by, int64; of rows that stand still, anything.
        thought: what the head sampled, of all rows; empty where none thinks.
        state: of the head after that.
        plain_B: rows whose thought is read as its plain token, by the head's own choice.
        acting_B: rows that act: think, answer, or read a forced token.
        forced_B: rows whose token the environment forces.
    """

    token_B: IntArray
    thought: Action
    state: State
    plain_B: BoolArray
    acting_B: BoolArray
    forced_B: BoolArray

    def kinds(self, latent_B: BoolArray) -> IntArray:
        """The kinds of the steps, `StepKind`.

        Args:
            latent_B: thoughts that did not end thinking.
        """
        kind_B = np.where(self.acting_B, StepKind.TOKEN, StepKind.PAD)
        kind_B[latent_B] = StepKind.THOUGHT
        kind_B[self.plain_B] = StepKind.PLAIN
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
    state, plain_B = read.state, np.zeros_like(thinking_B)
    token_B = np.where(forced_B < 0, 0, forced_B)
    if thinking_B.any():
        thought, state = sample(policy.head, read, rng)
        token_B[thinking_B] = _ids(thought)[thinking_B]
        if "plain" in thought:
            plain_B = thinking_B & thought["plain"].cpu().numpy()
    if answering_B.any():
        # One head for both has sampled all rows already.
        shared = policy.thinks_in_tokens and bool(thought)
        answer = thought if shared else policy.answer_head.sample(read, rng)
        token_B[answering_B] = _ids(answer)[answering_B]
    forced = forced_B >= 0
    acting_B = thinking_B | answering_B | forced
    return Chosen(token_B, thought, state, plain_B, acting_B, forced)


def sample(head: PolicyHead, read: Readout, rng: CounterRNG) -> tuple[Action, State]:
    """What a head thinks, and its state after that.

    Raises:
        UsageError: the head keeps a state, and returns none of some name.
    """
    thought = head.sample(read, rng)
    missing = read.state.keys() - thought.keys()
    if missing:
        raise UsageError(
            f"{type(head).__name__} keeps {', '.join(sorted(missing))} as its state; return it "
            "from `sample` beside the action."
        )
    state = {name: thought.pop(name) for name in read.state}
    return thought, state


def carried(state: State, before: State, thinking_B: Tensor) -> State:
    """The state of all rows after a step: that after the thought, where they think."""

    def taken(name: str) -> Tensor:
        old, new = before[name], state[name]
        where = thinking_B.view(-1, *(1,) * (old.dim() - 1))
        return torch.where(where, new, old)

    return {name: taken(name) for name in before}


def inputs(policy: Policy, chosen: Chosen, kind_B: IntArray, table_VD: Tensor) -> Tensor:
    """What the model reads of the actions, (B, D): embeddings of tokens, latents of thoughts."""
    x_BD = policy.lm.embed(_tensor(chosen.token_B, policy))
    latent_B = kind_B == StepKind.THOUGHT
    if not latent_B.any() or policy.thinks_in_tokens:
        return x_BD
    latent_BD = latents(policy.head, chosen.thought, x_BD, table_VD)
    return torch.where(_tensor(latent_B, policy)[:, None], latent_BD, x_BD)


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


def log_probs(policy: Policy, read: Readout, chosen: Chosen, kind_B: IntArray) -> Tensor:
    """Log-probabilities of the actions, of all their parts together, (B,)."""
    token = {"token": _tensor(chosen.token_B, policy)}
    logp_B = joint_log_prob(policy.answer_head, token, read)
    thought_B = np.isin(kind_B, THOUGHTS)
    if not thought_B.any():
        return logp_B
    thought_logp = joint_log_prob(policy.head, chosen.thought, read)
    return torch.where(_tensor(thought_B, policy), thought_logp, logp_B)


def _ids(action: Action) -> IntArray:
    ids: IntArray = action["token"].cpu().numpy()
    return ids


def _tensor(array: npt.NDArray[np.generic], policy: Policy) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array)).to(policy.lm.device)
