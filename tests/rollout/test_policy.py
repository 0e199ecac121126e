"""What a policy asks of its heads, and which of its parameters decay."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from latentgym.episodes.protocol import Protocol
from latentgym.errors import UsageError
from latentgym.heads import Action, MultiTokenHead, PolicyHead, Readout, TokenHead
from latentgym.rollout import Engine, Policy, Rollouts, replay

Misshape = Callable[[Tensor], Tensor]

# What a head's author easily writes, and broadcasting or a scatter would take.
LOG_PROBS: dict[str, tuple[Misshape, str]] = {
    "one of each id": (lambda x: x[..., None].expand(*x.shape, 2), r"\(\d+, 2\)"),
    "a column": (lambda x: x[..., None], r"\(\d+, 1\)"),
    "a row": (lambda x: x[None], r"\(1, \d+\)"),
    "one for all": (lambda x: x.sum(), r"\(\)"),
    "too many": (lambda x: torch.cat([x, x]), r"\(\d+,\)"),
}
EMBEDDINGS: dict[str, tuple[Misshape, str]] = {
    "one of each id": (lambda x: x[..., None, :].expand(*x.shape[:-1], 2, -1), r"\(\d+, 2, 32\)"),
    "one for all": (lambda x: x.mean(0), r"\(32,\)"),
    "too wide": (lambda x: torch.cat([x, x], -1), r"\(\d+, 64\)"),
}


class Misshapen(MultiTokenHead):
    """Gives one of its tensors in another shape."""

    def __init__(self, method: str, misshape: Misshape) -> None:
        super().__init__(2)
        self.method, self.misshape = method, misshape

    def embed(self, action: Action, table_VD: Tensor) -> Tensor:
        x = super().embed(action, table_VD)
        return self.misshape(x) if self.method == "embed" else x

    def log_prob(self, action: Action, read: Readout) -> Tensor:
        x = super().log_prob(action, read)
        return self.misshape(x) if self.method == "log_prob" else x


class MisshapenVoice(TokenHead):
    """Scores words in another shape."""

    def log_prob(self, action: Action, read: Readout) -> Tensor:
        return super().log_prob(action, read)[..., None]


def rolled_out(policy: Policy, prompts: Any, protocol: Protocol, **engine: Any) -> Rollouts:
    return Engine(policy, **engine).rollout(prompts, protocol, seed=3, group_size=2)


@pytest.mark.parametrize("case", LOG_PROBS)
def test_log_probabilities_of_another_shape_are_refused(
    case: str, random_lm: Callable, prompts: Any, protocol: Protocol
) -> None:
    misshape, shape = LOG_PROBS[case]
    policy = Policy(random_lm(), Misshapen("log_prob", misshape))
    rollouts = rolled_out(policy, prompts, protocol)
    sentence = rf"Misshapen\.log_prob gives a tensor of shape {shape}, but the \d+ .* \(\d+,\)"
    with pytest.raises(UsageError, match=sentence):
        replay(policy, rollouts)
    with pytest.raises(UsageError, match=sentence):
        rolled_out(policy, prompts, protocol, record_log_probs=True)


def test_log_probabilities_of_a_chunk_are_looked_at(
    random_lm: Callable, prompts: Any, protocol: Protocol, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = Policy(random_lm(), Misshapen("log_prob", LOG_PROBS["too many"][0]))
    rollouts = rolled_out(policy, prompts, protocol)
    monkeypatch.setattr("latentgym.lm.model.MOST_LOGITS", 259 * 7)
    with pytest.raises(UsageError, match=r"shape \(14,\), but the 7 actions .* \(7,\)"):
        replay(policy, rollouts)


def test_a_voice_is_looked_at_too(random_lm: Callable, prompts: Any, protocol: Protocol) -> None:
    policy = Policy(random_lm(), MultiTokenHead(2), MisshapenVoice())
    rollouts = rolled_out(policy, prompts, protocol)
    with pytest.raises(UsageError, match=r"MisshapenVoice\.log_prob"):
        replay(policy, rollouts)


@pytest.mark.parametrize("case", EMBEDDINGS)
def test_embeddings_of_another_shape_are_refused(
    case: str, random_lm: Callable, prompts: Any, protocol: Protocol
) -> None:
    misshape, shape = EMBEDDINGS[case]
    lm = random_lm()
    rollouts = rolled_out(Policy(lm, MultiTokenHead(2)), prompts, protocol)
    policy = Policy(lm, Misshapen("embed", misshape))
    sentence = rf"Misshapen\.embed gives a tensor of shape {shape}, but the \d+ .* \(\d+, 32\)"
    with pytest.raises(UsageError, match=sentence):
        replay(policy, rollouts)
    with pytest.raises(UsageError, match=sentence):
        rolled_out(policy, prompts, protocol)


def test_matrices_decay_and_nothing_else(head: PolicyHead, random_lm: Callable) -> None:
    policy = Policy(random_lm("gpt2"), head)
    groups = policy.parameter_groups(1e-3)
    for group in groups:
        assert {p.ndim > 1 for p in group["params"]} == {"weight_decay" not in group}
        assert group.get("weight_decay", 0) == 0
    placed = [id(p) for group in groups for p in group["params"]]
    assert sorted(placed) == sorted(id(p) for p in policy.parameters() if p.requires_grad)


def test_a_head_may_say_how_it_decays(random_lm: Callable) -> None:
    class Own(MultiTokenHead):
        def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
            return [{"params": list(self.parameters()), "lr": lr, "weight_decay": 0.3}]

    head = Own(2)
    head.bias, head.matrix = (torch.nn.Parameter(torch.ones(n)) for n in ((4,), (4, 4)))
    (group,) = [
        g for g in Policy(random_lm(), head).parameter_groups(1e-3) if g.get("weight_decay")
    ]
    assert group == {"params": [head.bias, head.matrix], "lr": 1e-3, "weight_decay": 0.3}
