"""The whole mixture with Gaussian noise on it (Soft Tokens).

"Soft Tokens, Hard Truths" (arXiv 2509.19170): the model reads z = p E + sigma * n with p the
softmax of the logits at a temperature, E the embedding table and n standard normal; the density of
a thought is that of Normal(p E, sigma^2 I), by which p learns.

Legend: ... any leading shape, V vocabulary, D width.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from latentgym.errors import UsageError
from latentgym.heads.base import Action, PolicyHead, Readout, rms
from latentgym.heads.rng import CounterRNG
from latentgym.heads.superposition import MixtureHead

_LOG_2_PI = math.log(2 * math.pi)


class NoisyMixtureHead(PolicyHead):
    """A Gaussian around the mixture.

    Args:
        scale: sigma as a share of the root mean square of the embedding table's numbers.
        temperature: of the mixture; towards 0 it is the likeliest embedding ("fuzzy tokens").
        top_k: mix the k most likely ids alone; None mixes all V, at the cost of another
            language-model head per step.
        density: `sum` over the D numbers, the true density, as published; `mean` keeps ratios tame.

    Attributes:
        size: root mean square of the embedding table's numbers, measured when it is first needed,
            then kept and saved.
    """

    family = "continuous"
    size: Tensor

    def __init__(
        self,
        scale: float = 0.33,
        temperature: float = 0.5,
        top_k: int | None = None,
        density: Literal["mean", "sum"] = "sum",
    ) -> None:
        super().__init__()
        if scale < 0:
            raise UsageError(f"noise needs a scale of at least 0, but has {scale}.")
        self.mixture = MixtureHead(top_k=top_k, temperature=temperature)
        self.scale, self.density = scale, density
        self.deterministic = scale == 0
        self.register_buffer("size", torch.tensor(torch.nan))

    def sample(self, read: Readout, rng: CounterRNG) -> Action:
        action, mean = self._mixed(read)
        noise = rng.normal(mean.shape[-1], stream=1).to(mean)
        return {"token": action["token"], "latent": mean + self._sigma(read.table_VD) * noise}

    def embed(self, action: Action, table_VD: Tensor) -> Tensor:
        return action["latent"].to(table_VD.dtype)

    def log_prob(self, action: Action, read: Readout) -> Tensor:
        if self.deterministic:
            return torch.zeros_like(read.logits[..., 0])
        mean, sigma = self._mixed(read)[1], self._sigma(read.table_VD)
        z = (action["latent"].float() - mean) / sigma
        each = -0.5 * (z.square() + _LOG_2_PI) - sigma.log()
        return each.mean(-1) if self.density == "mean" else each.sum(-1)

    def heaviest(self, action: Action, read: Readout, most: int) -> tuple[Tensor, Tensor] | None:
        """Those of the mixture below the noise."""
        return self.mixture.heaviest(self._mixed(read)[0], read, most)

    def entropy(self, action: Action, read: Readout) -> Tensor:
        """Of the next-token distribution, detached: that of the noise is always the same."""
        return super().entropy(action, read).detach()

    def flops(self, vocab_size: int, hidden_size: int) -> tuple[float, float]:
        return self.mixture.flops(vocab_size, hidden_size)

    def statistics(self, action: Action, table_VD: Tensor) -> dict[str, Tensor]:
        """`size`: root mean square of a thought over that of the table."""
        self._sigma(table_VD)
        return {"size": action["latent"].float().square().mean(-1).sqrt() / self.size}

    def _mixed(self, read: Readout) -> tuple[Action, Tensor]:
        """The mixture, and p E with gradients to both, in fp32: bf16 would move it by its noise."""
        table_VD = read.table_VD.float()
        action = self.mixture.sample(replace(read, table_VD=table_VD), _NO_RNG)
        return action, self.mixture.embed(action, table_VD)

    def _sigma(self, table_VD: Tensor) -> Tensor:
        return self.scale * self.measured(self.size, partial(rms, table_VD))


_NO_RNG = CounterRNG(torch.zeros(0, dtype=torch.int64))  # a mixture draws nothing
