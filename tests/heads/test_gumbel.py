"""Gumbel-softmax thoughts: their distribution, their density, their limits."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import stats
from torch.testing import assert_close

from latentgym.errors import UsageError
from latentgym.heads import GumbelHead, Readout
from latentgym.heads.rng import CounterRNG

N = 20_000


def many(logits_V: torch.Tensor, rows: int = N) -> tuple[Readout, CounterRNG]:
    """The same step many times."""
    V = len(logits_V)
    read = Readout(logits_V.expand(rows, V), torch.zeros(rows, 4), torch.eye(V))
    return read, CounterRNG.at(
        7, np.arange(rows), np.zeros(rows, np.int64), np.zeros(rows, np.int64)
    )


EXACT = {"top_p": 1.0, "noise": "exact", "density": "sum"}
LOGITS = torch.tensor([1.0, 0.2, -0.5, -3.0])


def test_towards_zero_a_thought_is_a_sampled_token() -> None:
    head = GumbelHead(4, tau=1e-4, **EXACT)
    read, rng = many(LOGITS)
    action = head.sample(read, rng)
    counts = torch.bincount(action["token"], minlength=4).numpy()
    assert stats.chisquare(counts, N * LOGITS.double().softmax(-1).numpy()).pvalue > 1e-3
    assert_close(head.embed(action, read.table_VD).amax(-1).median(), torch.tensor(1.0))


def test_the_density_integrates_to_one_and_is_that_of_the_samples() -> None:
    """Of two ids: on a grid, and by the histogram of what is drawn."""
    head, logits = GumbelHead(2, **EXACT), LOGITS[:2]
    grid = torch.linspace(-8, 25, 1200)
    g = torch.cartesian_prod(grid, grid)
    ids = torch.arange(2).expand_as(g)
    read = Readout(logits.expand(len(g), 2), torch.zeros(len(g), 4), torch.eye(2))
    counts = torch.ones_like(g, dtype=torch.bool)
    action = {"token": ids[:, 0], "ids": ids, "perturbed": g, "counts": counts}
    p = head.log_prob(action, read).double().exp().view(1200, 1200)
    step = float(grid[1] - grid[0])
    assert float(p.sum()) * step**2 == pytest.approx(1.0, abs=1e-3)
    drawn = head.sample(*many(logits))["perturbed"][:, 0].numpy()
    found = stats.kstest(drawn, stats.gumbel_r(loc=float(logits.log_softmax(-1)[0])).cdf)
    assert found.pvalue > 1e-3


def test_noise_is_kept_within_its_range(make_read: Callable, make_rng: Callable) -> None:
    head = GumbelHead(4, top_p=1.0)
    read, rng = many(LOGITS)
    action = head.sample(read, rng)
    noise = action["perturbed"] - read.logits.gather(-1, action["ids"]).log_softmax(-1)
    assert float(noise.min()) == pytest.approx(-1.5, abs=1e-5)
    assert float(noise.max()) == pytest.approx(3.0, abs=1e-5)
    logp = LOGITS.log_softmax(-1)
    assert torch.equal(action["counts"][0], (logp > -3)[action["ids"][0]])
    each = -noise - (-noise).exp()
    mean = (each * action["counts"]).sum(-1) / action["counts"].sum(-1)
    assert_close(head.log_prob(action, read), mean, rtol=1e-4, atol=1e-5)


def test_what_the_nucleus_leaves_out_is_neither_fed_nor_scored() -> None:
    head = GumbelHead(4, top_p=0.5)
    read, rng = many(torch.tensor([3.0, 0.0, 0.0, 0.0]), 8)
    action = head.sample(read, rng)
    assert_close(head.embed(action, read.table_VD), torch.eye(4)[:1].expand(8, 4))
    logits = read.logits.clone().requires_grad_()
    head.log_prob(action, Readout(logits, read.hidden, read.table_VD)).sum().backward()
    assert logits.grad is not None and not logits.grad.any()  # one id has probability 1


def test_the_score_has_mean_zero() -> None:
    """The gradient of a density's logarithm has, over its own samples; a clamp would bias it."""
    head = GumbelHead(4, **EXACT)
    logits = LOGITS.clone().requires_grad_()
    read, rng = many(LOGITS)
    action = head.sample(read, rng)
    again = Readout(logits.expand(N, 4), read.hidden, read.table_VD)
    (gradient,) = torch.autograd.grad(head.log_prob(action, again).mean(), logits)
    assert float(gradient.abs().max()) < 0.03


@pytest.mark.parametrize("given", [{"k": 0}, {"tau": 0.0}, {"top_p": 0.0}, {"temperature": 0.0}])
def test_what_cannot_be(given: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="Gumbel-softmax needs"):
        GumbelHead(**given)  # type: ignore[arg-type]
