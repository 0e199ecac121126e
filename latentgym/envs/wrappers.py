"""Wrappers where Gymnasium's own do not serve.

Budgets and prompts are arguments of the environments (`think`, `answer`, `system`, `format`),
because they are part of the task's rules. Two of these watch an episode from outside; two turn the
actions of a family into one finite Box, for libraries that know no other.

Legend: V vocabulary, K ids of a superposition, D width of a latent.
"""

from __future__ import annotations

import json
from numbers import Real
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt

from latentgym.errors import ActionError, UsageError, told
from latentgym.options.ranges import Range


class RecordTranscripts(gym.Wrapper[Any, Any, Any, Any], gym.utils.RecordConstructorArgs):
    """Appends one JSON line per finished episode: question, answer, reward components.

    Args:
        env: a latentgym environment.
        path: of the `.jsonl` file; made if it is not there.
    """

    def __init__(self, env: gym.Env[Any, Any], path: str) -> None:
        gym.utils.RecordConstructorArgs.__init__(self, path=path)
        super().__init__(env)
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        result = self.env.step(action)
        if result[2] or result[3]:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(result[4], ensure_ascii=False) + "\n")
        return result


class EpisodeStatistics(gym.Wrapper[Any, Any, Any, Any], gym.utils.RecordConstructorArgs):
    """Running means over episodes, in `info["episode_means"]` at the end of each.

    Gymnasium's own statistics know return and length; these know thoughts, tokens, the share of
    episodes that were truncated and every component of the reward.
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        gym.utils.RecordConstructorArgs.__init__(self)
        super().__init__(env)
        self.episodes = 0
        self._sums: dict[str, float] = {}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = self.env.step(action)
        if terminated or truncated:
            self.episodes += 1
            counted = {k: v for k, v in info.items() if k.startswith("reward/")}
            counted |= {"score": info["score"], "thoughts": info["thoughts"]}
            counted |= {"tokens": info["tokens"], "truncated": float(truncated)}
            for name, value in counted.items():
                self._sums[name] = self._sums.get(name, 0.0) + float(value)
            means = {name: total / self.episodes for name, total in self._sums.items()}
            info = {**info, "episode_means": means}
        return observation, reward, terminated, truncated, info


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
