"""Random vectors from a latent head, and a token that says whether to stop (CoLaR).

"Think Silently, Think Fast: Dynamic Latent Compression of LLM Reasoning Chains"
(arXiv 2505.16552): z ~ Normal(mu(h), sigma(h)), the model reads s z, where s is the standard
deviation of its embedding table. Thinking ends when the language-model head says the answer marker.

Legend: ... any leading shape, B rows, D width, V vocabulary.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from latentgym.errors import UsageError
from latentgym.heads.base import Action, PolicyHead, Readout, matrix_flops
from latentgym.heads.rng import CounterRNG
from latentgym.heads.token import TokenHead

_LOG_2_PI = math.log(2 * math.pi)


class GaussianHead(PolicyHead):
    """A Gaussian over the next input embedding.

    The log-probability of a thought is that of its vector alone: the decision to go on is not in
    it, as published. The token that ends thinking is plain, and scored like any word.

    Args:
        width: D of the model.
        inner: width of the hidden layers.
        temperature: multiplies the standard deviation.
        deterministic: think the mean; such thoughts have log-probability 0.
        density: `mean` over the D elements as published, which keeps ratios tame; `sum` is the
            true density.
        stop: samples the token.

    Raises:
        UsageError: a negative temperature.

    Attributes:
        scale: s. Measured on the embedding table when it is first needed, then kept and saved.
    """

    family = "hybrid"
    scale: Tensor

    def __init__(
        self,
        width: int,
        inner: int = 2048,
        *,
        temperature: float = 1.0,
        deterministic: bool = False,
        density: Literal["mean", "sum"] = "mean",
        stop: TokenHead | None = None,
    ) -> None:
        super().__init__()
        if temperature < 0:
            raise UsageError(f"a temperature cannot be negative, but is {temperature}.")
        self.trunk = nn.Sequential(
            nn.Linear(width, inner), nn.GELU(), nn.Linear(inner, inner), nn.LayerNorm(inner)
        )
        self.mean = nn.Linear(inner, width)
        self.log_std = nn.Linear(inner, width)
        self.register_buffer("scale", torch.tensor(torch.nan))
        self.temperature = temperature
        self.deterministic = deterministic or temperature == 0
        self.density = density
        self.stop = stop or TokenHead()

    def sample(self, read: Readout, rng: CounterRNG) -> Action:
        token = self.stop.sample(read, rng)["token"]
        mean, log_std = self.distribution(read.hidden)
        if not self.deterministic:
            noise = rng.normal(mean.shape[-1], stream=1).to(mean)
            mean = mean + log_std.exp() * noise
        return {"token": token, "latent": mean}

    def embed(self, action: Action, table_VD: Tensor) -> Tensor:
        return action["latent"] * self.scale_of(table_VD)

    def log_prob(self, action: Action, read: Readout) -> Tensor:
        if self.deterministic:
            return torch.zeros_like(read.logits[..., 0])
        mean, log_std = self.distribution(read.hidden)
        z = (action["latent"] - mean) * (-log_std).exp()
        each = -0.5 * (z.square() + _LOG_2_PI) - log_std
        return each.mean(-1) if self.density == "mean" else each.sum(-1)

    def entropy(self, action: Action, read: Readout) -> Tensor:
        """Of the Gaussian: the mean over its elements or their sum, as the density is."""
        each = self.distribution(read.hidden)[1] + 0.5 * (1 + _LOG_2_PI)
        return each.mean(-1) if self.density == "mean" else each.sum(-1)

    def flops(self, vocab_size: int, hidden_size: int) -> tuple[float, float]:
        return matrix_flops(self), 0.0

    def distribution(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and logarithm of the standard deviation of the next z, both (..., D)."""
        x = self.trunk(hidden.to(self.mean.weight.dtype))
        log_std = self.log_std(x)
        if self.temperature not in (0, 1):
            log_std = log_std + math.log(self.temperature)
        return self.mean(x), log_std

    def scale_of(self, table_VD: Tensor) -> Tensor:
        """s."""
        return self.measured(self.scale, lambda: table_VD.float().std())

    def statistics(self, action: Action, table_VD: Tensor) -> dict[str, Tensor]:
        """`size`: root mean square of z; 1 is that of a word."""
        return {"size": action["latent"].float().square().mean(-1).sqrt()}
