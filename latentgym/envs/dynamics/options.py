"""What a model inside an environment is asked to do, as data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from latentgym.system.options.keywords import Option

OF_FAMILY = {"token": "token", "hybrid": "gate", "continuous": "mixture"}
"""The interface of each family where none is named."""
SEEN = ("hidden", "log_probs", "tokens", "phase", "steps_left")


@dataclass(frozen=True, kw_only=True)
class DynamicsOptions:
    """Options of `LatentDynamics`; keyword arguments of an environment with `dynamics`."""

    interface: (
        Annotated[
            Literal["mixture", "latent", "gate", "token", "native"],
            Option("what an action is; by default the one of the family"),
        ]
        | None
    ) = None
    k: Annotated[int, Option("so many of the likeliest tokens are seen and chosen from", 1)] = 8
    scale: (
        Annotated[
            float, Option("what the numbers of an action from -1 to 1 are multiplied by", 1e-6, 1e6)
        ]
        | None
    ) = None
    prior: Annotated[
        float,
        Option(
            "share of the model's own log-probabilities in the logits of a mixture: with 1, zeros "
            "mix as the model does; with 0 they mix evenly",
            0,
            100,
        ),
    ] = 1.0
    rank: (
        Annotated[
            int, Option("numbers of a latent: directions in which token embeddings differ most", 1)
        ]
        | None
    ) = None
    answered_by: Annotated[
        Literal["model", "agent"],
        Option(
            "who says the answer: the model, greedily and within one step, or the agent, a token a "
            "step"
        ),
    ] = "model"
    observe: Annotated[
        list[str] | tuple[str, ...], Option("entries of an observation; `task` has the plain one")
    ] = SEEN
    shaping: Annotated[
        float,
        Option(
            "reward of a thought for each nat by which it makes the right answer likelier; it "
            "looks at gold",
            0,
            1e6,
        ),
    ] = 0.0
    hidden_scale: (
        Annotated[
            float, Option("what hidden states are divided by; by default it is measured", 1e-6, 1e6)
        ]
        | None
    ) = None
    device: Annotated[str, Option("where the model is: `cpu`, `cuda` or `auto`")] = "auto"
    dtype: Annotated[str, Option("of its weights: `auto`, `float32`, `bfloat16`")] = "auto"
