"""What an action says to a model inside the environment: numbers in, an input embedding out.

| interface | action                    | the model reads                                     |
|-----------|---------------------------|-----------------------------------------------------|
| `token`   | `Discrete(k)`             | that one of the k likeliest tokens                  |
| `mixture` | `Box(-1, 1, (k,))`        | a superposition of the k likeliest                  |
| `gate`    | `Box(-1, 1, (k + 1,))`    | its heaviest token, blended with it (HRPO)          |
| `latent`  | `Box(-1, 1, (R,))`        | a vector of the size of embeddings                  |
| `native`  | the family's own space    | token, superposition, or gated latent               |

Every action is read by one token, which ends thinking and is what is said in an answer: the
heaviest of a mixture, the likeliest of the model's own beside a latent.

Legend: B rows that act, k likeliest tokens, V vocabulary, D width, R numbers of a latent.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from latentgym.envs.dynamics.options import DynamicsOptions
from latentgym.episodes.spaces import Family
from latentgym.errors import ActionError, UsageError
from latentgym.heads.superposition import mix


@dataclass(frozen=True)
class Likeliest:
    """The k likeliest next tokens of some rows, the likeliest first.

    Attributes:
        ids_Bk: int64.
        logp_Bk: their log-probabilities, fp32.
    """

    ids_Bk: Tensor
    logp_Bk: Tensor


@dataclass(frozen=True)
class Setting:
    """What an interface is made for.

    Attributes:
        table_VD: the embedding table.
        options: of the environment.
        family: of its actions.
        support: ids in a superposition of the family.
    """

    table_VD: Tensor
    options: DynamicsOptions
    family: Family
    support: int


class Interface(ABC):
    """Turns actions into what the model reads.

    Args:
        setting: what it is made for.

    Attributes:
        space: of one row's action.
    """

    space: gym.Space[Any]

    def __init__(self, setting: Setting) -> None:
        self._table_VD = setting.table_VD

    @abstractmethod
    def read(self, actions: Any, seen: Likeliest) -> tuple[Tensor, Tensor]:
        """What the model reads of the actions of some rows.

        Args:
            actions: of B rows, batched as the batched space has them.
            seen: what these rows see.

        Returns:
            The token that each action is read by, int64 (B,), and its input embedding (B, D).

        Raises:
            ActionError: an action outside the space.
        """


class _Numbers(Interface):
    """Actions are numbers from -1 to 1; those beyond are taken to the nearest bound."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._size = self._size_for(setting)
        self.space = spaces.Box(-1.0, 1.0, (self._size,), np.float32)

    @abstractmethod
    def _size_for(self, setting: Setting) -> int:
        """How many numbers make an action."""

    def _numbers(self, actions: Any, seen: Likeliest) -> Tensor:
        given = np.asarray(actions)
        shape = (len(seen.ids_Bk), self._size)
        if given.shape != shape or given.dtype.kind not in "iuf":
            raise ActionError(
                f"actions are {shape[1]} numbers for each of {shape[0]} rows, not {given.dtype} of "
                f"shape {given.shape}."
            )
        if not np.isfinite(given).all():
            row = int(np.flatnonzero(~np.isfinite(given).all(1))[0])
            raise ActionError(f"the action of row {row} holds NaN or infinity; send finite ones.")
        within = np.clip(given, -1, 1).astype(np.float32)
        return torch.from_numpy(within).to(seen.logp_Bk.device)


