"""The token head: ordinary sampling. It thinks in words, and speaks the answers of all methods."""

from __future__ import annotations

import torch
from torch import Tensor

from latentgym.errors import UsageError
from latentgym.heads.base import Action, PolicyHead, Readout, categorical, gather_log_prob, uniform
from latentgym.heads.top import top_k
from latentgym.rng import Draws


class TokenHead(PolicyHead):
    """Samples one id per step.

    Args:
        temperature: 0 is greedy.
        top_k: sample among the k most likely ids only; None for all.
        top_p: sample among the most likely ids that hold this probability; 1 for all.

    The log-probability is that of softmax(logits / temperature) without truncation (at
    temperature 1 for a greedy head), as trainers of the field define it.
    """

    family = "token"

    def __init__(
        self, temperature: float = 1.0, top_k: int | None = None, top_p: float = 1.0
    ) -> None:
        super().__init__()
        if temperature < 0 or not 0 < top_p <= 1 or (top_k is not None and top_k < 1):
            raise UsageError(
                f"sampling needs temperature >= 0, 0 < top_p <= 1 and top_k >= 1, but has "
                f"temperature={temperature}, top_p={top_p}, top_k={top_k}."
            )
        self.temperature = temperature
        self.top_k = top_k
        self.top_p = top_p

    def sample(self, read: Readout, draws: Draws) -> Action:
        if self.temperature == 0:
            return {"token": read.logits.argmax(-1)}
        logits = self._truncated(self._scaled(read.logits))
        return {"token": categorical(logits, uniform(draws, 1, logits))[:, 0]}

    def embed(self, action: Action, table_VD: Tensor) -> Tensor:
        return torch.nn.functional.embedding(action["token"], table_VD)

    def log_prob(self, action: Action, read: Readout) -> Tensor:
        ids = action["token"].unsqueeze(-1)
        return gather_log_prob(self._scaled(read.logits), ids).squeeze(-1)

    def _scaled(self, logits: Tensor) -> Tensor:
        return logits if self.temperature in (0, 1) else logits / self.temperature

    def _truncated(self, logits: Tensor) -> Tensor:
        if self.top_k is not None and self.top_k < logits.shape[-1]:
            least = top_k(logits, self.top_k)[0][..., -1:]
            logits = logits.masked_fill(logits < least, -torch.inf)
        if self.top_p < 1:
            ordered, order = logits.sort(-1, descending=True)
            p = ordered.softmax(-1)
            beyond = p.cumsum(-1) - p >= self.top_p  # the id that crosses the bound stays
            outside = torch.zeros_like(beyond).scatter(-1, order, beyond)
            logits = logits.masked_fill(outside, -torch.inf)
        return logits
