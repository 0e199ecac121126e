"""A latent made by attention over the prompt's last hidden states (LatentRATT, of LatentR3).

"Reinforced Latent Reasoning for LLM-based Recommendation" (arXiv 2505.19092) and the authors' code:
one attention head as wide as the model, with biases, rotary embeddings over its full width at base
1000 and scale 1 / sqrt(D); no projection, residual or norm behind it. The query is the position
just before the thought, keys and values are all positions of the prompt, that one included. What
comes out is the next input embedding; noise on it is exploration.

The authors' code makes one latent. Further ones ask the same prompt from where the model stands
then, as if that were the prompt's end.

Legend: ... any leading shape, P prompt positions, D width, H = D // 2.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from latentgym.errors import UsageError
from latentgym.heads.base import Action, PolicyHead, Readout, matrix_flops
from latentgym.heads.distributions import masked
from latentgym.heads.rng import CounterRNG

_ROTARY_BASE = 1000.0
_LOG_2_PI = math.log(2 * math.pi)


class RATTHead(PolicyHead):
    """Attention over the prompt, and Gaussian noise on what it gives.

    Args:
        width: D of the model; even, for the rotary embeddings.
        std: of the noise, in units of the input embeddings; 0 thinks without.

    Raises:
        UsageError: a negative `std`, or an odd width.
    """

    family = "hybrid"
    needs_memory = True

    def __init__(self, width: int, std: float = 1.5) -> None:
        super().__init__()
        if std < 0:
            raise UsageError(f"a standard deviation cannot be negative, but std is {std}.")
        if width % 2:
            raise UsageError(f"rotary embeddings need an even width, but the model's is {width}.")
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.std = std
        self.deterministic = not std

    def sample(self, read: Readout, rng: CounterRNG) -> Action:
        latent = self.attend(read)
        if self.std:
            noise = rng.normal(latent.shape[-1]).to(latent)
            latent = latent + self.std * noise
        return {"token": read.logits.argmax(-1), "latent": latent}

    def embed(self, action: Action, table_VD: Tensor) -> Tensor:
        return action["latent"]

    def log_prob(self, action: Action, read: Readout) -> Tensor:
        """Density of the latent, summed over its elements; zeros without noise."""
        if not self.std:
            return torch.zeros_like(read.logits[..., 0])
        z = (action["latent"] - self.attend(read)) / self.std
        return (-0.5 * (z.square() + _LOG_2_PI) - math.log(self.std)).sum(-1)

    def entropy(self, action: Action, read: Readout) -> Tensor:
        """Of the next-token distribution, detached: that of the noise is always the same."""
        return super().entropy(action, read).detach()

    def flops(self, vocab_size: int, hidden_size: int) -> tuple[float, float]:
        """The query; and for each position of the prompt its score and the weighted sum."""
        return matrix_flops(self.query), 4.0 * hidden_size

    def remember_flops(self, hidden_size: int) -> float:
        """Key and value."""
        return matrix_flops(self.key) + matrix_flops(self.value)

    def remember(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Keys and values of the prompt, (..., P, 2 D)."""
        # A weight of 0 would not hide a NaN that a model leaves behind at a padded position.
        hidden = masked(hidden, mask[..., None]).to(self.query.weight.dtype)
        # Counted back from the prompt's end, so that padding changes nothing.
        place = mask.long().cumsum(-1) - mask.long().sum(-1, keepdim=True)
        return torch.cat([rotated(self.key(hidden), place), self.value(hidden)], dim=-1)

    def attend(self, read: Readout) -> Tensor:
        """The latent without noise, (..., D)."""
        assert read.memory is not None and read.memory_mask is not None  # it is asked for
        key, value = read.memory.chunk(2, dim=-1)
        query = self.query(read.hidden.to(self.query.weight.dtype))[..., None, :]
        score = (query * key).sum(-1) / math.sqrt(key.shape[-1])
        weights = score.masked_fill(~read.memory_mask, -torch.inf).softmax(-1)
        latent: Tensor = (weights[..., None] * value).sum(-2)
        return latent


def rotated(x: Tensor, place: Tensor) -> Tensor:
    """Rotary embedding over the full width (Su et al., arXiv 2104.09864); 0 turns nothing.

    Args:
        x: (..., D), whose halves are rotated against each other.
        place: positions, int64 (...,).
    """
    half = x.shape[-1] // 2
    rate_H = _ROTARY_BASE ** (-torch.arange(half, device=x.device) / half)
    angle = place[..., None] * rate_H
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    one, other = x[..., :half], x[..., half:]
    return torch.cat([one * cos - other * sin, other * cos + one * sin], dim=-1)
