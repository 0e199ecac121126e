"""Mixtures by the Gumbel-softmax trick, with the density of their noise (SofT-GRPO).

"SofT-GRPO: Surpassing Discrete-Token LLM Reinforcement Learning via Gumbel-Reparameterized
Soft-Thinking Policy Optimization" (arXiv 2511.06411): of the k most likely ids with renormalised
probabilities p, g_i = log p_i + e_i with Gumbel noise e_i, and the model reads the mixture with
weights softmax(g / tau). The perturbed g is what is stored: under another policy its noise is
g_i - log p_i, with the Gumbel density exp(-e - exp(-e)).

Legend: ... any leading shape, k ids of a mixture, V vocabulary, D width.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from latentgym.errors import UsageError
from latentgym.heads.base import Action, PolicyHead, Readout
from latentgym.heads.distributions import masked
from latentgym.heads.rng import CounterRNG
from latentgym.heads.superposition import mix
from latentgym.heads.token import TokenHead

_RANGE = (-1.5, 3.0)  # the authors' clamp of the noise: 1.1 % of it lies below, 4.9 % above
# In the density a little wider: clamped noise stands at the very bound, and rounding must not
# decide whether it has a gradient.
_SLACK = 1e-3
_SCORED = -3.0  # the authors' bound: ids with log p above it are in the density


class GumbelHead(PolicyHead):
    """Random mixtures of the most likely ids.

    Args:
        k: ids of a mixture.
        tau: temperature of the Gumbel-softmax; towards 0 a thought is one id, drawn from p.
        top_p: leave out ids beyond this probability.
        temperature: of p.
        noise: `clamped` to [-1.5, 3], at sampling and in the density, as the authors have it; or
            `exact`.
        density: `mean` over the ids that count, as the authors have it, or their `sum`, the true
            density of the noise.

    An id counts in the density where its probability was above exp(-3) when it was drawn. With
    exact noise the sum is over all ids: a density must be of all that is fed.
    """

    family = "continuous"

    def __init__(
        self,
        k: int = 5,
        tau: float = 0.1,
        top_p: float = 0.95,
        temperature: float = 1.0,
        noise: Literal["clamped", "exact"] = "clamped",
        density: Literal["mean", "sum"] = "mean",
    ) -> None:
        super().__init__()
        if k < 1 or tau <= 0 or temperature <= 0 or not 0 < top_p <= 1:
            raise UsageError(
                f"a Gumbel-softmax needs k >= 1, tau > 0, temperature > 0 and 0 < top_p <= 1, but "
                f"has k={k}, tau={tau}, temperature={temperature}, top_p={top_p}."
            )
        self.tau, self.noise, self.density = tau, noise, density
        self.likely = TokenHead(temperature, top_k=k, top_p=top_p).likely
        self.k, self.temperature = k, temperature

    def sample(self, read: Readout, rng: CounterRNG) -> Action:
        logits, ids = self.likely(read.logits)
        if ids is None:  # a vocabulary of no more than k
            ids = torch.arange(logits.shape[-1], device=logits.device).expand_as(logits)
        logp = logits.log_softmax(-1)
        noise = -(-rng.uniform(ids.shape[-1]).log()).log().to(logp)
        if self.noise == "clamped":
            noise = noise.clamp(*_RANGE)
        g = logp + noise  # -inf where an id was left out
        counts = logp > (_SCORED if self.noise == "clamped" else -torch.inf)
        counts[..., 0] = True
        token = ids.gather(-1, g.argmax(-1, keepdim=True)).squeeze(-1)
        return {"token": token, "ids": ids, "perturbed": g, "counts": counts}

    def embed(self, action: Action, table_VD: Tensor) -> Tensor:
        return mix(action["ids"], self._weights(action), table_VD)

    def log_prob(self, action: Action, read: Readout) -> Tensor:
        g = action["perturbed"]
        absent = g.isneginf()
        logits = read.logits.gather(-1, action["ids"]) / self.temperature
        logp = logits.masked_fill(absent, -torch.inf).log_softmax(-1)
        noise = masked(g, ~absent) - masked(logp, ~absent)
        if self.noise == "clamped":
            noise = noise.clamp(_RANGE[0] - _SLACK, _RANGE[1] + _SLACK)
        each = masked(-noise - (-noise).exp(), action["counts"])
        total = each.sum(-1)
        return total if self.density == "sum" else total / action["counts"].sum(-1)

    def heaviest(self, action: Action, read: Readout, most: int) -> tuple[Tensor, Tensor] | None:
        weights, place = self._weights(action).sort(dim=-1, descending=True, stable=True)
        return action["ids"].gather(-1, place)[..., :most], weights[..., :most]

    def flops(self, vocab_size: int, hidden_size: int) -> tuple[float, float]:
        return 2.0 * min(self.k, vocab_size) * hidden_size, 0.0

    def _weights(self, action: Action) -> Tensor:
        return (action["perturbed"] / self.tau).softmax(-1)
