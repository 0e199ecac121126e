"""What every head must do, for any leading shape."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from latentgym.episodes.spaces import FAMILIES
from latentgym.heads import (
    ControlHead,
    DirichletHead,
    GatedHead,
    GaussianHead,
    GumbelHead,
    HiddenStateHead,
    MixtureHead,
    MultiplexHead,
    MultiTokenHead,
    NoisyMixtureHead,
    PauseHead,
    PolicyHead,
    RATTHead,
    Readout,
    RoutedHead,
    TokenHead,
)
from latentgym.heads.distributions import entropy

HEADS: dict[str, Callable[[], PolicyHead]] = {
    "token": TokenHead,
    "token-greedy": lambda: TokenHead(0),
    "token-top": lambda: TokenHead(0.7, top_k=5, top_p=0.8),
    "mts": lambda: MultiTokenHead(4, temperature=2.0),
    "mixture": MixtureHead,
    "mixture-top": lambda: MixtureHead(top_k=5, top_p=0.8, temperature=0.5),
    "dirichlet": lambda: DirichletHead(gamma=2.0, support=5, floor=0.01),
    "gated": lambda: GatedHead(6, TokenHead(0.7, top_k=5)),
    "gaussian": lambda: GaussianHead(6, 8),
    "control": lambda: ControlHead(MultiTokenHead(2), "zero"),
    "hidden": HiddenStateHead,
    "multiplex": lambda: MultiplexHead(3, temperature=2.0),
    "multiplex-weighted": lambda: MultiplexHead(3, merge="probability"),
    "gumbel": lambda: GumbelHead(4, temperature=2.0),
    "gumbel-exact": lambda: GumbelHead(20, tau=0.7, top_p=1.0, noise="exact", density="sum"),
    "noisy": NoisyMixtureHead,
    "noisy-top": lambda: NoisyMixtureHead(0.1, 0.7, 5, "mean"),
    "routed": lambda: RoutedHead(D, soft_share=0.5),
    "routed-shut": lambda: RoutedHead(D, TokenHead(0.7), soft_share=0.0),
    "routed-official": lambda: RoutedHead(D, k=4, soft_share=0.5, normalised=False),
    "pause": lambda: PauseHead(D),
}
B, T, V, D = 4, 3, 9, 6
MakeRead = Callable[..., Readout]


@pytest.fixture(params=sorted(HEADS))
def head(request: pytest.FixtureRequest) -> PolicyHead:
    return HEADS[request.param]()


def test_thoughts_of_rows(head: PolicyHead, make_read: MakeRead, make_rng: Callable) -> None:
    read = make_read(B)
    action = head.sample(read, make_rng(B))
    assert action["token"].dtype == torch.int64 and action["token"].shape == (B,)
    assert action["token"].min() >= 0 and action["token"].max() < V
    assert {len(value) for value in action.values()} == {B}
    assert head.embed(action, read.table_VD).shape == (B, D)
    logp = head.log_prob(action, read)
    parts = len(head.part_weights)
    assert logp.shape == ((B,) if parts == 1 else (B, parts))
    assert head.drawn(action).shape == (B, parts)
    assert logp.dtype == torch.float32 and logp.isfinite().all()


def test_rows_and_steps_score_as_rows_do(
    head: PolicyHead, make_read: MakeRead, make_rng: Callable
) -> None:
    table = make_read(B).table_VD
    reads = [replace(make_read(B, seed=t), table_VD=table) for t in range(T)]
    actions = [head.sample(read, make_rng(B)) for read in reads]
    whole = {name: torch.stack([a[name] for a in actions], 1) for name in actions[0]}
    read = Readout(
        *(torch.stack([getattr(r, n) for r in reads], 1) for n in ("logits", "hidden")), table
    )
    logp = torch.stack([head.log_prob(a, r) for a, r in zip(actions, reads, strict=True)], 1)
    assert_close(head.log_prob(whole, read), logp)
    embedded = torch.stack([head.embed(a, table) for a in actions], 1)
    assert_close(head.embed(whole, table), embedded)


def test_a_row_thinks_the_same_alone(
    head: PolicyHead, make_read: MakeRead, make_rng: Callable
) -> None:
    read, rng = make_read(B), make_rng(B)
    together = head.sample(read, rng)
    alone = head.sample(
        Readout(read.logits[2:3], read.hidden[2:3], read.table_VD), rng[np.array([2])]
    )
    for name, value in alone.items():
        assert_close(value[0], together[name][2])


def test_the_space_holds_what_is_thought(head: PolicyHead) -> None:
    space = head.action_space(V, D, 4)
    assert space == FAMILIES[head.family].space(V, D, 4)


def test_all_parameters_of_a_head_are_optimised(head: PolicyHead) -> None:
    parameters = [p for group in head.parameter_groups(1e-3) for p in group["params"]]
    assert len(parameters) == len([p for p in head.parameters() if p.requires_grad])


def test_parameters_of_a_head_are_found(make_read: MakeRead) -> None:
    class Scaled(TokenHead):
        def __init__(self) -> None:
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(1))

    (group,) = Scaled().parameter_groups(1e-3)
    assert group["lr"] == 1e-3 and len(group["params"]) == 1


def test_the_heaviest_tokens_of_a_mixture_are_part_of_it(
    head: PolicyHead, make_read: MakeRead, make_rng: Callable
) -> None:
    read = make_read(B)
    action = head.sample(read, make_rng(B))
    every, some = head.heaviest(action, read, V), head.heaviest(action, read, 2)
    if every is None or some is None:
        assert every is some
        return
    ids, weights = every
    assert ids.dtype == torch.int64 and weights.dtype == torch.float32
    assert_close(weights.sum(-1), torch.ones(B))
    assert (weights.diff(dim=-1) <= 0).all() and (weights >= 0).all()
    for id_k, weight_k in zip(ids, weights, strict=True):
        used = id_k[weight_k > 0].tolist()
        assert len(set(used)) == len(used)
    assert torch.equal(some[0], ids[:, :2]) and torch.equal(some[1], weights[:, :2])


@pytest.mark.parametrize(
    "name",
    [n for n in HEADS if n.startswith(("mts", "mix", "multiplex", "dirichlet", "gumbel"))],
)
def test_a_mixture_is_what_the_model_reads(
    name: str, make_read: MakeRead, make_rng: Callable
) -> None:
    head, read = HEADS[name](), make_read(B)
    action = head.sample(read, make_rng(B))
    found = head.heaviest(action, read, V)
    assert found is not None
    ids, weights = found
    mixed = (weights[..., None] * read.table_VD[ids]).sum(-2)
    assert_close(mixed, head.embed(action, read.table_VD))


@pytest.mark.parametrize("name", ["noisy", "ratt"])
def test_nothing_raises_the_entropy_of_noise_of_a_fixed_size(
    name: str, make_read: MakeRead, make_rng: Callable
) -> None:
    read = make_read(B)
    read.logits = read.logits.clone().requires_grad_()
    head = NoisyMixtureHead() if name == "noisy" else RATTHead(D)
    found = head.entropy({"token": read.logits.argmax(-1)}, read)
    assert_close(found, entropy(read.logits).detach())
    assert not found.requires_grad
