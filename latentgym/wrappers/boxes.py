"""Actions of a family as one finite Box, for libraries that know no other.

Legend: V vocabulary, K ids of a superposition, D width of a latent.
"""

from __future__ import annotations

from numbers import Real
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt

from latentgym.errors import ActionError, UsageError, told
from latentgym.system.options.ranges import Range

_SCALE = Range(0, float(np.finfo(np.float32).max), above=True)  # of what is float32 in an action


class _Flat(gym.ActionWrapper[Any, Any, Any], gym.utils.RecordConstructorArgs):
    """Actions are points of a Box of numbers from -1 to 1.

    Args:
        env: a single environment of the family.
        scale: what the numbers are multiplied with.

    Attributes:
        parts: the entries of the family's actions, in order.
    """

    parts: tuple[str, ...]

    def __init__(self, env: gym.Env[Any, Any], scale: float) -> None:
        gym.utils.RecordConstructorArgs.__init__(self, scale=scale)
        super().__init__(env)
        if not _is_scale(scale):
            raise UsageError(
                f"the scale of {type(self).__name__} is a number {_SCALE}, not {told(scale)}."
            )
        space = env.action_space
        if not isinstance(space, gym.spaces.Dict) or tuple(sorted(space)) != self.parts:
            raise UsageError(
                f"{type(self).__name__} makes actions of {', '.join(self.parts)}, but those of "
                f"{env} are {space}; use it around an environment of that family."
            )
        self.scale = float(scale)
        self.action_space = gym.spaces.Box(-1.0, 1.0, (self._size(space),), np.float32)

    def _size(self, space: gym.spaces.Dict) -> int:
        """How many numbers make an action of that space."""
        raise NotImplementedError

    def _numbers(self, action: Any) -> npt.NDArray[np.float64]:
        """The numbers of an action, checked, and within their bounds.

        Raises:
            ActionError: another number of them, or one that is not finite.
        """
        shape: Any = self.action_space.shape
        numbers = np.asarray(action, dtype=np.float64)
        if numbers.shape != shape or not np.isfinite(numbers).all():
            raise ActionError(f"an action is {shape[0]} finite numbers; not {np.shape(action)}.")
        return np.clip(numbers, -1.0, 1.0)


def _is_scale(value: Any) -> bool:
    number = type(value) is not bool and isinstance(value, Real)
    return number and value in _SCALE


class BoxMixture(_Flat):
    """Continuous family: logits over the vocabulary, a Box of shape (V,), make a superposition.

    Its ids are the K of greatest logit, and their weights the softmax among them; it is read by the
    greatest. The lower of two equal ids comes first.

    Args:
        env: a single environment of the continuous family.
        scale: logits are from -scale to scale.

    Raises:
        UsageError: an environment of another family, or a scale that is not above 0 or more than
            float32 can say.
    """

    parts = ("ids", "weights")

    def __init__(self, env: gym.Env[Any, Any], scale: float = 10.0) -> None:
        super().__init__(env, scale)

    def _size(self, space: gym.spaces.Dict) -> int:
        ids: Any = space["ids"]
        self._support = len(ids.nvec)
        return int(ids.nvec[0])

    def action(self, action: Any) -> dict[str, npt.NDArray[Any]]:
        logits_V = self.scale * self._numbers(action)
        ids_K = np.argsort(-logits_V, kind="stable")[: self._support]
        weights_K = np.exp(logits_V[ids_K] - logits_V[ids_K[0]])
        return {"ids": ids_K, "weights": (weights_K / weights_K.sum()).astype(np.float32)}


class FlatHybrid(_Flat):
    """Hybrid family: one Box of shape (V + 2 D,) holds scores of ids, a latent and its gate.

    The token is the id of greatest score, the first of equal ones; the latent is `scale` times its
    numbers; the gate is its numbers moved from [-1, 1] to [0, 1].

    Args:
        env: a single environment of the hybrid family.
        scale: the numbers of a latent are from -scale to scale.

    Raises:
        UsageError: an environment of another family, or a scale that is not above 0 or more than
            float32 can say.
    """

    parts = ("gate", "latent", "token")

    def __init__(self, env: gym.Env[Any, Any], scale: float = 1.0) -> None:
        super().__init__(env, scale)

    def _size(self, space: gym.spaces.Dict) -> int:
        token, latent = space["token"], space["latent"]
        assert isinstance(token, gym.spaces.Discrete) and latent.shape is not None
        self._vocab, self._width = int(token.n), latent.shape[0]
        return self._vocab + 2 * self._width

    def action(self, action: Any) -> dict[str, Any]:
        score_V, latent_D, gate_D = np.split(
            self._numbers(action), [self._vocab, self._vocab + self._width]
        )
        return {
            "token": np.int64(score_V.argmax()),
            "latent": (self.scale * latent_D).astype(np.float32),
            "gate": ((gate_D + 1) / 2).astype(np.float32),
        }
