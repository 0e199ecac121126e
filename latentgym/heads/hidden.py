"""Hidden states fed back (Coconut), and a learned pause that stands in their places.

Coconut is "Training Large Language Models to Reason in a Continuous Latent Space" (arXiv
2412.06769): the last hidden state, after the final norm, is the next input embedding. Its control
"pause as thought" has a learned token there, the same at every thought.

Neither thinks at random. A replay feeds back the stored hidden states, so the policy gradient does
not reach what made them; supervised stages make them anew, with the gradient through them.

Legend: ... any leading shape, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from latentgym.heads.base import Action, PolicyHead, Readout
from latentgym.heads.rng import CounterRNG

_SCALE = 0.02  # of fresh embeddings in the models that we load


class HiddenStateHead(PolicyHead):
    """The last hidden state is the thought; its likeliest token is only how it is read."""

    family = "hybrid"
    deterministic = True

    def sample(self, read: Readout, rng: CounterRNG) -> Action:
        return {"token": read.logits.argmax(-1), "latent": read.hidden}

    def embed(self, action: Action, table_VD: Tensor) -> Tensor:
        return action["latent"]

    def log_prob(self, action: Action, read: Readout) -> Tensor:
        return torch.zeros_like(read.logits[..., 0])


class PauseHead(PolicyHead):
    """Every thought is the same learned vector.

    Args:
        width: of the model, D.
    """

    family = "hybrid"
    deterministic = True

    def __init__(self, width: int) -> None:
        super().__init__()
        self.pause_D = nn.Parameter(_SCALE * torch.randn(width))

    def sample(self, read: Readout, rng: CounterRNG) -> Action:
        return {"token": read.logits.argmax(-1)}

    def embed(self, action: Action, table_VD: Tensor) -> Tensor:
        return self.pause_D.expand(*action["token"].shape, -1)

    def log_prob(self, action: Action, read: Readout) -> Tensor:
        return torch.zeros_like(read.logits[..., 0])
