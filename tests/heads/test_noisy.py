"""Mixtures with Gaussian noise."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch.distributions import Normal
from torch.testing import assert_close

from latentgym.errors import UsageError
from latentgym.heads import MixtureHead, NoisyMixtureHead, Readout

B = 5


def test_without_noise_it_is_the_mixture(make_read: Callable, make_rng: Callable) -> None:
    read = make_read(B)
    head, mixture = NoisyMixtureHead(0.0), MixtureHead(temperature=0.5)
    action = head.sample(read, make_rng(B))
    expected = mixture.embed(mixture.sample(read, make_rng(B)), read.table_VD)
    assert torch.equal(head.embed(action, read.table_VD), expected)
    assert head.deterministic and not head.drawn(action).any()
    assert not head.log_prob(action, read).any()


@pytest.mark.parametrize("top_k", [None, 3])
def test_the_density_is_that_of_torch(
    top_k: int | None, make_read: Callable, make_rng: Callable
) -> None:
    read = make_read(B)
    head = NoisyMixtureHead(0.4, 0.7, top_k)
    action = head.sample(read, make_rng(B))
    mixture = MixtureHead(top_k, temperature=0.7)
    mean = mixture.embed(mixture.sample(read, make_rng(B)), read.table_VD)
    sigma = 0.4 * read.table_VD.square().mean().sqrt()
    each = Normal(mean, sigma).log_prob(action["latent"])
    assert_close(head.log_prob(action, read), each.sum(-1))
    head.density = "mean"
    assert_close(head.log_prob(action, read), each.mean(-1))


def test_the_noise_has_its_size(make_read: Callable, make_rng: Callable) -> None:
    read = make_read(4000)
    head = NoisyMixtureHead()
    action = head.sample(read, make_rng(4000))
    noise = action["latent"] - head._mixed(read)[1]
    size = 0.33 * float(read.table_VD.square().mean().sqrt())
    assert float(noise.std()) == pytest.approx(size, rel=0.02)
    assert float(noise.mean()) == pytest.approx(0.0, abs=0.02 * size)


def test_fuzzy_tokens_are_the_likeliest_with_noise(make_read: Callable, make_rng: Callable) -> None:
    read = make_read(B)
    head = NoisyMixtureHead(0.33, temperature=1e-4)
    assert_close(head._mixed(read)[1], read.table_VD[read.logits.argmax(-1)])
    assert torch.equal(head.sample(read, make_rng(B))["token"], read.logits.argmax(-1))


def test_gradients_reach_the_logits(make_read: Callable, make_rng: Callable) -> None:
    read = make_read(B)
    head = NoisyMixtureHead()
    action = head.sample(read, make_rng(B))
    logits = read.logits.clone().requires_grad_()
    head.log_prob(action, Readout(logits, read.hidden, read.table_VD)).sum().backward()
    assert logits.grad is not None and bool(logits.grad.abs().amax(-1).all())


@pytest.mark.parametrize("scale", [0.0, 0.1])
def test_a_head_of_another_scale_takes_over_the_size_of_the_table_alone(
    scale: float, make_read: Callable, make_rng: Callable
) -> None:
    """As whoever answers takes over what a learner has measured, and thinks without its noise."""
    read = make_read(B)
    learner, other, fresh = (NoisyMixtureHead(each) for each in (0.33, scale, scale))
    learner.sample(read, make_rng(B))
    other.load_state_dict(learner.state_dict())
    found, expected = (head.sample(read, make_rng(B)) for head in (other, fresh))
    assert torch.equal(found["latent"], expected["latent"])


def test_negative_noise_is_refused() -> None:
    with pytest.raises(UsageError, match="at least 0"):
        NoisyMixtureHead(-0.1)
