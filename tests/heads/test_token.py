"""Sampling of single tokens."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from latentgym.errors import UsageError
from latentgym.heads import TokenHead
from latentgym.heads.distributions import categorical, gather_log_prob
from latentgym.heads.token import nucleus

N = 20_000


def frequencies(ids: torch.Tensor, vocab: int) -> torch.Tensor:
    return torch.bincount(ids.flatten(), minlength=vocab) / ids.numel()


def test_tokens_are_drawn_by_their_probability(make_read: Callable, make_rng: Callable) -> None:
    read = make_read(N, same=True)
    for temperature in (1.0, 0.5):
        p = (read.logits[0] / temperature).softmax(-1)
        ids = TokenHead(temperature).sample(read, make_rng(N))["token"]
        chi2 = (N * (frequencies(ids, 9) - p) ** 2 / p).sum()
        assert chi2 < 26.1  # 8 degrees of freedom, p = 0.001


def test_greedy_takes_the_likeliest(make_read: Callable, make_rng: Callable) -> None:
    read = make_read(50)
    action = TokenHead(0).sample(read, make_rng(50))
    assert torch.equal(action["token"], read.logits.argmax(-1))
    expected = read.logits.log_softmax(-1).max(-1).values
    assert_close(TokenHead(0).log_prob(action, read), expected)


@pytest.mark.parametrize(
    ("head", "allowed"), [(TokenHead(top_k=2), {3, 1}), (TokenHead(top_p=0.75), {3, 1, 0})]
)
def test_truncated_sampling(head: TokenHead, allowed: set[int], make_rng: Callable) -> None:
    from latentgym.heads import Readout

    p = torch.tensor([0.15, 0.3, 0.1, 0.4, 0.05])  # 0.4 + 0.3 < 0.75: the id that crosses stays
    read = Readout(p.log().expand(N, 5), torch.zeros(N, 1), torch.zeros(5, 1))
    found = frequencies(head.sample(read, make_rng(N))["token"], 5)
    assert set(found.nonzero().flatten().tolist()) == allowed
    kept = [p[i] if i in allowed else torch.tensor(0.0) for i in range(5)]
    assert_close(found, torch.stack(kept) / sum(kept), atol=0.015, rtol=0)


@settings(max_examples=80, deadline=None)
@given(
    width=st.integers(1, 6000),
    scales=st.lists(st.sampled_from([0.0, 0.01, 0.5, 2.0, 8.0]), min_size=1, max_size=4),
    top_p=st.floats(0.01, 0.999),
    ban=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_the_nucleus_is_that_of_a_full_sort(
    width: int, scales: list[float], top_p: float, ban: bool, seed: int
) -> None:
    """Rows that are flat and rows that are sharp, which are searched to different depths."""
    g = torch.Generator().manual_seed(seed)
    logits = torch.randn(len(scales), width, generator=g, dtype=torch.float64)
    logits *= torch.tensor(scales, dtype=torch.float64)[:, None]
    if ban:
        logits[:, 1::2] = -torch.inf
    found = nucleus(logits, top_p)
    p = logits.softmax(-1).sort(-1, descending=True).values
    before = p.cumsum(-1) - p
    close = ((before - top_p).abs() < 1e-12).sum(-1)  # either is right there
    count = (before < top_p).sum(-1)
    assert ((found.sum(-1) - count).abs() <= close).all()
    # They are the likeliest ones: none outside is likelier than one inside.
    least = logits.masked_fill(~found, torch.inf).min(-1).values
    most = logits.masked_fill(found, -torch.inf).max(-1).values
    assert (least >= most).all()
    alone = torch.cat([nucleus(row[None], top_p) for row in logits])
    assert torch.equal(alone, found)


def test_log_prob_has_the_temperature_but_no_truncation(make_read: Callable) -> None:
    read = make_read(3)
    action = {"token": torch.tensor([0, 4, 8])}
    expected = (read.logits / 0.5).log_softmax(-1).gather(-1, action["token"][:, None])[:, 0]
    assert_close(TokenHead(0.5, top_k=1).log_prob(action, read), expected)


def test_impossible_tokens_are_never_drawn() -> None:
    inf = float("inf")
    logits = torch.tensor([[-inf, 0.0, -inf, 0.0, -inf]])
    extremes = torch.tensor([[2.0**-53, 0.5, 1 - 2.0**-53]], dtype=torch.float64)
    assert categorical(logits, extremes).tolist() == [[1, 3, 3]]


def test_the_tail_of_a_large_vocabulary_is_reached() -> None:
    """Inverting a single-precision sum of 100,000 probabilities would miss some of them."""
    vocab = 100_000
    u = torch.from_numpy((np.arange(vocab) + 0.5)[None] / vocab)
    ids = categorical(torch.zeros(1, vocab), u)
    assert (ids - torch.arange(vocab)).abs().max() <= 1
    assert ids[0, -1] == vocab - 1


def test_gathered_log_probs_are_those_of_the_softmax(make_read: Callable) -> None:
    logits = make_read(4).logits
    ids = torch.randint(9, (4, 3), generator=torch.Generator().manual_seed(0))
    assert_close(gather_log_prob(logits, ids), logits.log_softmax(-1).gather(-1, ids))


@pytest.mark.parametrize(
    "options", [{"temperature": -1}, {"top_p": 0}, {"top_p": 1.1}, {"top_k": 0}]
)
def test_bad_settings_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="sampling needs"):
        TokenHead(**options)
