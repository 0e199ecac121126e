"""A router that chooses, step by step, between a token and a mixture (TARPO).

"TARPO" (arXiv 2606.05859): a linear map of the last hidden state gives the probability of the soft
mode, and the mode is an action of its own beside the token: both have a ratio. In the token mode
the model reads the embedding of the drawn token, in the soft mode the mixture of the most likely
ids by their probabilities.

Legend: ... any leading shape, k ids of a mixture, V vocabulary, D width; parts of a thought:
(token, mode).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from latentgym.errors import UsageError
from latentgym.heads.base import Action, PolicyHead, Readout, matrix_flops
from latentgym.heads.rng import CounterRNG
from latentgym.heads.superposition import mix
from latentgym.heads.token import TokenHead
from latentgym.heads.top import top_k

_INIT = 1e-3  # standard deviation of the router's first weights


class RoutedHead(PolicyHead):
    """Tokens and mixtures, by the router's choice.

    Args:
        width: D of the model.
        token_head: draws tokens.
        k: ids of a mixture.
        soft_share: probability of the soft mode at the start; 0 shuts the router for good.
        mode_weight: of the mode's part in loss and divergence; the token's has 1.
        scores_all_tokens: score the drawn token also where a mixture was fed, as the authors do,
            though nothing that follows depends on it there.
        normalised: weights of a mixture add up to one; else they are the probabilities of the k
            ids, which the authors feed.
        router_lr: learning rate of the router; None for the model's.

    Raises:
        UsageError: a share outside [0, 1), or k below 1.
    """

    family = "hybrid"

    def __init__(
        self,
        width: int,
        token_head: TokenHead | None = None,
        *,
        k: int = 10,
        soft_share: float = 0.01,
        mode_weight: float = 0.1,
        scores_all_tokens: bool = False,
        normalised: bool = True,
        router_lr: float | None = None,
    ) -> None:
        super().__init__()
        if k < 1 or not 0 <= soft_share < 1:
            raise UsageError(
                f"a router needs k >= 1 and a soft share in [0, 1), but has k={k}, "
                f"soft_share={soft_share}."
            )
        self.token_head = token_head or TokenHead()
        self.router = nn.Linear(width, 2)
        with torch.no_grad():
            self.router.weight.normal_(0, _INIT)
            # Logits of (token, soft).
            odds = math.log((1 - soft_share) / soft_share) if soft_share else 0.0
            self.router.bias.copy_(torch.tensor([odds, 0.0]))
        self.open = soft_share > 0
        self.router.requires_grad_(self.open)
        self.k, self.normalised, self.router_lr = k, normalised, router_lr
        self.part_weights = (1.0, mode_weight)
        self.scores_all_tokens = scores_all_tokens

    def sample(self, read: Readout, rng: CounterRNG) -> Action:
        token = self.token_head.sample(read, rng)["token"]
        if self.open:
            share = self._modes(read)[..., 1].exp()
            soft = rng.uniform(1, stream=1)[..., 0] < share
        else:
            soft = torch.zeros_like(token, dtype=torch.bool)
        top, ids = top_k(read.logits, min(self.k, read.logits.shape[-1]))
        weights = top.softmax(-1)
        if not self.normalised:
            weights = (top - read.logits.logsumexp(-1, keepdim=True)).exp()
        return {"token": token, "plain": ~soft, "ids": ids, "weights": weights}

    def embed(self, action: Action, table_VD: Tensor) -> Tensor:
        """The mixture; where a thought is plain, its token is read instead of it."""
        return mix(action["ids"], action["weights"], table_VD)

    def log_prob(self, action: Action, read: Readout) -> Tensor:
        token = self.token_head.log_prob(action, read)
        if not self.open:
            return torch.stack([token, torch.zeros_like(token)], dim=-1)
        soft = (~action["plain"]).long().unsqueeze(-1)
        return torch.stack([token, self._modes(read).gather(-1, soft).squeeze(-1)], dim=-1)

    def drawn(self, action: Action) -> Tensor:
        """The mode always; the token where it was fed."""
        plain = action["plain"]
        token = torch.ones_like(plain) if self.scores_all_tokens else plain
        return torch.stack([token, torch.full_like(plain, self.open)], dim=-1)

    def heaviest(self, action: Action, read: Readout, most: int) -> tuple[Tensor, Tensor] | None:
        """Of the mixture; of a plain thought the token alone."""
        weights = action["weights"] / action["weights"].sum(-1, keepdim=True)
        plain, ids = action["plain"].unsqueeze(-1), action["ids"]
        first = torch.zeros_like(weights)
        first[..., 0] = 1.0
        alone = torch.cat([action["token"].unsqueeze(-1), ids[..., 1:]], dim=-1)
        ids, weights = torch.where(plain, alone, ids), torch.where(plain, first, weights)
        return ids[..., :most], weights[..., :most]

    def flops(self, vocab_size: int, hidden_size: int) -> tuple[float, float]:
        return 2.0 * min(self.k, vocab_size) * hidden_size + matrix_flops(self.router), 0.0

    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        if not self.open:
            return []
        rate = lr if self.router_lr is None else self.router_lr
        return [{"params": list(self.router.parameters()), "lr": rate}]

    def _modes(self, read: Readout) -> Tensor:
        """Log-probabilities of (token, soft), (..., 2)."""
        modes: Tensor = self.router(read.hidden.to(self.router.weight.dtype))
        return modes.float().log_softmax(-1)
