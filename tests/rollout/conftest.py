"""A protocol that random models end in many ways, prompts of unequal length, and toy heads."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from latentgym.heads import (
    Action,
    ControlHead,
    DirichletHead,
    GatedHead,
    GaussianHead,
    HiddenStateHead,
    MixtureHead,
    MultiTokenHead,
    PauseHead,
    PolicyHead,
    Readout,
    TokenHead,
)
from latentgym.protocol import Budget, MarkTable, Protocol
from latentgym.rng import Draws


class RecallingHead(PolicyHead):
    """A Gaussian vector around what attention reads in the prompt (as LatentR3 has it)."""

    family = "hybrid"
    needs_memory = True

    def sample(self, read: Readout, draws: Draws) -> Action:
        noise = torch.from_numpy(draws.normal(read.hidden.shape[-1])).to(read.hidden)
        return {"token": read.logits.argmax(-1), "latent": self._mean(read) + 0.5 * noise}

    def embed(self, action: Action, table_VD: Tensor) -> Tensor:
        return action["latent"]

    def log_prob(self, action: Action, read: Readout) -> Tensor:
        return torch.distributions.Normal(self._mean(read), 0.5).log_prob(action["latent"]).mean(-1)

    def _mean(self, read: Readout) -> Tensor:
        assert read.memory is not None and read.memory_mask is not None
        scores = 0.01 * (read.memory @ read.hidden.unsqueeze(-1)).squeeze(-1)  # flat
        weights = scores.masked_fill(~read.memory_mask, -torch.inf).softmax(-1)
        return (weights.unsqueeze(-2) @ read.memory).squeeze(-2)


HEADS: dict[str, Callable[[], PolicyHead]] = {
    "token": lambda: TokenHead(0.8, top_p=0.9),
    "mts": lambda: MultiTokenHead(4, temperature=1.5),
    "mixture": MixtureHead,
    "mixture-top": lambda: MixtureHead(top_k=8, top_p=0.9),
    "dirichlet": lambda: DirichletHead(gamma=4.0, support=16),
    "control": lambda: ControlHead(MixtureHead(top_k=4), "noise"),
    "gated": lambda: GatedHead(32, TokenHead(0.7, top_k=20), r_min=0.5),
    "gaussian": lambda: GaussianHead(32, 16),
    "recalling": RecallingHead,
    "hidden": HiddenStateHead,
    "pause": lambda: PauseHead(32),
}


@pytest.fixture(params=sorted(HEADS))
def head(request: pytest.FixtureRequest) -> PolicyHead:
    """Every head in turn."""
    return HEADS[request.param]()


def table(every: int, rest: int) -> MarkTable:
    """A mark that one id in `every` of the byte vocabulary completes."""
    return MarkTable("#", ["#" if i % every == rest else "a" for i in range(259)])


@pytest.fixture(scope="session")
def protocol() -> Protocol:
    """Marks, ends and budgets all happen within a few steps of a random model."""
    return Protocol(
        think=Budget(12),
        answer=Budget(6),
        mark=table(12, 0),
        stop=table(8, 1),
        eos=tuple(range(2, 259, 16)),
        bridge=(65, 66),
    )


@pytest.fixture(scope="session")
def prompts() -> list[list[int]]:
    return [list(b"seven bytes"), list(b"two"), list(b"a prompt that is longer"), list(b"four")]
