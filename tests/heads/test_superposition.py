"""Continuous thoughts: mixtures, multi-token and Dirichlet sampling."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.distributions import Dirichlet
from torch.testing import assert_close

from latentgym.errors import UsageError
from latentgym.heads import DirichletHead, MixtureHead, MultiTokenHead, Readout, TokenHead
from latentgym.heads.superposition import mix, most_frequent

N, V = 20_000, 9
MakeRead = Callable[..., Readout]


# Mixtures.


@pytest.mark.parametrize("top_p", [1.0, 0.8, 0.05])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_a_mixture_of_a_wide_vocabulary_is_the_plain_one(
    make_read: MakeRead, make_rng: Callable, top_p: float, temperature: float
) -> None:
    """The k largest are found block by block, and weighted without the other probabilities."""
    read = make_read(6, V=8200)
    action = MixtureHead(20, top_p, temperature).sample(read, make_rng(6))
    weights, ids = (read.logits / temperature).softmax(-1).topk(20, dim=-1)
    weights = weights.masked_fill(weights.cumsum(-1) - weights >= top_p, 0.0)
    assert torch.equal(action["ids"], ids) and torch.equal(action["token"], ids[:, 0])
    assert_close(action["weights"], weights / weights.sum(-1, keepdim=True))


# Multi-token sampling.


def test_one_token_of_multi_token_sampling_is_the_token_head_bit_for_bit(
    make_read: MakeRead, make_rng: Callable
) -> None:
    read = make_read(500)
    for temperature in (1.0, 0.7):
        token, mts = TokenHead(temperature), MultiTokenHead(1, temperature)
        one, other = token.sample(read, make_rng(500)), mts.sample(read, make_rng(500))
        assert torch.equal(one["token"], other["token"])
        assert torch.equal(token.log_prob(one, read), mts.log_prob(other, read))
        assert torch.equal(token.embed(one, read.table_VD), mts.embed(other, read.table_VD))


def test_many_tokens_average_to_the_mixture(make_read: MakeRead, make_rng: Callable) -> None:
    K = 1024
    read = make_read(6, V=K)
    head = MultiTokenHead(K)
    found = head.embed(head.sample(read, make_rng(6)), read.table_VD)
    alpha = read.logits.softmax(-1)
    mean = alpha @ read.table_VD
    variance = alpha @ read.table_VD**2 - mean**2
    assert ((found - mean).abs() < 4.5 * (variance / K).sqrt()).all()
    assert (found - mean).abs().max() > 0  # it did sample


def test_the_order_of_the_tokens_does_not_matter(make_read: MakeRead, make_rng: Callable) -> None:
    read, head = make_read(20), MultiTokenHead(5)
    action = head.sample(read, make_rng(20))
    turned = {**action, "ids": action["ids"].flip(-1)}
    assert_close(head.log_prob(turned, read), head.log_prob(action, read))
    assert_close(head.embed(turned, read.table_VD), head.embed(action, read.table_VD))


def test_the_step_ratio_is_the_geometric_mean_of_the_token_ratios(make_read: MakeRead) -> None:
    old, new, head = make_read(4, seed=1), make_read(4, seed=2), MultiTokenHead(3)
    ids = torch.randint(V, (4, 3), generator=torch.Generator().manual_seed(0))
    ratio = (head.log_prob({"ids": ids}, new) - head.log_prob({"ids": ids}, old)).exp()
    p, q = (x.logits.softmax(-1).gather(-1, ids) for x in (new, old))
    assert_close(ratio, (p / q).prod(-1) ** (1 / 3), rtol=1e-4, atol=1e-6)


def test_a_thought_is_read_by_its_most_frequent_token() -> None:
    ids = torch.tensor([[3, 1, 1], [5, 4, 6], [2, 7, 2], [1, 2, 3]])
    assert most_frequent(ids).tolist() == [1, 5, 2, 1]


# Mixtures.


def test_a_mixture_of_all_ids_is_the_full_one(make_read: MakeRead, make_rng: Callable) -> None:
    read = make_read(5)
    for temperature in (1.0, 0.3):
        full, top = MixtureHead(temperature=temperature), MixtureHead(V, temperature=temperature)
        one, other = (head.sample(read, make_rng(5)) for head in (full, top))
        expected = (read.logits / temperature).softmax(-1) @ read.table_VD
        assert_close(full.embed(one, read.table_VD), expected)
        assert_close(top.embed(other, read.table_VD), expected)
        assert torch.equal(one["token"], other["token"])
        assert not full.log_prob(one, read).any()


def test_a_truncated_mixture_keeps_the_likeliest_ids(make_rng: Callable) -> None:
    p = torch.tensor([[0.15, 0.3, 0.1, 0.4, 0.05]])
    read = Readout(p.log(), torch.zeros(1, 1), torch.eye(5))

    def mixed(head: MixtureHead) -> torch.Tensor:
        return head.embed(head.sample(read, make_rng(1)), read.table_VD)

    assert_close(mixed(MixtureHead(2)), torch.tensor([[0, 0.3, 0, 0.4, 0]]) / 0.7)
    # 0.4 + 0.3 < 0.75: the id that crosses the bound stays.
    assert_close(mixed(MixtureHead(5, 0.75)), torch.tensor([[0.15, 0.3, 0, 0.4, 0]]) / 0.85)
    assert_close(mixed(MixtureHead(5, 0.3)), torch.tensor([[0.0, 0, 0, 1, 0]]))


# Dirichlet sampling.


def test_the_density_is_torchs(make_read: MakeRead, make_rng: Callable) -> None:
    """On the likeliest ids with probabilities renormalised over them."""
    read = make_read(50)
    for support, gamma in ((V, 500.0), (4, 20.0)):
        head = DirichletHead(gamma, support, floor=1e-6)
        action = head.sample(read, make_rng(50))
        alpha = read.logits.softmax(-1).gather(-1, action["ids"])
        concentration = gamma * alpha / alpha.sum(-1, keepdim=True)
        # torch takes the point itself, and so needs the range of double precision.
        point = action["log_weights"].double().exp()
        expected = Dirichlet(concentration.double(), validate_args=False).log_prob(point)
        assert_close(head.log_prob(action, read).double(), expected, rtol=1e-3, atol=1e-3)
        entropy = Dirichlet(concentration.double(), validate_args=False).entropy()
        assert_close(head.entropy(action, read).double(), entropy, rtol=1e-3, atol=2e-2)


def test_unlikely_ids_take_no_part(make_rng: Callable) -> None:
    p = torch.tensor([[0.7, 0.295, 0.003, 0.002]])
    read = Readout(p.log(), torch.zeros(1, 1), torch.eye(4))
    head = DirichletHead(2.0, support=4, floor=0.01)
    action = head.sample(read, make_rng(1))
    weights = head.embed(action, read.table_VD)
    assert weights[0, 2:].tolist() == [0, 0] and weights[0, :2].min() > 0
    expected = Dirichlet(2.0 * p[0, :2] / 0.995).log_prob(weights[0, :2])
    assert_close(head.log_prob(action, read)[0], expected, rtol=1e-4, atol=1e-4)
    entropy = Dirichlet(2.0 * p[0, :2] / 0.995).entropy()
    assert_close(head.entropy(action, read)[0], entropy, rtol=1e-4, atol=1e-4)


def test_the_likeliest_id_takes_part_however_unlikely_it_is(make_rng: Callable) -> None:
    read = Readout(torch.linspace(0, 0.1, 500)[None], torch.zeros(1, 1), torch.eye(500))
    head = DirichletHead(support=8, floor=0.01)  # all are near 1/500
    action = head.sample(read, make_rng(1))
    assert head.embed(action, read.table_VD)[0].nonzero().tolist() == [[499]]
    assert head.log_prob(action, read).isfinite().all()


def test_points_lie_on_the_simplex_and_have_the_right_moments(
    make_read: MakeRead, make_rng: Callable
) -> None:
    read, gamma = make_read(N, same=True), 3.0
    head = DirichletHead(gamma, support=V, floor=1e-9)
    weights = head.embed(head.sample(read, make_rng(N)), torch.eye(V))
    assert (weights >= 0).all()
    assert_close(weights.sum(-1), torch.ones(N))
    alpha = read.logits[0].softmax(-1)
    variance = alpha * (1 - alpha) / (gamma + 1)
    assert ((weights.mean(0) - alpha).abs() < 4.5 * (variance / N).sqrt()).all()
    assert_close(weights.var(0), variance, rtol=0.15, atol=1e-4)


def test_a_large_concentration_gives_the_base_mixture(
    make_read: MakeRead, make_rng: Callable
) -> None:
    read = make_read(10)
    head = DirichletHead(1e8, support=V, floor=1e-9)
    found = head.embed(head.sample(read, make_rng(10)), read.table_VD)
    assert_close(found, read.logits.softmax(-1) @ read.table_VD, rtol=0, atol=5e-3)


def test_tiny_concentrations_stay_finite(make_read: MakeRead, make_rng: Callable) -> None:
    read, head = make_read(200), DirichletHead(1e-3, support=V, floor=1e-9)
    action = head.sample(read, make_rng(200))
    assert head.embed(action, read.table_VD).isfinite().all()
    assert head.log_prob(action, read).isfinite().all()
    assert_close(action["log_weights"].exp().sum(-1), torch.ones(200))


@pytest.mark.parametrize("head", [MultiTokenHead(3), DirichletHead(2.0, support=5)])
def test_scores_have_gradients(head: Any, make_read: MakeRead, make_rng: Callable) -> None:
    read = make_read(4)
    action = head.sample(read, make_rng(4))
    logits = read.logits.clone().requires_grad_()
    table = read.table_VD.clone().requires_grad_()
    loss = head.log_prob(action, Readout(logits, read.hidden, table)).sum()
    (loss + head.embed(action, table).square().sum()).backward()
    for gradient in (logits.grad, table.grad):
        assert gradient is not None and gradient.isfinite().all() and gradient.any()


def test_mix_is_a_weighted_sum(make_read: MakeRead) -> None:
    table, ids = make_read(1).table_VD, torch.tensor([[[1, 2], [3, 3]]])
    weights = torch.tensor([[[0.25, 0.75], [0.5, 0.5]]])
    expected = torch.stack([0.25 * table[1] + 0.75 * table[2], table[3]])[None]
    assert_close(mix(ids, weights, table), expected)


# Settings.


@pytest.mark.parametrize("head", [MultiTokenHead(V + 1), MixtureHead(V + 1)])
def test_more_ids_than_the_vocabulary_has_are_refused(
    head: Any, make_read: MakeRead, make_rng: Callable
) -> None:
    with pytest.raises(UsageError, match="k = 10 ids are asked of a vocabulary of 9"):
        head.sample(make_read(1), make_rng(1))


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: MultiTokenHead(0), "k >= 1"),
        (lambda: MultiTokenHead(2, temperature=0), "temperature > 0"),
        (lambda: MixtureHead(temperature=0), "temperature > 0"),
        (lambda: MixtureHead(top_k=0), "top_k >= 1"),
        (lambda: MixtureHead(top_p=0.9), "needs top_k as a bound"),
        (lambda: DirichletHead(gamma=0), "gamma > 0"),
        (lambda: DirichletHead(floor=0), "0 < floor < 1"),
    ],
)
def test_bad_settings_are_refused(make: Callable[[], Any], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        make()
