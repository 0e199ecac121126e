"""Random numbers are functions of their counters, and have the distributions that they claim."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from latentgym.episodes.rng import derive
from latentgym.heads import rng as counters
from latentgym.heads.rng import CounterRNG

COUNTER = st.integers(0, 2**31)


def rng(n: int, seed: int = 0) -> CounterRNG:
    rows = np.arange(n)
    return CounterRNG.at(seed, rows % 7, rows // 7, rows % 3)


@given(st.integers(-(2**63), 2**63), st.lists(st.tuples(COUNTER, COUNTER, COUNTER), min_size=2))
def test_a_row_draws_the_same_alone_and_in_any_batch(
    seed: int, rows: list[tuple[int, int, int]]
) -> None:
    question, sample, step = np.array(rows, dtype=np.int64).T
    together = CounterRNG.at(seed, question, sample, step)
    alone = CounterRNG.at(seed, question[1:2], sample[1:2], step[1:2])
    alpha = torch.full((len(rows), 2), 0.3)
    assert (together.uniform(5)[1:2] == alone.uniform(5)).all()
    assert (together.normal(5)[1:2] == alone.normal(5)).all()
    assert (together.log_gamma(alpha)[1:2] == alone.log_gamma(alpha[1:2])).all()
    assert (together[np.array([1])].uniform(5) == alone.uniform(5)).all()


def test_the_first_draws_do_not_depend_on_how_many_follow() -> None:
    assert (rng(4).uniform(8)[:, :3] == rng(4).uniform(3)).all()


@pytest.mark.parametrize("counter", range(4))
def test_every_counter_changes_the_draws(counter: int) -> None:
    counters = [3, 1, 1, 1]
    before = CounterRNG.at(counters[0], *(np.array([c]) for c in counters[1:])).uniform(4)
    counters[counter] += 1
    after = CounterRNG.at(counters[0], *(np.array([c]) for c in counters[1:])).uniform(4)
    assert (before != after).all()


def test_counters_are_not_interchangeable() -> None:
    one, two = np.array([1]), np.array([2])
    assert CounterRNG.at(0, one, two, one).uniform(1) != CounterRNG.at(0, two, one, one).uniform(1)


def kolmogorov_smirnov(values: np.ndarray) -> float:
    """sqrt(n) times the greatest distance from the uniform distribution; 1.95 is p = 0.001."""
    x, n = np.sort(values.ravel()), values.size
    steps = np.arange(n + 1) / n
    return math.sqrt(n) * max((steps[1:] - x).max(), (x - steps[:-1]).max())


def test_uniform_numbers_are_uniform() -> None:
    u = rng(20_000).uniform(4).numpy()
    assert u.min() > 0 and u.max() < 1
    assert kolmogorov_smirnov(u) < 1.95
    assert kolmogorov_smirnov(rng(20_000, seed=1).uniform(1, stream=5).numpy()) < 1.95


@pytest.mark.parametrize("bits", [0, -1])
def test_no_bits_give_zero_or_one(bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counters, "_mix", lambda x: torch.full_like(x, bits))
    assert 0 < rng(1).uniform(1).item() < 1


def test_neighbouring_draws_are_independent() -> None:
    """Chi-square of pairs over a grid: neighbours in a row, in rows, and in streams."""
    d = rng(20_000)
    u, v = d.uniform(2).numpy(), d.uniform(1, stream=1).numpy()
    for x, y in ((u[:, 0], u[:, 1]), (u[:-1, 0], u[1:, 0]), (u[:, 0], v[:, 0])):
        counts, _, _ = np.histogram2d(x, y, bins=10, range=[[0, 1], [0, 1]])
        chi2 = ((counts - len(x) / 100) ** 2 / (len(x) / 100)).sum()
        assert chi2 < 148.2  # 99 degrees of freedom, p = 0.001


def test_normal_numbers_have_the_moments_of_a_normal() -> None:
    x = rng(50_000).normal(2).numpy()
    n = x.size
    assert abs(x.mean()) < 4 / math.sqrt(n)
    assert abs(x.var() - 1) < 4 * math.sqrt(2 / n)
    assert abs((x**3).mean()) < 4 * math.sqrt(15 / n)
    assert abs((x**4).mean() - 3) < 4 * math.sqrt(96 / n)
    assert abs(np.corrcoef(x.T)[0, 1]) < 4 / math.sqrt(len(x))
    cdf = 0.5 * (1 + torch.erf(torch.from_numpy(x) / math.sqrt(2))).numpy()
    assert kolmogorov_smirnov(cdf) < 1.95


@pytest.mark.parametrize("alpha", [1e-3, 0.1, 0.7, 1.0, 3.5, 50.0])
def test_log_gamma_has_the_moments_of_a_log_gamma(alpha: float) -> None:
    """E log G = digamma(alpha), Var log G = trigamma(alpha)."""
    n = 40_000
    x = rng(n).log_gamma(torch.full((n, 1), alpha)).numpy()
    shape = torch.tensor(alpha, dtype=torch.float64)
    mean, variance = float(torch.digamma(shape)), float(torch.polygamma(1, shape))
    assert np.isfinite(x).all()
    assert x.mean() == pytest.approx(mean, abs=4 * math.sqrt(variance / n))
    # The fourth central moment is 3 var^2 + polygamma(3).
    spread = math.sqrt((2 * variance**2 + float(torch.polygamma(3, shape))) / n)
    assert x.var() == pytest.approx(variance, abs=4 * spread)


def test_log_gamma_takes_a_concentration_per_draw() -> None:
    alpha = torch.tensor([[0.5, 20.0]])
    x = rng(5_000).log_gamma(alpha.expand(5_000, 2)).mean(0)
    assert x.tolist() == pytest.approx(torch.digamma(alpha[0]).tolist(), abs=0.15)


def test_derived_seeds_differ_and_repeat() -> None:
    seeds = {derive(a, b) for a in range(50) for b in range(50)}
    assert len(seeds) == 2500
    assert derive(3, 4) == derive(3, 4)
    assert min(seeds) >= 0 and max(seeds) < 2**63
    assert derive(-1) != derive(1)


def test_the_mixing_function_is_splitmix64() -> None:
    """The first numbers of the published generator, seed 1234567."""
    state, found = torch.tensor(1234567), []
    for _ in range(3):
        found.append(int(counters._mix(state)) % 2**64)
        state = state + counters._GOLDEN
    assert found == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_numbers_are_those_of_before() -> None:
    """Made in unsigned integers by NumPy, when the first records were."""
    rows = np.arange(3)
    rng = CounterRNG.at(-7, rows * 1000, rows + 1, rows * 2)
    uniform, normal = rng.uniform(1).ravel().tolist(), rng.normal(1).ravel().tolist()
    assert [x.hex() for x in uniform[:2]] == ["0x1.c61857b6aca12p-2", "0x1.317099ca69e22p-2"]
    assert normal[:2] == pytest.approx([-1.236927411019133, -0.5748272724605513], abs=1e-14)
    assert rng.apart(3).uniform(1, stream=2)[0].item() == 0.6562868761897055


def test_quiet_rows_draw_zeros_and_leave_the_others_alone() -> None:
    rows = np.arange(6)
    rng = CounterRNG.at(0, rows, 0 * rows, 0 * rows)
    noise_free = rng.noise_free(rows < 2)
    assert not noise_free.normal(5)[:2].any()
    assert torch.equal(noise_free.normal(5)[2:], rng.normal(5)[2:])
    assert torch.equal(noise_free.uniform(5), rng.uniform(5))
    assert not noise_free[rows % 2 == 0].normal(3)[:1].any()
    assert torch.equal(rng.noise_free(rows < 0).normal(3), rng.normal(3))


def test_draws_for_other_purposes_are_others_and_as_reproducible() -> None:
    zeros = np.zeros(50, dtype=np.int64)
    rng = CounterRNG.at(3, np.arange(50), zeros, zeros)
    kinds = [rng, rng.apart(0), rng.apart(1), rng.apart(0).apart(0)]
    numbers = [
        set(each.uniform(200, stream).ravel().tolist()) for each in kinds for stream in range(3)
    ]
    assert len(set().union(*numbers)) == len(kinds) * 3 * 50 * 200
    assert torch.equal(rng.apart(1).uniform(5), rng.apart(1).uniform(5))
    rows = np.array([4, 2])
    assert torch.equal(rng[rows].apart(1).normal(5), rng.apart(1).normal(5)[rows])
