"""CoLaR's latent head against its formulas."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from latentgym.errors import UsageError
from latentgym.heads import GaussianHead, TokenHead
from latentgym.heads.rng import CounterRNG

D, B = 6, 5


def head(**options: Any) -> GaussianHead:
    torch.manual_seed(0)
    return GaussianHead(D, 16, **options)


@pytest.mark.parametrize("density", ["mean", "sum"])
@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_the_density_is_torchs(
    density: Any, temperature: float, make_read: Callable, make_rng: Callable
) -> None:
    read, gaussian = make_read(B), head(density=density, temperature=temperature)
    action = gaussian.sample(read, make_rng(B))
    mean, log_std = head().distribution(read.hidden)
    normal = torch.distributions.Normal(mean, temperature * log_std.exp())
    each = normal.log_prob(action["latent"])  # type: ignore[no-untyped-call]
    expected = each.mean(-1) if density == "mean" else each.sum(-1)
    assert_close(gaussian.log_prob(action, read), expected)


def test_samples_have_the_mean_and_the_deviation_that_the_head_says(make_read: Callable) -> None:
    n = 4000
    read, gaussian = make_read(n, same=True), head()
    read.hidden = read.hidden[:1].expand(n, -1)
    zeros = np.zeros(n, dtype=np.int64)
    latent = gaussian.sample(read, CounterRNG.at(3, np.arange(n), zeros, zeros))["latent"]
    mean, log_std = gaussian.distribution(read.hidden[:1])
    assert_close(latent.mean(0), mean[0], atol=0.1, rtol=0)
    assert_close(latent.std(0), log_std[0].exp(), atol=0.1, rtol=0.05)


def test_a_deterministic_head_thinks_the_same_whatever_is_drawn(make_read: Callable) -> None:
    read, rows = make_read(B), np.arange(B)
    for gaussian in (head(deterministic=True), head(temperature=0.0)):
        one, two = (
            gaussian.sample(read, CounterRNG.at(seed, rows, 0 * rows, 0 * rows)) for seed in (1, 2)
        )
        assert torch.equal(one["latent"], two["latent"])
        assert not gaussian.log_prob(one, read).any()
    noisy = [
        head().sample(read, CounterRNG.at(s, rows, 0 * rows, 0 * rows))["latent"] for s in (1, 2)
    ]
    assert not torch.allclose(*noisy)


def test_the_noise_is_not_that_of_the_token(make_read: Callable) -> None:
    """The numbers behind the token and behind the vector are drawn apart."""
    rows = np.arange(2000)
    rng = CounterRNG.at(0, rows, 0 * rows, 0 * rows)
    token, noise = rng.uniform(1)[:, 0], rng.normal(1, stream=1)[:, 0]
    assert abs(np.corrcoef(token, noise)[0, 1]) < 0.1


def test_the_scale_is_measured_once_and_kept(make_read: Callable, make_rng: Callable) -> None:
    read, gaussian = make_read(B), head()
    action = gaussian.sample(read, make_rng(B))
    with torch.inference_mode():  # as in a rollout, before any training
        first = gaussian.embed(action, read.table_VD)
    assert_close(first, action["latent"] * read.table_VD.std())
    assert_close(gaussian.embed(action, 7 * read.table_VD), first)
    other = head()
    other.load_state_dict(gaussian.state_dict())
    assert torch.equal(other.scale, gaussian.scale) and not gaussian.scale.is_inference()


def test_thinking_stops_by_the_language_models_own_token(
    make_read: Callable, make_rng: Callable
) -> None:
    read, stop = make_read(B), TokenHead(0.0)
    assert torch.equal(head(stop=stop).sample(read, make_rng(B))["token"], read.logits.argmax(-1))


def test_a_negative_temperature_is_refused() -> None:
    with pytest.raises(UsageError, match="cannot be negative"):
        head(temperature=-1.0)


@pytest.mark.parametrize("density", ["mean", "sum"])
def test_the_entropy_is_torchs(density: Any, make_read: Callable, make_rng: Callable) -> None:
    read, gaussian = make_read(B), head(density=density, temperature=0.7)
    mean, log_std = head().distribution(read.hidden)
    each = torch.distributions.Normal(mean, 0.7 * log_std.exp()).entropy()  # type: ignore[no-untyped-call]
    expected = each.mean(-1) if density == "mean" else each.sum(-1)
    found = gaussian.entropy(gaussian.sample(read, make_rng(B)), read)
    assert_close(found, expected)
    assert found.requires_grad