class Mixture(_Numbers):
    """Logits over the k likeliest tokens, to which those of the model itself are added."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        o = setting.options
        self._scale, self._prior = 10.0 if o.scale is None else o.scale, o.prior

    def _size_for(self, setting: Setting) -> int:
        return setting.options.k

    def read(self, actions: Any, seen: Likeliest) -> tuple[Tensor, Tensor]:
        weights_Bk, token_B = self._mixture(self._numbers(actions, seen), seen)
        return token_B, mix(seen.ids_Bk, weights_Bk, self._table_VD)

    def _mixture(self, a_Bk: Tensor, seen: Likeliest) -> tuple[Tensor, Tensor]:
        """Weights, and the heaviest token."""
        weights_Bk = (self._scale * a_Bk + self._prior * seen.logp_Bk).softmax(-1)
        heaviest_B1 = weights_Bk.argmax(-1, keepdim=True)
        return weights_Bk, seen.ids_Bk.gather(-1, heaviest_B1)[:, 0]


class Gate(Mixture):
    """A mixture, and a gate a from 0 to 1: x = a e + sqrt(1 - a^2) h (HRPO, arXiv 2505.18454).

    e is the embedding of the heaviest token and h the mixture, whose weights have length 1. The
    last number is the gate, moved from [-1, 1].
    """

    def _size_for(self, setting: Setting) -> int:
        return setting.options.k + 1

    def read(self, actions: Any, seen: Likeliest) -> tuple[Tensor, Tensor]:
        numbers_Bk = self._numbers(actions, seen)
        weights_Bk, token_B = self._mixture(numbers_Bk[:, :-1], seen)
        weights_Bk = weights_Bk / weights_Bk.norm(dim=-1, keepdim=True)
        h_BD = mix(seen.ids_Bk, weights_Bk, self._table_VD)
        a_B1 = ((numbers_Bk[:, -1:] + 1) / 2).to(h_BD.dtype)
        e_BD = torch.nn.functional.embedding(token_B, self._table_VD)
        return token_B, gated(a_B1, e_BD, h_BD)


class Latent(_Numbers):
    """A vector: numbers whose root mean square of 1 is that of the embedding table.

    With `rank` there are so many numbers, along the directions in which token embeddings differ
    most (the first right singular vectors of the centred table).
    """

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        o, table_VD = setting.options, self._table_VD.float()
        self._unit = float(table_VD.square().mean().sqrt()) * (o.scale or 1.0)
        self._basis_RD = None if o.rank is None else principal_directions(table_VD, o.rank)

    def _size_for(self, setting: Setting) -> int:
        rank, (vocab, width) = setting.options.rank, setting.table_VD.shape
        if rank is not None and rank > (most := min(vocab, width)):
            raise UsageError(
                f"rank {rank} is more than a table of {vocab} embeddings of width {width} has; "
                f"choose rank <= {most}."
            )
        return rank or width

    def read(self, actions: Any, seen: Likeliest) -> tuple[Tensor, Tensor]:
        x_BD = self._numbers(actions, seen)
        if self._basis_RD is not None:
            rank, width = self._basis_RD.shape
            x_BD = (width / rank) ** 0.5 * (x_BD @ self._basis_RD)
        return seen.ids_Bk[:, 0], (self._unit * x_BD).to(self._table_VD.dtype)


class Token(Interface):
    """Which of the k likeliest tokens."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.space = spaces.Discrete(setting.options.k)

    def read(self, actions: Any, seen: Likeliest) -> tuple[Tensor, Tensor]:
        place, (rows, k) = np.asarray(actions), seen.ids_Bk.shape
        whole = place.shape == (rows,) and place.dtype.kind in "iu"
        if not whole or (place < 0).any() or (place >= k).any():
            raise ActionError(
                f"actions are a whole number from 0 to {k - 1} for each of {rows} rows, the place "
                "of a token among the likeliest."
            )
        place_B1 = torch.from_numpy(place.astype(np.int64)).to(seen.ids_Bk.device)[:, None]
        token_B = seen.ids_Bk.gather(-1, place_B1)[:, 0]
        return token_B, torch.nn.functional.embedding(token_B, self._table_VD)


class Native(Interface):
    """The action family's own space: a token, a superposition, or a token, a latent and its gate.

    Weights of a superposition are scaled to add up to one. Of a hybrid action the model reads
    a e + sqrt(1 - a^2) h, element by element: e is the token's embedding, a the gate and h the
    latent; a gate of 0 leaves the latent alone.
    """

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._family = setting.family
        vocab, width = self._table_VD.shape
        self.space = self._family.space(vocab, width, setting.support)

    def read(self, actions: Any, seen: Likeliest) -> tuple[Tensor, Tensor]:
        table, device = self._table_VD, seen.ids_Bk.device
        token = self._family.read(actions, len(table))
        if token.shape != (len(seen.ids_Bk),):
            raise ActionError(f"{len(seen.ids_Bk)} rows act, but there are {token.shape} actions.")
        token_B = torch.from_numpy(token).to(device)
        e_BD = torch.nn.functional.embedding(token_B, table)
        if not isinstance(actions, Mapping):
            return token_B, e_BD

        def part(name: str, dtype: type[np.generic]) -> Tensor:
            # Of NumPy's types, torch knows not all.
            return torch.from_numpy(np.array(actions[name], dtype=dtype)).to(device)

        if "ids" in actions:
            weights = part("weights", np.float32)
            weights = weights / weights.sum(-1, keepdim=True)
            return token_B, mix(part("ids", np.int64), weights, table)
        latent, gate = part("latent", np.float32), part("gate", np.float32)
        for name, given in (("latent", latent), ("gate", gate)):
            if given.shape != e_BD.shape:
                raise ActionError(
                    f"the {name} of a hybrid action has {table.shape[1]} numbers, the width of the "
                    f"model, but this one is of shape {tuple(given.shape[1:])}."
                )
        return token_B, gated(gate.to(e_BD), e_BD, latent.to(e_BD))


def gated(a: Tensor, e_BD: Tensor, h_BD: Tensor) -> Tensor:
    """a e + sqrt(1 - a^2) h."""
    return a * e_BD + (1 - a.square()).clamp_min(0).sqrt() * h_BD


def principal_directions(table_VD: Tensor, rank: int) -> Tensor:
    """The directions of greatest variance of a table's rows, orthonormal (rank, D), fp32."""
    centred = table_VD - table_VD.mean(0)
    # Of the D x D matrix: the table itself may have a hundred thousand rows.
    _, vectors_DD = torch.linalg.eigh((centred.T @ centred).double())
    basis_RD = vectors_DD.flip(1)[:, :rank].T.float()
    # The sign of an eigenvector is anyone's: the largest element is positive.
    largest_R1 = basis_RD.abs().argmax(-1, keepdim=True)
    signed_RD: Tensor = basis_RD * basis_RD.gather(-1, largest_R1).sign()
    return signed_RD


INTERFACES: Mapping[str, Callable[[Setting], Interface]] = {
    "mixture": Mixture,
    "gate": Gate,
    "latent": Latent,
    "token": Token,
    "native": Native,
}
"""The interfaces by name."""
