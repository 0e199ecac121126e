"""Prompts that are read once for all their rows give what whole rows give."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from latentgym.episodes.protocol import Protocol
from latentgym.heads import PolicyHead, TokenHead
from latentgym.lm.model import LatentLM
from latentgym.rollout import Engine, Policy, Rollouts, StepKind, replay
from latentgym.rollout.shared import shared_prompts
from latentgym.text.tokenizers import ByteTokenizer

G = 3


def rolled_out(policy: Policy, prompts: list[list[int]], protocol: Protocol) -> Rollouts:
    return Engine(policy).rollout(prompts, protocol, seed=5, group_size=G)


def scored(policy: Policy, rollouts: Rollouts) -> list[Tensor]:
    """Scores, and the gradients that they send to all parameters."""
    policy.zero_grad(set_to_none=True)
    scores = replay(policy, rollouts)
    weight_NT = torch.linspace(-1, 1, scores.logp_NT.numel()).view_as(scores.logp_NT)
    (scores.logp_NT * weight_NT).sum().backward()
    gradients = [p.grad.clone() for p in policy.parameters() if p.grad is not None]
    policy.zero_grad(set_to_none=True)
    return [scores.logp_NT.detach(), scores.entropy_NT, *gradients]


def read_plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on every row reads its own prompt."""
    module = sys.modules["latentgym.rollout.shared"]
    monkeypatch.setattr(module, "shared_prompts", lambda token_BT, kind_BT: None)


@pytest.mark.parametrize(
    ("arch", "attend_padding"),
    [
        ("llama", False),
        ("gpt2", True),
        ("op", False),
        *(
            pytest.param(arch, padding, marks=pytest.mark.thorough)
            for arch, padding in (("qwen2", False), ("llama", True), ("gpt2", False), ("op", True))
        ),
    ],
)
def test_scores_and_gradients_are_those_of_whole_rows(
    arch: str,
    attend_padding: bool,
    head: PolicyHead,
    random_lm: Callable,
    prompts: Any,
    protocol: Protocol,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    policy = Policy(random_lm(arch), head, attend_padding=attend_padding)
    rollouts = rolled_out(policy, prompts, protocol).select([1, 4, 8, 0, 9, 2, 10, 11, 3, 5])
    shared = scored(policy, rollouts)
    read_plainly(monkeypatch)
    plain = scored(policy, rollouts)
    assert len(shared) == len(plain) > 2
    for one, other in zip(shared, plain, strict=True):
        # A thought of a mark alone may be certain: entropies next to 0 have no relative error.
        assert_close(one, other, rtol=1e-4, atol=1e-4 * max(1.0, float(other.abs().max())))


def test_every_prompt_is_read_once(
    random_lm: Callable, prompts: Any, protocol: Protocol, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = Policy(random_lm("llama"), TokenHead())
    rollouts = rolled_out(policy, prompts, protocol)
    read: list[tuple[int, int]] = []
    hidden = policy.lm.hidden

    def counted(x_BTD: Tensor, *rest: Any) -> Tensor:
        read.append((x_BTD.shape[0], x_BTD.shape[1]))
        return hidden(x_BTD, *rest)

    monkeypatch.setattr(policy.lm, "hidden", counted)
    replay(policy, rollouts)
    width, steps = max(map(len, prompts)), rollouts.token_NT.shape[1]
    assert read == [(len(prompts), width), (len(prompts) * G, steps - 1)]


def test_which_rows_share_a_prompt() -> None:
    kind = {"p": StepKind.PROMPT, ".": StepKind.PAD, "t": StepKind.THOUGHT, "s": StepKind.TOKEN}

    def shared(*rows: tuple[str, list[int]]) -> Any:
        kinds = torch.tensor([[int(kind[letter]) for letter in row] for row, _ in rows])
        return shared_prompts(torch.tensor([tokens for _, tokens in rows]), kinds)

    one, two, padded = ("ppts", [5, 6, 1, 2]), ("pps.", [5, 6, 3, 0]), (".pts", [0, 6, 1, 2])
    found = shared(one, padded, two, padded)
    assert found.width == 2 and found.prompt_B.tolist() in ([0, 1, 0, 1], [1, 0, 1, 0])
    assert sorted(found.first_Q.tolist()) == [0, 1]
    assert shared(one, padded) is None  # no two rows alike
    assert shared(one, two, padded) is None  # fewer than two rows a prompt
    # Padded on the right: the prompts end in different columns.
    assert shared(one, one, ("pts.", [6, 1, 2, 0]), ("pts.", [6, 1, 2, 0])) is None
    # Without prompts, and with something else among them.
    assert shared(("ts", [1, 2]), ("ts", [1, 2])) is None
    assert shared(("tpts", [1, 6, 1, 2]), ("tpts", [1, 6, 1, 2])) is None


@pytest.mark.parametrize("training", [False, True])
def test_recomputed_activations_read_whole_rows(
    training: bool, random_lm: Callable, prompts: Any, protocol: Protocol
) -> None:
    policy = Policy(copy.deepcopy(random_lm("llama")), TokenHead())
    rollouts = rolled_out(policy, prompts, protocol)
    expected = scored(policy, rollouts)
    policy.lm.checkpoint_gradients()
    policy.train(training)
    for one, other in zip(scored(policy, rollouts), expected, strict=True):
        assert_close(one, other, rtol=1e-4, atol=1e-4 * max(1.0, float(other.abs().max())))


@pytest.mark.parametrize("arch", ["llama", "gpt2"])
def test_what_is_recomputed_is_not_kept(
    arch: str, random_lm: Callable, prompts: Any, protocol: Protocol
) -> None:
    """In evaluation mode, in which policies learn; the mode is as it was afterwards."""
    policy = Policy(copy.deepcopy(random_lm(arch)), TokenHead())
    rollouts = rolled_out(policy, prompts, protocol)
    kept: list[int] = []
    for recomputes in (False, True):
        if recomputes:
            policy.lm.checkpoint_gradients()
        total = 0

        def count(x: Tensor) -> Tensor:
            nonlocal total
            total += x.nbytes
            return x

        with torch.autograd.graph.saved_tensors_hooks(count, lambda x: x):
            replay(policy, rollouts)
        kept.append(total)
        assert not any(module.training for module in policy.lm.modules())
    assert kept[1] < kept[0] / 2


def test_recomputing_drops_nothing_out() -> None:
    """Also where a block drops out by itself, as OPT's do: it stays in evaluation mode."""
    from transformers import OPTConfig, OPTForCausalLM

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "ffn_dim": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = OPTConfig(vocab_size=259, word_embed_proj_dim=16, dropout=0.5, **sizes)
    lm = LatentLM(OPTForCausalLM(config).eval(), ByteTokenizer(), "opt")
    ids_BT = torch.arange(10).view(2, 5)

    def hidden() -> Tensor:
        return lm.hidden(lm.embed(ids_BT), torch.ones_like(ids_BT, dtype=torch.bool))

    plain = hidden()
    lm.checkpoint_gradients()
    recomputed = hidden()
    assert torch.equal(plain, recomputed)
    slopes = [torch.autograd.grad(x.square().sum(), lm.table_VD)[0] for x in (plain, recomputed)]
    assert_close(*slopes)
