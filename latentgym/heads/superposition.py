"""Continuous thoughts: mixtures of vocabulary embeddings (CoT2, Soft Thinking).

CoT2 is "Continuous Chain of Thought Enables Parallel Exploration and Reasoning"
(arXiv 2505.23648): alpha_t = softmax(logits), and the model reads z_t = E^T alpha_t. Its two
stochastic versions for reinforcement learning are multi-token sampling (MTS) and Dirichlet
sampling.

Legend: ... any leading shape, V vocabulary, D width, K sampled ids, S support of a mixture.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from latentgym.errors import UsageError
from latentgym.heads.base import Action, PolicyHead, Readout
from latentgym.heads.distributions import categorical, gather_log_prob, masked
from latentgym.heads.rng import CounterRNG
from latentgym.heads.top import top_k


class MixtureHead(PolicyHead):
    """The whole distribution at once, without randomness (CoT2 base, Soft Thinking).

    Args:
        top_k: mix the k most likely ids, renormalised. None mixes all V: exact, at the cost of
            nearly another language-model head per step; only the mixed vector is then stored.
        top_p: leave out ids beyond this probability (needs `top_k`).
        temperature: of the mixture.
        of_top: `top_p` is a share of the `top_k` ids' probability, not of the whole distribution's.
    """

    family = "continuous"
    deterministic = True

    def __init__(
        self,
        top_k: int | None = None,
        top_p: float = 1.0,
        temperature: float = 1.0,
        *,
        of_top: bool = False,
    ) -> None:
        super().__init__()
        if temperature <= 0 or (top_k is not None and top_k < 1) or not 0 < top_p <= 1:
            raise UsageError(
                f"a mixture needs temperature > 0, top_k >= 1 and 0 < top_p <= 1, but has "
                f"temperature={temperature}, top_k={top_k}, top_p={top_p}."
            )
        if top_p < 1 and top_k is None:
            raise UsageError("a mixture with top_p < 1 needs top_k as a bound; set top_k too.")
        self.top_k = top_k
        self.top_p = top_p
        self.temperature = temperature
        self.of_top = of_top

    def sample(self, read: Readout, rng: CounterRNG) -> Action:
        logits = self._scaled(read.logits)
        if self.top_k is None:
            alpha = logits.softmax(-1)
            latent = alpha.to(read.table_VD.dtype) @ read.table_VD
            return {"token": alpha.argmax(-1), "latent": latent}
        top, ids = top_k(logits, _within(self.top_k, logits, "top_k"))
        if self.top_p < 1:
            # Only here may the others matter: their probability counts towards the bound.
            weights = top.softmax(-1) if self.of_top else logits.softmax(-1).gather(-1, ids)
            top = top.masked_fill(weights.cumsum(-1) - weights >= self.top_p, -torch.inf)
        # Renormalised, the k largest probabilities are the softmax of the k largest logits.
        return {"token": ids[..., 0], "ids": ids, "weights": top.softmax(-1)}

    def embed(self, action: Action, table_VD: Tensor) -> Tensor:
        if self.top_k is None:
            return action["latent"]
        return mix(action["ids"], action["weights"], table_VD)

    def heaviest(self, action: Action, read: Readout, most: int) -> tuple[Tensor, Tensor] | None:
        if self.top_k is not None:
            return action["ids"][..., :most], action["weights"][..., :most]
        logits = self._scaled(read.logits)
        _, ids = top_k(logits, min(most, logits.shape[-1]))
        return ids, gather_log_prob(logits, ids).exp()

    def log_prob(self, action: Action, read: Readout) -> Tensor:
        return torch.zeros_like(read.logits[..., 0])

    def flops(self, vocab_size: int, hidden_size: int) -> tuple[float, float]:
        return 2.0 * (self.top_k or vocab_size) * hidden_size, 0.0

    def _scaled(self, logits: Tensor) -> Tensor:
        return logits if self.temperature == 1 else logits / self.temperature


class MultiTokenHead(PolicyHead):
    """Multi-token sampling: K ids drawn independently, their embeddings averaged (CoT2-MTS).

    The log-probability is the mean over K of log alpha(i_k), so a ratio of two policies is the
    geometric mean of the K ratios (the paper's step ratio). With K = 1 it is the token head.

    Args:
        k: ids per thought.
        temperature: of alpha. The paper has 1; the authors' script samples at temperature K.
    """

    family = "continuous"

    def __init__(self, k: int, temperature: float = 1.0) -> None:
        super().__init__()
        if k < 1 or temperature <= 0:
            raise UsageError(
                f"multi-token sampling needs k >= 1 and temperature > 0, but has k={k}, "
                f"temperature={temperature}."
            )
        self.k = k
        self.temperature = temperature

    def sample(self, read: Readout, rng: CounterRNG) -> Action:
        logits = self._scaled(read.logits)
        ids = categorical(logits, rng.uniform(_within(self.k, logits)))
        return {"token": most_frequent(ids), "ids": ids}

    def embed(self, action: Action, table_VD: Tensor) -> Tensor:
        return nn.functional.embedding(action["ids"], table_VD).mean(-2)

    def heaviest(self, action: Action, read: Readout, most: int) -> tuple[Tensor, Tensor] | None:
        """Each sampled id once, with its share of the K samples."""
        ids = action["ids"]
        return each_once(ids, torch.full_like(ids, 1 / self.k, dtype=torch.float32), most)

    def log_prob(self, action: Action, read: Readout) -> Tensor:
        return gather_log_prob(self._scaled(read.logits), action["ids"]).mean(-1)

    def flops(self, vocab_size: int, hidden_size: int) -> tuple[float, float]:
        return float(self.k * hidden_size), 0.0

    def _scaled(self, logits: Tensor) -> Tensor:
        return logits if self.temperature == 1 else logits / self.temperature


class DirichletHead(PolicyHead):
    """A random point of the simplex, Dirichlet(gamma * alpha) (CoT2-Dirichlet).

    The simplex is that of the likely ids: those with alpha >= `floor`, at most `support` of them.
    The density of a stored point under another policy is taken on the stored ids, with that
    policy's alpha renormalised over them and kept above `floor`.

    Args:
        gamma: concentration; the larger, the nearer to the base mixture.
        support: most ids in a mixture.
        floor: least probability of an id that takes part.
    """

    family = "continuous"

    def __init__(self, gamma: float = 1.0, support: int = 32, floor: float = 1e-3) -> None:
        super().__init__()
        if gamma <= 0 or support < 1 or not 0 < floor < 1:
            raise UsageError(
                f"Dirichlet sampling needs gamma > 0, support >= 1 and 0 < floor < 1, but has "
                f"gamma={gamma}, support={support}, floor={floor}."
            )
        self.gamma = gamma
        self.support = support
        self.floor = floor

    def sample(self, read: Readout, rng: CounterRNG) -> Action:
        _, ids = top_k(read.logits, min(self.support, read.logits.shape[-1]))
        alpha = gather_log_prob(read.logits, ids).exp()
        absent = alpha < self.floor
        absent[..., 0] = False  # the likeliest id always takes part
        concentration = self._concentration(alpha, absent)
        log_g = rng.log_gamma(concentration)
        log_weights = log_g.masked_fill(absent, -torch.inf).log_softmax(-1).float()
        token = ids.gather(-1, log_weights.argmax(-1, keepdim=True)).squeeze(-1)
        return {"token": token, "ids": ids, "log_weights": log_weights}

    def embed(self, action: Action, table_VD: Tensor) -> Tensor:
        return mix(action["ids"], action["log_weights"].exp(), table_VD)

    def heaviest(self, action: Action, read: Readout, most: int) -> tuple[Tensor, Tensor] | None:
        weights, place = action["log_weights"].exp().sort(dim=-1, descending=True, stable=True)
        return action["ids"].gather(-1, place)[..., :most], weights[..., :most]

    def log_prob(self, action: Action, read: Readout) -> Tensor:
        log_weights = action["log_weights"]
        absent = log_weights.isneginf()
        a = self._concentration(gather_log_prob(read.logits, action["ids"]).exp(), absent)
        terms = (a - 1) * log_weights.masked_fill(absent, 0.0) - torch.lgamma(a)
        total = a.masked_fill(absent, 0.0).sum(-1)
        return torch.lgamma(total) + terms.masked_fill(absent, 0.0).sum(-1)

    def entropy(self, action: Action, read: Readout) -> Tensor:
        """Of the Dirichlet distribution over the stored ids."""
        absent = action["log_weights"].isneginf()
        a = self._concentration(gather_log_prob(read.logits, action["ids"]).exp(), absent)
        total, present = masked(a, ~absent).sum(-1), (~absent).sum(-1)
        terms = torch.lgamma(a) - (a - 1) * torch.digamma(a)
        normaliser = (total - present) * torch.digamma(total) - torch.lgamma(total)
        return masked(terms, ~absent).sum(-1) + normaliser

    def flops(self, vocab_size: int, hidden_size: int) -> tuple[float, float]:
        return 2.0 * min(self.support, vocab_size) * hidden_size, 0.0

    def _concentration(self, alpha: Tensor, absent: Tensor) -> Tensor:
        """gamma * alpha of some ids, renormalised and floored; 1 where an id is absent."""
        p = alpha.masked_fill(absent, 0.0).clamp_min(self.floor).masked_fill(absent, 0.0)
        return (self.gamma * p / p.sum(-1, keepdim=True)).masked_fill(absent, 1.0)


def mix(ids: Tensor, weights: Tensor, table_VD: Tensor) -> Tensor:
    """Weighted sum of embeddings: ids and weights (..., S) to (..., D)."""
    rows = nn.functional.embedding(ids, table_VD)
    return (weights.to(rows.dtype).unsqueeze(-2) @ rows).squeeze(-2)


def each_once(ids: Tensor, weights: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Ids (..., K) with all the weight that they have among the K, the heaviest first.

    An id that came before has the weight 0; `most` of them are kept.
    """
    same = ids.unsqueeze(-1) == ids.unsqueeze(-2)
    before = same.tril(-1).any(-1)  # it was counted where it came first
    share = torch.where(same, weights.unsqueeze(-2), 0.0).sum(-1).masked_fill(before, 0.0)
    share, place = share.sort(dim=-1, descending=True, stable=True)
    return ids.gather(-1, place)[..., :most], share[..., :most]


def most_frequent(ids: Tensor) -> Tensor:
    """The id that occurs most among (..., K) ids, the first such on a tie: (...,)."""
    if ids.shape[-1] == 1:
        return ids[..., 0]
    counts = (ids.unsqueeze(-1) == ids.unsqueeze(-2)).sum(-1)
    return ids.gather(-1, counts.argmax(-1, keepdim=True)).squeeze(-1)


def _within(k: int, logits: Tensor, name: str = "k") -> int:
    """k, or an error if the vocabulary is smaller."""
    if k > logits.shape[-1]:
        raise UsageError(
            f"{name} = {k} ids are asked of a vocabulary of {logits.shape[-1]}; choose a smaller "
            f"{name}."
        )
    return k
