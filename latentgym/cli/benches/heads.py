"""Every policy head of the library, for benchmarks."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable

import torch

from latentgym import heads
from latentgym.heads import (
    ColdStopHead,
    ControlHead,
    DirichletHead,
    GatedHead,
    GaussianHead,
    HiddenStateHead,
    MixtureHead,
    MultiTokenHead,
    PolicyHead,
    RATTHead,
    SwitchingHead,
    TokenHead,
    TransitionHead,
)

# By the width of the model; settings are the papers'.
SETTINGS: dict[str, Callable[[int], PolicyHead]] = {
    "token": lambda _: TokenHead(),
    "mts-8": lambda _: MultiTokenHead(8),
    "mixture-10": lambda _: MixtureHead(top_k=10),
    "mixture-full": lambda _: MixtureHead(),
    "dirichlet": lambda _: DirichletHead(),
    "hrpo": lambda width: GatedHead(width, TokenHead(0.5, top_k=50)),
    "hrpo-full": lambda width: GatedHead(width, TokenHead(0.5)),
    "colar": lambda width: GaussianHead(width, 2048),
    "coconut": lambda _: HiddenStateHead(),
    "latentr3": lambda width: RATTHead(width),
    "cold-stop": lambda _: ColdStopHead(10, 0.95, 0.6, bound=0.0, patience=256, end=0),
    "swireasoning": lambda _: SwitchingHead(TokenHead(0.6)),
    "ctrls": lambda width: TransitionHead(width, TokenHead(0.7), step_end=torch.tensor([0])),
}
_NOT_ONE = (ControlHead,)  # stands around another head


def every_head(width: int) -> dict[str, PolicyHead]:
    """Heads by name: in the papers' settings, and all others that `latentgym.heads` offers.

    Args:
        width: of the model, D.

    Raises:
        TypeError: a head that needs more than the width has no settings here.
    """
    made = {name: make(width) for name, make in SETTINGS.items()}
    known = (*_NOT_ONE, *map(type, made.values()))
    for name in heads.__all__:
        kind = getattr(heads, name)
        if not (inspect.isclass(kind) and issubclass(kind, PolicyHead)):
            continue
        if inspect.isabstract(kind) or kind in known:
            continue
        needs_width = "width" in inspect.signature(kind).parameters
        made[_short(name)] = kind(width) if needs_width else kind()
    return made


def _short(name: str) -> str:
    """`PauseHead` as `pause`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", name.removesuffix("Head")).lower()
