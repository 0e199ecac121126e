"""Controls: the same number of thoughts at the same cost, without what the thoughts say.

Any claim that latents help is shown against these (`latentgym eval --control`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from latentgym.errors import UsageError, did_you_mean
from latentgym.heads.base import Action, PolicyHead, Readout, State
from latentgym.heads.rng import CounterRNG

_NOISE = 0  # what the noise's numbers are for

Control = Callable[[Tensor, Tensor, CounterRNG, int], Tensor]


def _zero(latent_BD: Tensor, table_VD: Tensor, rng: CounterRNG, group_size: int) -> Tensor:
    return torch.zeros_like(latent_BD)


def _pause(latent_BD: Tensor, table_VD: Tensor, rng: CounterRNG, group_size: int) -> Tensor:
    return table_VD.mean(0).expand_as(latent_BD)


def _shuffle(latent_BD: Tensor, table_VD: Tensor, rng: CounterRNG, group_size: int) -> Tensor:
    # Samples of a question are neighbours. Where fewer are left than two groups, as far as it goes.
    return latent_BD.roll(min(group_size, len(latent_BD) // 2), dims=0)


def _noise(latent_BD: Tensor, table_VD: Tensor, rng: CounterRNG, group_size: int) -> Tensor:
    # Not the numbers behind the head's own, or the noise would tell of what was drawn.
    noise = rng.apart(_NOISE).normal(latent_BD.shape[-1]).to(latent_BD)
    scale: Tensor = latent_BD.norm(dim=-1, keepdim=True) / noise.norm(dim=-1, keepdim=True)
    return noise * scale


_LATENT: Mapping[str, Control] = {
    "zero": _zero,
    "pause": _pause,
    "shuffle": _shuffle,
    "noise": _noise,
}
_WORD = "word"
CONTROLS = (*_LATENT, _WORD)
"""`zero`: the zero vector. `pause`: the mean embedding, the same at every step. `shuffle`: the
thought of another question, as far as others still think; of the last, its own. `noise`: a random
direction of the thought's own norm. `word`: the plain embedding of the token by which the thought
is read, nothing latent."""


class ControlHead(PolicyHead):
    """A head whose thoughts are replaced before the model reads them.

    Of a head that blends a latent with a word, the latent is replaced (`PolicyHead.controlled`);
    of any other, the whole thought.

    Args:
        head: thinks as usual, so that costs and the end of thinking stay the same.
        control: a name in `CONTROLS`.
        group_size: samples of a question, which stand side by side in a batch.
    """

    deterministic = True  # what is drawn is not what the model reads

    def __init__(self, head: PolicyHead, control: str, group_size: int = 1) -> None:
        super().__init__()
        if control not in CONTROLS:
            raise UsageError(f"no control {control!r}; {did_you_mean(control, CONTROLS)}")
        if head.family == "token":
            raise UsageError("controls replace latent thoughts, but a token agent has none.")
        self.head, self.control, self.group_size = head, control, group_size
        self.family, self.needs_memory = head.family, head.needs_memory  # type: ignore[misc]
        self._part = None if control == _WORD else head.controlled

    def initial_state(self, rows: int, device: torch.device) -> State:
        return self.head.initial_state(rows, device)

    def remember(self, hidden: Tensor, mask: Tensor) -> Tensor:
        return self.head.remember(hidden, mask)

    def sample(self, read: Readout, rng: CounterRNG) -> Action:
        action = self.head.sample(read, rng)
        if self._part is not None:
            return {**action, self._part: self._replaced(action[self._part], read.table_VD, rng)}
        if self.control == _WORD:
            latent = nn.functional.embedding(action["token"], read.table_VD)
        else:
            latent = self.head.embed(action, read.table_VD)
            latent = self._replaced(latent, read.table_VD, rng)
        # What the head keeps, and where it chose plain tokens, is as without a control.
        kept = {name: action[name] for name in ("plain", *read.state) if name in action}
        return {"token": action["token"], "latent": latent, **kept}

    def _replaced(self, latent_BD: Tensor, table_VD: Tensor, rng: CounterRNG) -> Tensor:
        return _LATENT[self.control](latent_BD, table_VD, rng, self.group_size)

    def embed(self, action: Action, table_VD: Tensor) -> Tensor:
        return action["latent"] if self._part is None else self.head.embed(action, table_VD)

    def log_prob(self, action: Action, read: Readout) -> Tensor:
        return torch.zeros_like(read.logits[..., 0])

    def flops(self, vocab_size: int, hidden_size: int) -> tuple[float, float]:
        """Its head's: a control is compared at equal cost."""
        return self.head.flops(vocab_size, hidden_size)

    def remember_flops(self, hidden_size: int) -> float:
        return self.head.remember_flops(hidden_size)
