"""The three action families, as built-in Gymnasium spaces.

| family     | space                       | one action                    |
|------------|-----------------------------|-------------------------------|
| token      | `Discrete(V)`               | a vocabulary id               |
| hybrid     | `Dict(token, latent, gate)` | an id and a vector with gate  |
| continuous | `Dict(ids, weights)`        | a mixture of K ids            |

Shapes: N rows, V vocabulary, D width of the model, K support of a superposition. Every action is
*read* by one token: the id itself, or the id of greatest total weight. Environments count, match
markers and render with it; in the answer phase it is the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from latentgym.errors import ActionError, UsageError, did_you_mean

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Family:
    """One action family.

    Attributes:
        name: `token`, `hybrid` or `continuous`: the suffix of the environment ids.
        tokens: whether thoughts are plain tokens, which a grader may read as text.
        mixes: whether one thought may hold several tokens at once; where it may not, methods think
            along words, and a chain is demonstrated one token at a time.
        space: the action space for (vocabulary V, width D, support K).
        read: the tokens that N batched actions are read by, int64 of shape (N,); raises
            `ActionError` for an action that is outside the space.
        speak: N batched actions that say the given tokens plainly, the inverse of `read`, for
            (tokens, width D, support K).
    """

    name: str
    tokens: bool
    mixes: bool
    space: Callable[[int, int, int], gym.Space[Any]]
    read: Callable[[Any, int], IntArray]
    speak: Callable[[IntArray, int, int], Any]


def _token_space(vocab_size: int, width: int, support: int) -> gym.Space[Any]:
    return spaces.Discrete(vocab_size)


def _hybrid_space(vocab_size: int, width: int, support: int) -> gym.Space[Any]:
    return spaces.Dict(
        token=spaces.Discrete(vocab_size),
        latent=spaces.Box(-np.inf, np.inf, (width,), np.float32),
        gate=spaces.Box(0.0, 1.0, (width,), np.float32),
    )


def _continuous_space(vocab_size: int, width: int, support: int) -> gym.Space[Any]:
    if support > vocab_size:
        raise UsageError(
            f"a superposition of {support} ids needs a vocabulary of at least {support}, but this "
            f"one has {vocab_size}; choose support <= {vocab_size}."
        )
    return spaces.Dict(
        ids=spaces.MultiDiscrete([vocab_size] * support),
        weights=spaces.Box(0.0, 1.0, (support,), np.float32),
    )


def _read_token(action: Any, vocab_size: int) -> IntArray:
    return _valid_ids(action, vocab_size, "a token action")


def _read_hybrid(action: Any, vocab_size: int) -> IntArray:
    _require_keys(action, ("token", "latent", "gate"), "hybrid")
    for key in ("latent", "gate"):
        _finite(action[key], f"the {key} of a hybrid action")
    gate = as_array(action["gate"], "the gate of a hybrid action")
    if gate.size and (gate.min() < 0 or gate.max() > 1):
        raise ActionError("the gate of a hybrid action must lie in [0, 1].")
    return _valid_ids(action["token"], vocab_size, "the token of a hybrid action")


def _read_continuous(action: Any, vocab_size: int) -> IntArray:
    _require_keys(action, ("ids", "weights"), "continuous")
    ids = _valid_ids(action["ids"], vocab_size, "the ids of a superposition")
    weights = _finite(action["weights"], "the weights of a superposition")
    if ids.shape != weights.shape:
        raise ActionError(
            f"a superposition needs one weight per id, but has ids of shape {ids.shape} and "
            f"weights of shape {weights.shape}."
        )
    if weights.size and (weights.min() < 0 or weights.max() > 1):
        raise ActionError("the weights of a superposition must lie in [0, 1].")
    if (weights.sum(-1) <= 0).any():
        raise ActionError("the weights of a superposition cannot all be zero.")
    return dominant(ids, weights)


def dominant(ids: IntArray, weights: npt.NDArray[Any]) -> IntArray:
    """The id of greatest total weight, equal ids added up; the first such id on a tie.

    Args:
        ids: int64 of shape (..., K).
        weights: of shape (..., K).

    Returns:
        int64 of shape (...).
    """
    if ids.shape[-1] == 1:
        return ids[..., 0]
    total = ((ids[..., :, None] == ids[..., None, :]) * weights[..., None, :]).sum(-1)
    best = total.argmax(-1)
    return np.take_along_axis(ids, best[..., None], -1)[..., 0]


def _speak_token(tokens: IntArray, width: int, support: int) -> Any:
    return tokens


def _speak_hybrid(tokens: IntArray, width: int, support: int) -> Any:
    zeros = np.zeros((len(tokens), width), dtype=np.float32)
    return {"token": tokens, "latent": zeros, "gate": zeros.copy()}


def _speak_continuous(tokens: IntArray, width: int, support: int) -> Any:
    weights = np.zeros((len(tokens), support), dtype=np.float32)
    weights[:, 0] = 1.0
    return {"ids": np.repeat(tokens[:, None], support, axis=1), "weights": weights}


def as_array(value: Any, what: str) -> npt.NDArray[Any]:
    """What somebody has sent, as an array.

    Raises:
        ActionError: it is none: rows of unequal length, or a tensor that NumPy cannot read.
    """
    try:
        return np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ActionError(f"{what} must be an array, but NumPy reads none ({error}).") from error


def _require_keys(action: Any, keys: tuple[str, ...], family: str) -> None:
    if not isinstance(action, Mapping) or set(action) != set(keys):
        got = sorted(action) if isinstance(action, Mapping) else type(action).__name__
        raise ActionError(f"a {family} action is a dict with the keys {list(keys)}, not {got}.")


def _valid_ids(value: Any, vocab_size: int, what: str) -> IntArray:
    ids = as_array(value, what)
    if ids.dtype.kind not in "iu":
        raise ActionError(f"{what} must be of an integer type, not {ids.dtype}.")
    if ids.size and (ids.min() < 0 or ids.max() >= vocab_size):
        bad = int(ids[(ids < 0) | (ids >= vocab_size)].flat[0])
        raise ActionError(f"{what} must lie in [0, {vocab_size}), but {bad} does not.")
    return ids.astype(np.int64)


def _finite(value: Any, what: str) -> npt.NDArray[Any]:
    array = as_array(value, what)
    if array.dtype.kind not in "biuf":
        raise ActionError(f"{what} must be numbers, not {array.dtype}.")
    if not np.isfinite(array).all():
        raise ActionError(f"{what} must be finite, but holds NaN or infinity.")
    return array


TOKEN = Family("token", True, False, _token_space, _read_token, _speak_token)
HYBRID = Family("hybrid", False, False, _hybrid_space, _read_hybrid, _speak_hybrid)
CONTINUOUS = Family(
    "continuous", False, True, _continuous_space, _read_continuous, _speak_continuous
)
FAMILIES: Mapping[str, Family] = {f.name: f for f in (TOKEN, HYBRID, CONTINUOUS)}


def family(name: str) -> Family:
    """The family of that name.

    Raises:
        UsageError: there is none.
    """
    try:
        return FAMILIES[name]
    except KeyError:
        raise UsageError(f"no action family {name!r}; {did_you_mean(name, FAMILIES)}") from None
