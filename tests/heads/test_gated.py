"""HRPO's gate against its formulas."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import embedding, softplus
from torch.testing import assert_close

from latentgym.errors import UsageError
from latentgym.heads import GatedHead, MixtureHead, Readout, TokenHead

D, B = 6, 5


def head(token_head: TokenHead | None = None, **options: Any) -> GatedHead:
    torch.manual_seed(0)
    return GatedHead(D, token_head or TokenHead(), **options)


def closed(token_head: TokenHead, width: int) -> GatedHead:
    """A gate that lets nothing latent through: a = 1 in every channel, and eps = 0."""
    gated = GatedHead(width, token_head, eps=0.0)
    with torch.no_grad():
        gated.Lambda.fill_(1e9)
    return gated


def test_the_soft_embedding_keeps_its_formula(make_read: Callable, make_rng: Callable) -> None:
    read = make_read(B)
    p = (read.logits / 0.5).softmax(-1)
    expected = (p @ read.table_VD) / p.norm(dim=-1, keepdim=True)
    soft = head(TokenHead(0.5)).sample(read, make_rng(B))["soft"]
    assert_close(soft, expected)
    few = head(TokenHead(0.5, top_k=3)).sample(read, make_rng(B))["soft"]
    top = p.where(p >= p.topk(3).values[:, -1:], 0)
    top = top / top.sum(-1, keepdim=True)
    assert_close(few, (top @ read.table_VD) / top.norm(dim=-1, keepdim=True))


@given(st.integers(1, 9))
def test_a_uniform_mixture_keeps_its_variance(n: int) -> None:
    """Uniform over n tokens is the root of n times their mean."""
    logits = torch.full((1, 9), -torch.inf)
    logits[:, :n] = 0
    table = torch.randn(9, D, generator=torch.Generator().manual_seed(n))
    p = logits.softmax(-1)
    expected = n**0.5 * table[:n].mean(0, keepdim=True)
    assert_close((p / p.norm(dim=-1, keepdim=True)) @ table, expected)


def test_a_sure_step_blends_a_word_with_itself(make_read: Callable, make_rng: Callable) -> None:
    read = make_read(B)
    read = Readout(1e4 * read.logits, read.hidden, read.table_VD)
    gated = head()
    action = gated.sample(read, make_rng(B))
    e = embedding(action["token"], read.table_VD)
    assert_close(action["soft"], e)
    a, i = gated._gates(e)
    assert_close(gated.embed(action, read.table_VD), (a + (1 - a**2 + 1e-8).sqrt() * i) * e)


@pytest.mark.parametrize("r_min", [0.9, 0.95, 0.98, 0.99])
def test_the_gate_begins_between_its_bounds(r_min: float) -> None:
    gated = GatedHead(512, TokenHead(), r_min=r_min)
    decay = softplus(-gated.Lambda.detach().double())
    whole, half = (-8 * decay).exp(), (-4 * decay).exp()
    assert whole.min() >= r_min - 1e-6 and whole.max() <= 0.999 + 1e-6
    assert whole.min() < r_min + 0.1 * (0.999 - r_min) and whole.max() > 0.99  # all of the range
    assert_close(half**2, whole)
    assert gated.Lambda.dtype == torch.float32
    # The paper's softplus(+Lambda) would shut the word off instead.
    assert (-8 * softplus(gated.Lambda)).exp().max() < 1e-7


def test_a_closed_gate_is_the_word_bit_for_bit(make_read: Callable, make_rng: Callable) -> None:
    read, token_head = make_read(B), TokenHead(0.7, top_k=4)
    gated = closed(token_head, D)
    action = gated.sample(read, make_rng(B))
    assert torch.equal(action["token"], token_head.sample(read, make_rng(B))["token"])
    assert torch.equal(gated.embed(action, read.table_VD), token_head.embed(action, read.table_VD))
    assert torch.equal(gated.log_prob(action, read), token_head.log_prob(action, read))


def test_gradients_reach_the_gate_and_not_the_latent(
    make_read: Callable, make_rng: Callable
) -> None:
    read, gated = make_read(B), head()
    action = gated.sample(read, make_rng(B))
    action["soft"].requires_grad_()
    gated.embed(action, read.table_VD).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in gated.parameters())


def test_three_learning_rates() -> None:
    gated = head(gate_lr=1e-4, lambda_lr=1e-3)
    linear, decay = gated.parameter_groups(5e-6)
    assert linear["lr"] == 1e-4 and len(linear["params"]) == 4
    assert decay["lr"] == 1e-3 and decay["params"] == [gated.Lambda]
    assert [g["lr"] for g in head().parameter_groups(5e-6)] == [5e-6, 5e-6]
    assert gated.requires_grad_(False).parameter_groups(1.0) == []


def test_statistics_are_of_the_gate(make_read: Callable, make_rng: Callable) -> None:
    read, gated = make_read(B), closed(TokenHead(), D)
    told = gated.statistics(gated.sample(read, make_rng(B)), read.table_VD)
    assert_close(told["gate"], torch.ones(B))
    assert not told["share"].any()
    told = head().statistics(gated.sample(read, make_rng(B)), read.table_VD)
    gate, share = (told[name].mean().item() for name in ("gate", "share"))
    assert 0.98 < gate < 1 and 0 < share < 0.2


def test_the_reference_has_no_latents() -> None:
    token_head = TokenHead(0.5)
    assert head(token_head).reference() is token_head
    other = MixtureHead()
    assert other.reference() is not other


def test_bad_gates_are_refused() -> None:
    with pytest.raises(UsageError, match="0 < r_min <= r_max < 1"):
        head(r_min=0.9, r_max=1.0)
    with pytest.raises(UsageError, match="temperature above 0"):
        head(TokenHead(0.0))
