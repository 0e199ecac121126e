"""What a batch of rows does at one step: which actions, of which kinds, and how they are read.

Legend: B rows, V vocabulary, D width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from latentgym.errors import UsageError, told
from latentgym.heads import Action, PolicyHead, Readout
from latentgym.heads.base import State, joint_log_prob, shaped
from latentgym.heads.distributions import entropy
from latentgym.heads.rng import CounterRNG
from latentgym.rollout.policy import Policy
from latentgym.rollout.rollouts import THOUGHTS, StepKind


class Doing(NamedTuple):
    """What rows may be doing in a step; what none does costs nothing.

    Attributes:
        thinking: some think.
        answering: some choose a token of their answer.
        idle: some wait while others go on.
    """

    thinking: bool
    answering: bool
    idle: bool


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

    token_B: Tensor
    thought: Action
    state: State
    plain_B: Tensor
    acting_B: Tensor
    forced_B: Tensor

    def kinds(self, latent_B: Tensor) -> Tensor:
        """The kinds of the steps, `StepKind`, int8.

        Args:
            latent_B: thoughts that did not end thinking.
        """
        kind_B = self.acting_B.to(torch.int8) * int(StepKind.TOKEN)  # PAD is 0
        for rows, kind in (
            (latent_B, StepKind.THOUGHT),
            (self.plain_B, StepKind.PLAIN),
            (self.forced_B, StepKind.INSERTED),
        ):
            kind_B = kind_B.masked_fill(rows, int(kind))
        return kind_B


def choose(
    policy: Policy,
    read: Readout,
    rng: CounterRNG,
    thinking_B: Tensor,
    answering_B: Tensor,
    forced_B: Tensor,
    doing: Doing,
) -> Chosen:
    """Sample what each row does.

    Args:
        policy: with its two heads.
        read: what the model makes of the rows so far.
        rng: random numbers of the rows.
        thinking_B, answering_B: what the rows do.
        forced_B: the ids that the environment forces, -1 for none.
        doing: what none of them does is not computed.
    """
    thought: Action = {}
    state, plain_B = read.state, torch.zeros_like(thinking_B)
    token_B = forced_B.clamp_min(0)
    if doing.thinking:
        thought, state = sample(policy.head, read, rng)
        token_B = torch.where(thinking_B, thought["token"], token_B)
        if "plain" in thought:
            plain_B = thinking_B & thought["plain"]
    if doing.answering:
        # One head for both has sampled all rows already.
        shared = policy.thinks_in_tokens and bool(thought)
        answer = thought if shared else policy.answer_head.sample(read, rng)
        token_B = torch.where(answering_B, answer["token"], token_B)
    forced = forced_B >= 0
    acting_B = thinking_B | answering_B | forced
    return Chosen(token_B, thought, state, plain_B, acting_B, forced)


def first_state(head: PolicyHead, rows: int, device: torch.device) -> State:
    """The state of a head before its first thought.

    Raises:
        UsageError: it is no dict of tensors with an entry for each row, or has names of an action.
    """
    state = head.initial_state(rows, device)
    _of_rows(state, rows, head, "initial_state")
    if taken := sorted(state.keys() & {"token", "plain"}):
        raise UsageError(
            f"{type(head).__name__} keeps a state {taken[0]!r}, which is a name of actions; choose "
            "another."
        )
    return state


def sample(head: PolicyHead, read: Readout, rng: CounterRNG) -> tuple[Action, State]:
    """What a head thinks, and its state after that.

    Raises:
        UsageError: it is no dict of tensors with an entry for each row, the token among them; or
            the head keeps a state, and returns none of some name, or another shape or type of it.
    """
    thought = head.sample(read, rng)
    _of_rows(thought, len(read.hidden), head, "sample")
    missing = read.state.keys() - thought.keys()
    if missing:
        raise UsageError(
            f"{type(head).__name__} keeps {', '.join(sorted(missing))} as its state; return it "
            "from `sample` beside the action."
        )
    state = {name: thought[name] for name in read.state}
    for name, before in read.state.items():
        _like(state[name], before.shape, before.dtype, head, name)
    thought = {name: x for name, x in thought.items() if name not in state}
    if "token" not in thought:
        raise UsageError(
            f"{type(head).__name__}.sample gives no token, the id by which a thought is read; add "
            "it to the action."
        )
    shape, token = read.hidden.shape[:1], thought["token"]
    _like(token, shape, torch.int64, head, "token")
    if "plain" in thought:
        _like(thought["plain"], shape, torch.bool, head, "plain")
    if token.device.type == "cpu" and not torch.compiler.is_compiling():  # looking is free there
        (least, most), size = map(int, token.aminmax()), read.logits.shape[-1]
        if least < 0 or most >= size:
            raise UsageError(
                f"{type(head).__name__}.sample gives the token {least if least < 0 else most}, but "
                f"the vocabulary has ids from 0 to {size - 1}; mend the head."
            )
    return thought, state


def _of_rows(named: Action, rows: int, head: PolicyHead, method: str) -> None:
    """Whether what a method of a head gave are tensors by name, with an entry for each row."""
    who = f"{type(head).__name__}.{method}"
    if not isinstance(named, dict):
        raise UsageError(f"{who} gives {told(named)}, not a dict of tensors; mend the head.")
    for name, x in named.items():
        if not isinstance(x, Tensor) or x.shape[:1] != (rows,):
            what = f"of shape {tuple(x.shape)}" if isinstance(x, Tensor) else told(x)
            raise UsageError(
                f"{name!r} of {who} is {what}, but {rows} rows need a tensor with an entry for "
                "each; mend the head."
            )


def _like(x: Tensor, shape: torch.Size, dtype: torch.dtype, head: PolicyHead, name: str) -> None:
    """Whether what `sample` gave under a name is of this shape and type."""
    if x.shape != shape or x.dtype != dtype:
        raise UsageError(
            f"{name!r} of {type(head).__name__}.sample is of {x.dtype} and shape {tuple(x.shape)}, "
            f"but must be of {dtype} and {tuple(shape)}; mend the head."
        )


def carried(state: State, before: State, thinking_B: Tensor) -> State:
    """The state of all rows after a step: that after the thought, where they think."""

    def taken(name: str) -> Tensor:
        old, new = before[name], state[name]
        where = thinking_B.view(-1, *(1,) * (old.dim() - 1))
        return torch.where(where, new, old)

    return {name: taken(name) for name in before}


def inputs(policy: Policy, chosen: Chosen, kind_B: Tensor, table_VD: Tensor) -> Tensor:
    """What the model reads of the actions, (B, D): embeddings of tokens, latents of thoughts."""
    x_BD = policy.lm.embed(chosen.token_B)
    if not chosen.thought or policy.thinks_in_tokens:
        return x_BD
    latent_BD = latents(policy.head, chosen.thought, x_BD, table_VD)
    return torch.where((kind_B == int(StepKind.THOUGHT))[:, None], latent_BD, x_BD)


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


def log_probs(policy: Policy, read: Readout, chosen: Chosen, kind_B: Tensor) -> Tensor:
    """Log-probabilities of the actions, of all their parts together, (B,)."""
    logp_B = joint_log_prob(policy.answer_head, {"token": chosen.token_B}, read)
    if not chosen.thought:
        return logp_B
    thought_logp = joint_log_prob(policy.head, chosen.thought, read)
    return torch.where(thoughts(kind_B), thought_logp, logp_B)


def thoughts(kind_B: Tensor) -> Tensor:
    """Which steps are thoughts, whatever the model read of them."""
    first, *others = map(int, THOUGHTS)
    found = kind_B == first
    for kind in others:
        found = found | (kind_B == kind)
    return found
