"""The choice between a token and a mixture."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch.testing import assert_close

from latentgym.errors import UsageError
from latentgym.heads import Readout, RoutedHead, TokenHead

B, D = 6, 6


def test_a_shut_router_is_the_token_head(make_read: Callable, make_rng: Callable) -> None:
    read = make_read(B)
    head, token = RoutedHead(D, TokenHead(0.7), soft_share=0.0), TokenHead(0.7)
    action = head.sample(read, make_rng(B))
    assert torch.equal(action["token"], token.sample(read, make_rng(B))["token"])
    assert action["plain"].all() and head.parameter_groups(1e-3) == []
    assert torch.equal(head.log_prob(action, read)[..., 0], token.log_prob(action, read))
    assert head.drawn(action).tolist() == [[True, False]] * B


@pytest.mark.parametrize("share", [0.01, 0.1, 0.6])
def test_it_begins_with_its_share(share: float, make_read: Callable, make_rng: Callable) -> None:
    read = make_read(20_000)
    torch.manual_seed(0)
    head = RoutedHead(D, soft_share=share)
    action = head.sample(read, make_rng(20_000))
    found = float((~action["plain"]).float().mean())
    assert found == pytest.approx(share, abs=4 * (share * (1 - share) / 20_000) ** 0.5)


def test_parts_are_the_token_and_the_mode(make_read: Callable, make_rng: Callable) -> None:
    read = make_read(64)
    torch.manual_seed(0)
    head = RoutedHead(D, soft_share=0.5, mode_weight=0.2)
    action = head.sample(read, make_rng(64))
    plain = action["plain"]
    assert plain.any() and not plain.all() and head.part_weights == (1.0, 0.2)
    modes = head.router(read.hidden).log_softmax(-1)
    assert_close(head.log_prob(action, read)[:, 1], torch.where(plain, modes[:, 0], modes[:, 1]))
    assert torch.equal(head.drawn(action), torch.stack([plain, torch.ones_like(plain)], -1))
    head.scores_all_tokens = True
    assert head.drawn(action).all()


def test_gradients_of_the_mode_reach_the_router_alone_where_a_mixture_was_fed(
    make_read: Callable, make_rng: Callable
) -> None:
    read = make_read(B)
    head = RoutedHead(D, soft_share=0.5)
    action = head.sample(read, make_rng(B))
    logits = read.logits.clone().requires_grad_()
    logp = head.log_prob(action, Readout(logits, read.hidden, read.table_VD))
    (logp * head.drawn(action))[~action["plain"]].sum().backward()
    assert head.router.weight.grad is not None and head.router.weight.grad.any()
    assert logits.grad is not None and not logits.grad.any()


def test_mixtures_add_up_to_one_unless_the_official_weights_are_asked_for(
    make_read: Callable, make_rng: Callable
) -> None:
    read = make_read(B)
    for normalised in (True, False):
        head = RoutedHead(D, k=4, soft_share=0.5, normalised=normalised)
        action = head.sample(read, make_rng(B))
        total = torch.ones(B) if normalised else read.logits.softmax(-1).topk(4).values.sum(-1)
        assert_close(action["weights"].sum(-1), total)
        mixed = (action["weights"][..., None] * read.table_VD[action["ids"]]).sum(-2)
        assert_close(head.embed(action, read.table_VD), mixed)


@pytest.mark.parametrize("given", [{"k": 0}, {"soft_share": 1.0}, {"soft_share": -0.1}])
def test_what_cannot_be(given: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="a router needs"):
        RoutedHead(D, **given)  # type: ignore[arg-type]
