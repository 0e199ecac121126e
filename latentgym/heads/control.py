"""Controls: the same number of thoughts at the same cost, without what the thoughts say.

Any claim that latents help is shown against these (`latentgym eval --control`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from latentgym.errors import UsageError, did_you_mean
from latentgym.heads.base import Action, PolicyHead, Readout
from latentgym.rng import Draws


def _zero(latent_BD: Tensor, table_VD: Tensor, draws: Draws) -> Tensor:
    return torch.zeros_like(latent_BD)


def _pause(latent_BD: Tensor, table_VD: Tensor, draws: Draws) -> Tensor:
    return table_VD.mean(0).expand_as(latent_BD)


def _shuffle(latent_BD: Tensor, table_VD: Tensor, draws: Draws) -> Tensor:
    return latent_BD.roll(1, dims=0)


def _noise(latent_BD: Tensor, table_VD: Tensor, draws: Draws) -> Tensor:
    noise = torch.from_numpy(draws.normal(latent_BD.shape[-1])).to(latent_BD)
    scale: Tensor = latent_BD.norm(dim=-1, keepdim=True) / noise.norm(dim=-1, keepdim=True)
    return noise * scale


CONTROLS: Mapping[str, Callable[[Tensor, Tensor, Draws], Tensor]] = {
    "zero": _zero,
    "pause": _pause,
    "shuffle": _shuffle,
    "noise": _noise,
}
"""`zero`: the zero vector. `pause`: the mean embedding, the same at every step. `shuffle`: the
thought of the neighbouring row. `noise`: a random direction of the thought's own norm."""


class ControlHead(PolicyHead):
    """A head whose thoughts are replaced before the model reads them.

    Args:
        head: thinks as usual, so that costs and the end of thinking stay the same.
        control: a name in `CONTROLS`.
    """

    def __init__(self, head: PolicyHead, control: str) -> None:
        super().__init__()
        if control not in CONTROLS:
            raise UsageError(f"no control {control!r}; {did_you_mean(control, CONTROLS)}")
        if head.family == "token":
            raise UsageError("controls replace latent thoughts, but a token agent has none.")
        self.head, self.control = head, CONTROLS[control]
        self.family, self.needs_memory = head.family, head.needs_memory  # type: ignore[misc]

    def sample(self, read: Readout, draws: Draws) -> Action:
        action = self.head.sample(read, draws)
        latent = self.head.embed(action, read.table_VD)
        return {"token": action["token"], "latent": self.control(latent, read.table_VD, draws)}

    def embed(self, action: Action, table_VD: Tensor) -> Tensor:
        return action["latent"]

    def log_prob(self, action: Action, read: Readout) -> Tensor:
        return torch.zeros_like(read.logits[..., 0])
