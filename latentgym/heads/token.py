"""The token head: ordinary sampling. It thinks in tokens, and samples the answers of all methods.

Legend: ... any leading shape, B rows, V vocabulary, R rows still searched, k ids looked at.
"""

from __future__ import annotations

import torch
from torch import Tensor

from latentgym.errors import UsageError
from latentgym.heads.base import Action, PolicyHead, Readout
from latentgym.heads.distributions import categorical, gather_log_prob
from latentgym.heads.rng import CounterRNG
from latentgym.heads.top import top_k

_NUCLEUS_SIZES = (128, 2048)


class TokenHead(PolicyHead):
    """Samples one id per step.

    Args:
        temperature: 0 is greedy.
        top_k: sample among the k most likely ids only; None for all.
        top_p: sample among the most likely ids that hold this probability; 1 for all.
        scored_at: temperature of the log-probability; None for the sampling temperature.

    The log-probability is that of softmax(logits / temperature) without truncation (at
    temperature 1 for a greedy head), as trainers of the field define it.
    """

    family = "token"

    def __init__(
        self,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float = 1.0,
        scored_at: float | None = None,
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
        self.scored_at = (temperature or 1.0) if scored_at is None else scored_at

    def sample(self, read: Readout, rng: CounterRNG) -> Action:
        if self.temperature == 0:
            return {"token": read.logits.argmax(-1)}
        return {"token": self.draw(*self.likely(read.logits), rng)}

    def likely(self, logits: Tensor) -> tuple[Tensor, Tensor | None]:
        """What may be sampled, at the sampling temperature: truncated logits and their ids.

        Args:
            logits: (B, V).

        Returns:
            Logits (B, k) in falling order and ids (B, k) with `top_k`; else (B, V) and None for
            all. What `top_p` leaves out is -inf.
        """
        logits, ids = _divided(logits, self.temperature), None
        if self.top_k is not None and self.top_k < logits.shape[-1]:
            logits, ids = top_k(logits, self.top_k)
        if self.top_p < 1:
            logits = logits.masked_fill(~nucleus(logits, self.top_p), -torch.inf)
        return logits, ids

    @staticmethod
    def draw(logits: Tensor, ids: Tensor | None, rng: CounterRNG) -> Tensor:
        """One id a row of what `likely` gives, int64 (B,)."""
        place = categorical(logits, rng.uniform(1))
        return (place if ids is None else ids.gather(-1, place))[:, 0]

    def embed(self, action: Action, table_VD: Tensor) -> Tensor:
        return torch.nn.functional.embedding(action["token"], table_VD)

    def heaviest(self, action: Action, read: Readout, most: int) -> tuple[Tensor, Tensor] | None:
        """The token alone."""
        ids = action["token"].unsqueeze(-1)
        return ids, torch.ones_like(ids, dtype=torch.float32)

    def log_prob(self, action: Action, read: Readout) -> Tensor:
        ids = action["token"].unsqueeze(-1)
        return gather_log_prob(_divided(read.logits, self.scored_at), ids).squeeze(-1)


def _divided(logits: Tensor, temperature: float) -> Tensor:
    return logits if temperature == 1 else logits / temperature


def nucleus(logits_BV: Tensor, top_p: float) -> Tensor:
    """The most likely ids that together hold `top_p`, the one that crosses the bound among them.

    Sorting a whole vocabulary costs half a decoding step of a small model, and a few ids nearly
    always hold enough; only rows in which they do not are searched further.

    Args:
        logits_BV: (B, V).
        top_p: probability, 0 < top_p < 1.

    Returns:
        bool (B, V).
    """
    p_BV, V = logits_BV.softmax(-1), logits_BV.shape[-1]
    inside_BV = torch.zeros_like(p_BV, dtype=torch.bool)
    row_R = torch.arange(len(p_BV), device=p_BV.device)  # those whose ids are not known yet
    # A step that is compiled looks at no numbers, so all rows are sorted there.
    few = () if torch.compiler.is_compiling() else _NUCLEUS_SIZES
    for k in (*(size for size in few if size < V), V):
        rest_RV = logits_BV[row_R]
        ids_Rk = top_k(rest_RV, k)[1] if k < V else rest_RV.argsort(-1, descending=True)
        p_Rk = p_BV[row_R].gather(-1, ids_Rk)
        up_to_Rk = p_Rk.cumsum(-1)
        inside_BV[row_R] = inside_BV[row_R].scatter(-1, ids_Rk, up_to_Rk - p_Rk < top_p)
        if k == V or not len(row_R := row_R[up_to_Rk[:, -1] < top_p]):
            break
    return inside_BV
