"""Heads of somebody's own that give what nobody can use: one sentence, never an inner error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from latentgym.episodes.protocol import Budget, Protocol
from latentgym.errors import ActionError, UsageError
from latentgym.heads import Action, MixtureHead, Readout, TokenHead
from latentgym.heads.base import State
from latentgym.heads.rng import CounterRNG
from latentgym.rollout import Engine, Policy

RULES = Protocol(Budget(4), Budget(1))
Spoil = Callable[[Action], Any]


class Own(MixtureHead):
    """A mixture with a counter; one of its methods gives what `spoil` makes of that."""

    def __init__(self, method: str, spoil: Callable[[Any], Any]) -> None:
        super().__init__()
        self.method, self.spoil, self.deterministic = method, spoil, False

    def _told(self, method: str, x: Any) -> Any:
        return self.spoil(x) if method == self.method else x

    def initial_state(self, rows: int, device: torch.device) -> State:
        state: State = self._told("initial_state", {"seen": torch.zeros(rows, 2)})
        return state

    def sample(self, read: Readout, rng: CounterRNG) -> Action:
        action = {**super().sample(read, rng), **{n: x + 1 for n, x in read.state.items()}}
        thought: Action = self._told("sample", action)
        return thought

    def embed(self, action: Action, table_VD: Tensor) -> Tensor:
        x: Tensor = self._told("embed", super().embed(action, table_VD))
        return x

    def drawn(self, action: Action) -> Tensor:
        x: Tensor = self._told("drawn", super().drawn(action))
        return x


def changed(name: str, change: Callable[[Tensor], Any]) -> Spoil:
    return lambda action: {**action, name: change(action[name])}


def added(make: Callable[[int], Any]) -> Spoil:
    return lambda action: {**action, "more": make(len(action["token"]))}


THOUGHTS: dict[str, tuple[Spoil, str]] = {
    "none": (lambda action: None, r"Own.sample gives None, not a dict"),
    "a tuple": (lambda action: tuple(action.values()), r"sample gives .* not a dict of tensors"),
    "no token": (lambda action: {"seen": action["seen"]}, "gives no token, the id by which"),
    "real tokens": (changed("token", Tensor.float), "'token' of Own.sample is of torch.float32"),
    "short tokens": (changed("token", Tensor.int), "must be of torch.int64"),
    "a column": (changed("token", lambda x: x[:, None]), r"shape \(\d+, 1\), but must"),
    "one token": (changed("token", lambda x: x[0]), r"shape \(\), but \d+ rows need"),
    "unknown": (changed("token", lambda x: x + 259), r"gives the token \d+, but .* 0 to 258"),
    "negative": (changed("token", lambda x: x - 259), r"gives the token -\d+, but"),
    "plain": (lambda action: {**action, "plain": action["token"]}, "must be of torch.bool"),
    "a number": (added(lambda rows: 3.0), "'more' of Own.sample is 3.0, but"),
    "another's rows": (added(lambda rows: torch.ones(1, 3)), r"is of shape \(1, 3\), but \d+ rows"),
    "wider state": (changed("seen", lambda x: x.repeat(1, 2)), r"shape \(\d+, 4\), but must"),
    "flat state": (changed("seen", lambda x: x[:, 0]), r"'seen' of Own.sample is of .* \(\d+,\)"),
    "whole state": (changed("seen", Tensor.long), r"is of torch.int64 .* must be of torch.float32"),
}
STATES: dict[str, tuple[Callable[[State], Any], str]] = {
    "none": (lambda state: None, "Own.initial_state gives None, not a dict"),
    "one for all": (lambda state: {"seen": torch.zeros(1)}, r"'seen' of Own.initial_state is of"),
    "a number": (lambda state: {"seen": 0.0}, r"'seen' of Own.initial_state is 0.0, but"),
    "a name of actions": (lambda state: {"token": state["seen"]}, "keeps a state 'token', which"),
}
OTHERS: dict[str, tuple[str, Callable[[Tensor], Any], str]] = {
    "whole embeddings": ("embed", Tensor.long, "embed gives a tensor of torch.int64, but floating"),
    "no embeddings": ("embed", lambda x: None, "embed gives None, not a tensor"),
    "drawn, a row": ("drawn", lambda x: x[:, 0], r"drawn gives a tensor of shape \(\d+,\)"),
    "drawn, numbers": ("drawn", Tensor.float, "drawn gives a tensor of torch.float32, but truth"),
}


def roll_out(head: Own, random_lm: Callable, prompts: Any) -> None:
    policy = Policy(random_lm("llama"), head, TokenHead())
    Engine(policy, record_log_probs=True).rollout(prompts, RULES, seed=0, group_size=2)


@pytest.mark.parametrize("case", THOUGHTS)
def test_thoughts(case: str, random_lm: Callable, prompts: Any) -> None:
    spoil, sentence = THOUGHTS[case]
    with pytest.raises(UsageError, match=sentence):
        roll_out(Own("sample", spoil), random_lm, prompts)


@pytest.mark.parametrize("case", STATES)
def test_states(case: str, random_lm: Callable, prompts: Any) -> None:
    spoil, sentence = STATES[case]
    with pytest.raises(UsageError, match=sentence):
        roll_out(Own("initial_state", spoil), random_lm, prompts)


@pytest.mark.parametrize("case", OTHERS)
def test_tensors_of_other_methods(case: str, random_lm: Callable, prompts: Any) -> None:
    method, spoil, sentence = OTHERS[case]
    with pytest.raises(UsageError, match=sentence):
        roll_out(Own(method, spoil), random_lm, prompts)


@pytest.mark.parametrize("number", [torch.nan, torch.inf])
@pytest.mark.parametrize("look_every", [1, 4])
def test_thoughts_that_are_not_finite(
    number: float, look_every: int, random_lm: Callable, prompts: Any
) -> None:
    """In one row are enough, however soon it has left the batch."""

    def spoil(x: Tensor) -> Tensor:
        x = x.clone()
        x[:1] *= number
        return x

    engine = Engine(
        Policy(random_lm("llama"), Own("embed", spoil), TokenHead()),
        compact_every=1,
        look_every=look_every,
    )
    with pytest.raises(
        ActionError, match="not finite behind what Own thinks; give settings that are less"
    ):
        engine.rollout(prompts, RULES, seed=0)


@pytest.mark.parametrize("more", ["now and then", "of another width"])
def test_thoughts_that_differ_from_step_to_step(
    more: str, random_lm: Callable, prompts: Any
) -> None:
    steps: list[int] = []

    def spoil(action: Action) -> Action:
        steps.append(len(steps))
        width = len(steps) if more == "of another width" else 1
        extra = {"more": torch.ones(len(action["token"]), width)}
        return action if more == "now and then" and len(steps) % 2 else {**action, **extra}

    with pytest.raises(UsageError, match="'more' is not in all thoughts, or not of one type"):
        roll_out(Own("sample", spoil), random_lm, prompts)


@pytest.mark.parametrize("weights", [(), 1.0, (1.0, torch.nan), (1.0, -1.0), (torch.inf,)])
def test_weights_of_parts(weights: Any, random_lm: Callable) -> None:
    head = TokenHead()
    head.part_weights = weights
    with pytest.raises(
        UsageError, match=r"TokenHead.part_weights is .*, not a tuple with a finite"
    ):
        Policy(random_lm("llama"), head)


def test_log_probabilities_may_be_of_any_precision(random_lm: Callable, prompts: Any) -> None:
    class Double(TokenHead):
        def log_prob(self, action: Action, read: Readout) -> Tensor:
            return super().log_prob(action, read).double()

    found = [
        Engine(Policy(random_lm("llama"), head), record_log_probs=True)
        .rollout(prompts, RULES, seed=0)
        .logp_NT
        for head in (Double(), TokenHead())
    ]
    assert found[0] is not None and found[1] is not None
    assert found[0].dtype == torch.float32 and torch.equal(*found)
