"""Tokens blended with a soft embedding by a learned gate (HRPO, arXiv 2505.18454).

Every sampled token is read together with the mixture it was sampled from:

    h = sum_v p_v E_v / |p|_2                         the soft embedding
    r = sigmoid(W_r e + b_r),  i = sigmoid(W_i e + b_i)
    a = exp(-c softplus(-Lambda) r)                   per channel, c = 8
    x = a * e + sqrt(1 - a^2 + eps) * (i * h)         e: the embedding of the token

The paper prints softplus(Lambda); with the authors' initialisation that shuts the token off, and
their code has softplus(-Lambda), as here.

Legend: ... any leading shape, B rows, D width, k ids looked at.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from latentgym.errors import UsageError
from latentgym.heads.base import Action, PolicyHead, Readout, matrix_flops
from latentgym.heads.rng import CounterRNG
from latentgym.heads.superposition import mix
from latentgym.heads.token import TokenHead
from latentgym.heads.top import top_k

_C = 8.0


class GatedHead(PolicyHead):
    """A token, and the soft embedding of its step, blended by a gate.

    Only the gate has gradients through `embed`; the soft embedding is stored and replayed as a
    constant.

    Args:
        width: D of the model.
        token_head: samples the tokens, and says how likely they were.
        mixture: gives the p of the soft embedding: its temperature, and its top-k or all V.
        r_min, r_max: the gate starts with a(r = 1) drawn uniformly between them, per channel.
        eps: inside the root. With 0 and a = 1 the head is the token head.
        gate_lr, lambda_lr: learning rates of the two linear layers and of Lambda; None for the
            model's.

    Raises:
        UsageError: bounds that are no shares, or a mixture at temperature 0.
    """

    family = "hybrid"
    controlled = "soft"

    def __init__(
        self,
        width: int,
        token_head: TokenHead,
        mixture: TokenHead | None = None,
        *,
        r_min: float = 0.98,
        r_max: float = 0.999,
        eps: float = 1e-8,
        gate_lr: float | None = None,
        lambda_lr: float | None = None,
    ) -> None:
        super().__init__()
        if not 0 < r_min <= r_max < 1 or eps < 0:
            raise UsageError(
                f"a gate needs 0 < r_min <= r_max < 1 and eps >= 0, but has r_min={r_min}, "
                f"r_max={r_max}, eps={eps}."
            )
        self.token_head, self.mixture = token_head, mixture or token_head
        if self.mixture.temperature == 0:
            raise UsageError("a soft embedding needs a temperature above 0.")
        self.recurrence_gate = nn.Linear(width, width)  # W_r, b_r
        self.input_gate = nn.Linear(width, width)  # W_i, b_i
        u = torch.empty(width).uniform_(r_min, r_max)
        self.Lambda = nn.Parameter(-torch.log(torch.expm1(-u.log() / _C)))
        self.eps = eps
        self.gate_lr, self.lambda_lr = gate_lr, lambda_lr

    def sample(self, read: Readout, rng: CounterRNG) -> Action:
        scores_Bk, ids_Bk = self.mixture.likely(read.logits)
        if self.token_head is self.mixture:  # the distribution is known already
            token_B = self.token_head.draw(scores_Bk, ids_Bk, rng)
        else:
            token_B = self.token_head.sample(read, rng)["token"]
        p_Bk = scores_Bk.softmax(-1)
        p_Bk = p_Bk / p_Bk.norm(dim=-1, keepdim=True)
        if ids_Bk is None:
            soft_BD = p_Bk.to(read.table_VD.dtype) @ read.table_VD
        else:
            soft_BD = mix(ids_Bk, p_Bk, read.table_VD)
        return {"token": token_B, "soft": soft_BD}

    def embed(self, action: Action, table_VD: Tensor) -> Tensor:
        e = self._word(action, table_VD)
        a, i = self._gates(e)
        return a * e + self._share(a) * (i * action["soft"].to(e.dtype))

    def heaviest(self, action: Action, read: Readout, most: int) -> tuple[Tensor, Tensor] | None:
        """That of the soft embedding, before it is scaled to unit length."""
        scores, ids = self.mixture.likely(read.logits)
        weights, place = top_k(scores.softmax(-1), min(most, scores.shape[-1]))
        return place if ids is None else ids.gather(-1, place), weights

    def log_prob(self, action: Action, read: Readout) -> Tensor:
        return self.token_head.log_prob(action, read)

    def flops(self, vocab_size: int, hidden_size: int) -> tuple[float, float]:
        looked_at = min(self.mixture.top_k or vocab_size, vocab_size)
        return 2.0 * looked_at * hidden_size + matrix_flops(self), 0.0

    def reference(self) -> PolicyHead:
        """Plain words: the divergence is measured from a policy without latents."""
        return self.token_head

    def statistics(self, action: Action, table_VD: Tensor) -> dict[str, Tensor]:
        """`gate`: mean a. `share`: mean sqrt(1 - a^2), that of the latent. `input_gate`: mean i."""
        a, i = self._gates(self._word(action, table_VD))
        return {"gate": a.mean(-1), "share": self._share(a).mean(-1), "input_gate": i.mean(-1)}

    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        linear = [*self.recurrence_gate.parameters(), *self.input_gate.parameters()]
        groups: list[dict[str, Any]] = [
            {"params": linear, "lr": lr if self.gate_lr is None else self.gate_lr},
            {"params": [self.Lambda], "lr": lr if self.lambda_lr is None else self.lambda_lr},
        ]
        return [g for g in groups if any(p.requires_grad for p in g["params"])]

    def _word(self, action: Action, table_VD: Tensor) -> Tensor:
        return nn.functional.embedding(action["token"], table_VD).to(self.input_gate.weight.dtype)

    def _gates(self, e: Tensor) -> tuple[Tensor, Tensor]:
        """a and i."""
        r, i = self.recurrence_gate(e).sigmoid(), self.input_gate(e).sigmoid()
        # In fp32: bf16 could not tell .99 from .999.
        a = torch.exp(-_C * nn.functional.softplus(-self.Lambda.float()) * r.float())
        return a.to(e.dtype), i

    def _share(self, a: Tensor) -> Tensor:
        return (1 - a.square() + self.eps).sqrt()
