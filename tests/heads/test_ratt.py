"""LatentRATT against its formula."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from latentgym.errors import UsageError
from latentgym.heads import RATTHead, Readout
from latentgym.heads.ratt import rotated
from latentgym.heads.rng import CounterRNG

D, B, P = 6, 3, 5


def head(std: float = 0.0) -> RATTHead:
    torch.manual_seed(0)
    return RATTHead(D, std)


def read(pad: int = 0, seed: int = 1, behind: float = 1e3) -> Readout:
    """Rows whose prompts are padded on the left, the query at their last position."""
    torch.manual_seed(seed)
    memory = torch.randn(B, P, D)
    mask = torch.ones(B, pad + P, dtype=torch.bool)
    mask[:, :pad] = False
    padded = torch.cat([torch.full((B, pad, D), behind), memory], dim=1)
    return Readout(torch.zeros(B, 4), memory[:, -1], torch.zeros(4, D), padded, mask)


def seen_by(ratt: RATTHead, seen: Readout) -> Readout:
    """With what the head remembers of the prompt."""
    return replace(seen, memory=ratt.remember(seen.memory, seen.memory_mask))


def rotated_slowly(x: Tensor, place: int) -> Tensor:
    """Pairs of elements as complex numbers, turned one by one."""
    half = len(x) // 2
    out = torch.empty_like(x)
    for i in range(half):
        angle = place * 1000.0 ** (-i / half)
        z = complex(float(x[i]), float(x[i + half])) * complex(math.cos(angle), math.sin(angle))
        out[i], out[i + half] = z.real, z.imag
    return out


def test_it_is_one_attention_head_with_rotary_embeddings() -> None:
    """Positions are counted from the prompt's beginning here, as the authors count them."""
    ratt, seen = head(), read()
    with torch.no_grad():
        latent = ratt.attend(seen_by(ratt, seen))
        for row in range(B):
            memory = seen.memory[row]
            query = rotated_slowly(ratt.query(memory[-1]), P - 1)
            keys = torch.stack([rotated_slowly(ratt.key(m), j) for j, m in enumerate(memory)])
            weights = (keys @ query / math.sqrt(D)).softmax(0)
            assert_close(latent[row], weights @ ratt.value(memory), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("pad", [1, 4])
@pytest.mark.parametrize("behind", [1e3, math.nan, math.inf])
def test_padding_changes_nothing(pad: int, behind: float) -> None:
    found, expected = head(), head()
    padded, plain = (
        ratt.attend(seen_by(ratt, seen))
        for ratt, seen in ((found, read(pad, behind=behind)), (expected, read()))
    )
    assert_close(padded, plain)
    for latent in (padded, plain):
        latent.square().sum().backward()
    for a, b in zip(found.parameters(), expected.parameters(), strict=True):
        assert_close(a.grad, b.grad)


def test_every_position_of_the_prompt_counts() -> None:
    ratt, seen = head(), read()
    seen.memory.requires_grad_()
    ratt.attend(seen_by(ratt, seen)).square().sum().backward()
    assert (seen.memory.grad.abs().sum(-1) > 0).all()


def test_noise_has_the_deviation_that_is_set_and_quiet_rows_have_none() -> None:
    n = 3000
    one = read()
    many = Readout(
        *(x[:1].expand(n, *x.shape[1:]) for x in (one.logits, one.hidden)),
        one.table_VD,
        *(x[:1].expand(n, *x.shape[1:]) for x in (one.memory, one.memory_mask)),
    )
    zeros = np.zeros(n, dtype=np.int64)
    rng = CounterRNG.at(3, np.arange(n), zeros, zeros).noise_free(np.arange(n) < 10)
    noisy, clean = head(1.5), head()
    many = seen_by(clean, many)  # both have the same weights
    latent = noisy.sample(many, rng)["latent"]
    mean = clean.sample(many, rng)["latent"]
    assert torch.equal(latent[:10], mean[:10])
    assert_close((latent - mean)[10:].std(0), torch.full((D,), 1.5), atol=0.1, rtol=0)
    normal = torch.distributions.Normal(mean, 1.5)
    expected = normal.log_prob(latent).sum(-1)
    assert_close(noisy.log_prob({"latent": latent}, many), expected)
    assert not clean.log_prob({"latent": mean}, many).any()


def test_the_score_function_moves_the_mean_towards_the_noise() -> None:
    ratt = head(0.5)
    seen = seen_by(ratt, read())
    latent = ratt.attend(seen).detach() + 0.1
    ratt.log_prob({"latent": latent}, seen).sum().backward()
    bias = ratt.value.bias.grad  # d/dmean log N = (x - mean) / std^2, and each weight row adds to 1
    assert_close(bias, torch.full((D,), B * 0.1 / 0.25))


def test_turning_keeps_lengths_and_depends_on_distance_alone() -> None:
    torch.manual_seed(2)
    a, b = torch.randn(2, D)
    place = torch.tensor([0, 3, 7])
    turned = rotated(a.expand(3, -1), place)
    assert_close(turned.norm(dim=-1), a.norm().expand(3))
    assert torch.equal(turned[0], a)
    near = (rotated(a, place[1]) * rotated(b, place[0])).sum()
    far = (rotated(a, place[2]) * rotated(b, torch.tensor(4))).sum()
    assert_close(near, far)


def test_what_cannot_be_a_head_is_refused() -> None:
    with pytest.raises(UsageError, match="negative"):
        RATTHead(4, -1.0)
    with pytest.raises(UsageError, match="even width"):
        RATTHead(5)
