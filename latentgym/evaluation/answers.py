"""What agents and evaluation share: an answer to a question, and who gives it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from latentgym.evaluation.accounting import ModelSizes, Positions

if TYPE_CHECKING:
    from torch import nn

IntArray = npt.NDArray[np.int64]
KEEP_THOUGHTS = 5
"""Of the tokens of each thought, so many are kept unless told otherwise."""


@dataclass
class Answer:
    """An agent's answer to one question under one seed.

    Attributes:
        index: number of the question.
        info: final info of the chosen episode: answer, completion, score, status, ...
        thoughts: the thoughts as the tokens nearest to them.
        positions: all forward positions that were spent on the question.
        context: positions of the prompt and of the chosen episode.
        samples: scores of all episodes that were drawn, the chosen one among them.
        metrics: numbers by name; a result has their means over the answers that have them. A number
            that is not finite is none, and is left out.
        batch_metrics: numbers of the batch that it was made in, such as those of its latents; of
            them a result has the means alone, no intervals.
        trace: what was tried on the way to the answer, one entry per attempt, in what JSON can say.
        steps: the thoughts to look at, see docs/records.md; of the chosen episode, as is all below.
        segments: its text by who wrote it and what for.
        truncated: whether it ran out of budget; None where nobody said.
        prompt_hash: of the token ids that were read before it.
    """

    index: int
    info: dict[str, Any]
    thoughts: str
    positions: Positions
    context: int
    samples: tuple[float, ...]
    metrics: Mapping[str, float] = field(default_factory=dict)
    batch_metrics: Mapping[str, float] = field(default_factory=dict)
    trace: Sequence[Mapping[str, Any]] = ()
    steps: Sequence[Mapping[str, Any]] = field(default_factory=list)
    segments: Sequence[Mapping[str, str]] = field(default_factory=list)
    truncated: bool | None = None
    prompt_hash: str = ""

    def __post_init__(self) -> None:
        self.metrics = _finite(self.metrics)
        self.batch_metrics = _finite(self.batch_metrics)


def hash_of(prompt: Sequence[int]) -> str:
    """The fingerprint of a prompt by which runs tell that they asked alike."""
    return sha256(",".join(map(str, prompt)).encode("ascii")).hexdigest()[:16]


def _finite(metrics: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if math.isfinite(value)}


# Told finished answers as soon as a batch of them is made.
Answered = Callable[[Sequence[Answer]], None]


@dataclass(frozen=True)
class Identity:
    """Who answers, for the record and for whoever would go on with it.

    Attributes:
        agent, model, device: names.
        sizes: of the model.
        weights: a fingerprint of them.
        oracle: whether the agent looks at gold answers.
        module: that the agent is from; None for who is no agent.
    """

    agent: str
    model: str
    device: str
    sizes: ModelSizes
    weights: str
    oracle: bool = False
    module: str | None = None

    @classmethod
    def of(cls, agent: Any, policy: Any) -> Identity:
        """That of an agent with its policy."""
        lm = policy.lm
        return cls(
            agent.name,
            lm.name,
            str(lm.device),
            ModelSizes.of(lm, policy.head),
            _fingerprint(policy),
            agent.oracle,
            type(agent).__module__,
        )


@dataclass(frozen=True)
class Answerer:
    """Who answers: an agent in this process, or many of them elsewhere.

    Attributes:
        identity: for the record.
        answer: given question numbers (Q,), a seed, and whom to tell of answers as they are made,
            the answers in the order of the questions.
    """

    identity: Identity
    answer: Callable[[IntArray, int, Answered], list[Answer]]


def _fingerprint(policy: nn.Module) -> str:
    """Of a policy's weights: sums of their bits, which neither order nor device changes."""
    import torch

    number = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # by bytes
    sums = {}
    for name, tensor in policy.state_dict().items():
        bits = tensor.contiguous().view(number[tensor.element_size()])
        sums[name] = int(bits.sum(dtype=bits.dtype))  # wraps around; a wider sum is far slower
    return sha256(repr(sums).encode()).hexdigest()[:16]
