"""A protocol that random models end in many ways, prompts of unequal length, and toy heads."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from latentgym.episodes.protocol import Budget, Protocol, StopMatcher
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
    RoutedHead,
    TokenHead,
    TransitionHead,
)

HEADS: dict[str, Callable[[], PolicyHead]] = {
    "token": lambda: TokenHead(0.8, top_p=0.9),
    "mts": lambda: MultiTokenHead(4, temperature=1.5),
    "mixture": MixtureHead,
    "mixture-top": lambda: MixtureHead(top_k=8, top_p=0.9),
    "dirichlet": lambda: DirichletHead(gamma=4.0, support=16),
    "control": lambda: ControlHead(MixtureHead(top_k=4), "noise"),
    "gated": lambda: GatedHead(32, TokenHead(0.7, top_k=20), r_min=0.5),
    "gaussian": lambda: GaussianHead(32, 16),
    "ratt": lambda: RATTHead(32, 0.5),
    "hidden": HiddenStateHead,
    "pause": lambda: PauseHead(32),
    "multiplex": lambda: MultiplexHead(3, merge="probability"),
    "gumbel": lambda: GumbelHead(temperature=2.0),
    "noisy": NoisyMixtureHead,
    "routed": lambda: RoutedHead(32, soft_share=0.5),
    "transitions": lambda: transitions(2),
    "transitions-added": lambda: transitions(0),
}


def transitions(prefix: int) -> PolicyHead:
    """Latent states whose vectors are no zeros."""
    head = TransitionHead(
        *(32, TokenHead()),
        step_end=torch.arange(3, 259, 4),
        states=5,
        prefix=prefix,
        longest=3,
        epsilon=0.3,
        learns="transitions",
    )
    torch.nn.init.normal_(head.vectors)
    return head


@pytest.fixture(params=sorted(HEADS))
def head(request: pytest.FixtureRequest) -> PolicyHead:
    """Every head in turn."""
    return HEADS[request.param]()


def table(every: int, rest: int) -> StopMatcher:
    """A mark that one id in `every` of the byte vocabulary completes."""
    return StopMatcher("#", ["#" if i % every == rest else "a" for i in range(259)])


@pytest.fixture(scope="session")
def protocol() -> Protocol:
    """Marks, ends and budgets all happen within a few steps of a random model."""
    return Protocol(
        think=Budget(12),
        answer=Budget(6),
        marker=table(12, 0),
        stop=table(8, 1),
        eos=tuple(range(2, 259, 16)),
        forced_prompt=(65, 66),
    )


@pytest.fixture(scope="session")
def prompts() -> list[list[int]]:
    return [list(b"seven bytes"), list(b"two"), list(b"a prompt that is longer"), list(b"four")]
