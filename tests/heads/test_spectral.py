"""Steps of text by their eigenpairs, and the encoder that tells states from them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from latentgym.heads.spectral import StateEncoder, spectral_summary

N, D = 8, 12


def steps(n: int, seed: int = 0, rows: int = 1) -> Tensor:
    """Steps of n tokens in N places; what stands behind them is no number."""
    x = torch.randn(rows, N, D, generator=torch.Generator().manual_seed(seed))
    x[:, n:] = torch.nan
    return x


def summary(x: Tensor, n: int, k: int = 4) -> Tensor:
    return spectral_summary(x, torch.full((len(x),), n), k)


@given(n=st.integers(1, N), k=st.integers(1, N + 3), seed=st.integers(0, 1000))
def test_it_is_the_eigenpairs_of_the_gram_matrix(n: int, k: int, seed: int) -> None:
    x = steps(n, seed)
    e = x[0, :n].double()
    values, vectors = torch.linalg.eigh(e.T @ e / n)
    most = min(k, n)
    found = summary(x, n, k)[0]
    assert found.shape == (k, D) and not found[most:].any()
    scaled = vectors.flip(-1)[:, :most].T * values.flip(-1)[:most].clamp_min(0).sqrt()[:, None]
    peak = scaled.gather(-1, scaled.abs().argmax(-1, keepdim=True))
    assert_close(found[:most], (scaled * peak.sign()).float(), atol=1e-4, rtol=1e-3)


@given(n=st.integers(1, N), seed=st.integers(0, 1000))
def test_neither_order_nor_sign_nor_repetition_matters(n: int, seed: int) -> None:
    x = steps(n, seed)
    expected = summary(x, n)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    permuted = x.clone()
    permuted[:, :n] = x[:, order]
    assert_close(summary(permuted, n), expected, atol=1e-5, rtol=1e-4)
    assert_close(summary(-x, n), expected, atol=1e-5, rtol=1e-4)
    twice = torch.cat([x[:, :n], x[:, :n]], dim=1)
    assert_close(spectral_summary(twice, torch.tensor([2 * n]), 4), expected, atol=1e-5, rtol=1e-4)


def test_a_step_is_summarised_as_it_is_alone() -> None:
    x = steps(N, rows=5)
    counts = torch.tensor([1, 3, 8, 2, 5])
    together = spectral_summary(x, counts, 3)
    for row, n in enumerate(counts.tolist()):
        assert_close(together[row], summary(x[row : row + 1], n, 3)[0])


def test_an_empty_step_is_zero() -> None:
    assert not summary(steps(0), 0).any()


@pytest.mark.parametrize("seed", range(3))
def test_the_encoder_begins_with_clusters(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    centres = 5 * torch.randn(4, 2 * D, generator=generator)
    which = torch.arange(80) % 4
    e = (centres[which] + 0.1 * torch.randn(80, 2 * D, generator=generator)).view(80, 2, D)
    encoder = StateEncoder(D, 4, 2)
    assert not encoder.fitted
    encoder.fit(e, generator)
    found = encoder.of_summaries(e).argmax(-1)
    assert encoder.fitted
    # One state to each cluster, whatever it is called.
    assert all(len(found[which == c].unique()) == 1 for c in range(4))
    assert len(found.unique()) == 4


def test_the_encoder_tells_probabilities_of_fewer_steps_than_states_too() -> None:
    encoder = StateEncoder(D, 6, 2)
    e = summary(steps(3, rows=2), 3, 2)
    encoder.fit(e, torch.Generator().manual_seed(0))
    logq = encoder(steps(3, rows=2), torch.tensor([3, 3]))
    assert_close(logq, encoder.of_summaries(e))
    assert_close(logq.exp().sum(-1), torch.ones(2))
