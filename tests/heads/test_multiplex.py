"""Sub-tokens with ratios of their own."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch.testing import assert_close

from latentgym.errors import UsageError
from latentgym.heads import MultiplexHead, MultiTokenHead, Readout, TokenHead

B, K = 6, 3


def test_a_plain_merge_feeds_what_mts_feeds(make_read: Callable, make_rng: Callable) -> None:
    read, rng = make_read(B), make_rng(B)
    ours, mts = MultiplexHead(K), MultiTokenHead(K)
    action = ours.sample(read, rng)
    for name, value in mts.sample(read, rng).items():
        assert torch.equal(action[name], value)
    assert torch.equal(ours.embed(action, read.table_VD), mts.embed(action, read.table_VD))


def test_the_product_of_the_ratios_is_that_of_mts_to_the_power_of_k(
    make_read: Callable, make_rng: Callable
) -> None:
    read, other = make_read(B), make_read(B, seed=1)
    ours, mts = MultiplexHead(K, 0.7), MultiTokenHead(K, 0.7)
    action = ours.sample(read, make_rng(B))
    ratios_BK = (ours.log_prob(action, read) - ours.log_prob(action, other)).exp()
    ratio_B = (mts.log_prob(action, read) - mts.log_prob(action, other)).exp()
    assert ratios_BK.shape == (B, K) and ours.part_weights == pytest.approx([1 / K] * K)
    assert_close(ratios_BK.prod(-1), ratio_B**K, rtol=1e-4, atol=0)


def test_one_sub_token_is_a_token(make_read: Callable, make_rng: Callable) -> None:
    read = make_read(B)
    ours, token = MultiplexHead(1, 0.8), TokenHead(0.8)
    action = ours.sample(read, make_rng(B))
    assert torch.equal(action["token"], token.sample(read, make_rng(B))["token"])
    assert torch.equal(ours.log_prob(action, read), token.log_prob(action, read))
    assert torch.equal(ours.embed(action, read.table_VD), token.embed(action, read.table_VD))
    assert ours.part_weights == (1.0,)


def test_weights_are_the_probabilities_of_what_was_drawn() -> None:
    p = torch.tensor([[0.5, 0.3, 0.2]])
    head = MultiplexHead(2, merge="probability")
    read = Readout(p.log(), torch.zeros(1, 3), torch.eye(3))
    action = {"token": torch.tensor([1]), "ids": torch.tensor([[1, 2]])}
    action["weights"] = head._each(action, read).softmax(-1)
    assert_close(head.embed(action, read.table_VD), torch.tensor([[0.0, 0.6, 0.4]]))
    twice = {**action, "ids": torch.tensor([[1, 1]]), "weights": torch.tensor([[0.5, 0.5]])}
    found = head.heaviest(twice, read, 2)
    assert found is not None and found[1].tolist() == [[1.0, 0.0]]


def test_weights_cost_as_much_again_as_sums() -> None:
    mean, weighed = MultiplexHead(K), MultiplexHead(K, merge="probability")
    assert (mean.flops(9, 4)[0], weighed.flops(9, 4)[0]) == (K * 4, 2 * K * 4)


@pytest.mark.parametrize("given", [{"k": 0}, {"temperature": 0.0}])
def test_what_cannot_be(given: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="multi-token sampling needs"):
        MultiplexHead(**given)  # type: ignore[arg-type]
