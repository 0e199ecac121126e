"""SwiReasoning: latent or explicit thinking by the trend of the entropy, without training.

"SwiReasoning: Switch-Thinking in Latent and Explicit for Pareto-Superior Reasoning LLMs"
(arXiv 2510.05069). The model thinks in mixtures of the whole vocabulary while its entropy rises,
and in words when it falls. Deviations: docs/agents/swireasoning.md.
"""

from __future__ import annotations

import string
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

from latentgym import heads, rollout
from latentgym.agents.base import Agent
from latentgym.errors import UsageError
from latentgym.system.options.ranges import NotNegative, PositiveShare, Share, SizeOrZero, Steps
from latentgym.text.tokenizers import HFTokenizer

if TYPE_CHECKING:
    from torch import Tensor

    from latentgym.lm import LatentLM

_SYMBOLS = (*string.digits, *string.ascii_letters, *"+-*/^=<>()[]{}_|")


@dataclass(frozen=True)
class SwiReasoningConfig:
    """Settings of SwiReasoning; the defaults are the authors', but for the marks."""

    window: SizeOrZero = 512
    """Fewest words before latent thinking begins again."""
    fall: NotNegative = 0.0
    """Nats by which entropy must fall below its reference, for words."""
    rise: NotNegative = 0.0
    """Nats by which it must rise above it, for latent thinking."""
    begins: Literal["latent", "explicit"] = "latent"
    """How thinking begins."""
    most_switches: Steps | None = None
    """To words; after so many it stays with them. None for no bound."""
    marks: str = ""
    """Two tokens between commas, such as <think>,</think>, that are blended in where latent
    thinking begins and ends; by default none, as most models have no such tokens."""
    alpha: Share = 1.0
    """Share of the mixture where latent thinking begins, beside the first mark."""
    beta: Share = 0.7
    """Share of the word where it ends, beside the second mark."""
    words_only: bool = True
    """Read digits, letters and operators as words even in latent thinking."""
    temperature: NotNegative = 0.0
    """Of words; the authors sample at .6."""
    top_p: PositiveShare = 1.0
    """Of words; the authors have .95."""


class SwiReasoning(Agent[SwiReasoningConfig]):
    """Thinks latently while it grows less sure, in words when it grows surer."""

    name = "swireasoning"
    families = ("hybrid",)
    config_class = SwiReasoningConfig
    presets: ClassVar[dict[str, SwiReasoningConfig]] = {
        "paper": SwiReasoningConfig(
            marks="<think>,</think>", alpha=0.5, temperature=0.6, top_p=0.95
        ),
        "short": replace(SwiReasoningConfig(), window=16),
    }

    def policy(self, lm: LatentLM, *, acting: bool) -> rollout.Policy:
        c = self.config
        head = heads.SwitchingHead(
            heads.TokenHead(c.temperature, top_p=c.top_p),
            window=c.window,
            fall=c.fall,
            rise=c.rise,
            begins_latent=c.begins == "latent",
            most_switches=c.most_switches,
            marks=_marks(lm, c.marks) if c.marks else None,
            alpha=c.alpha,
            beta=c.beta,
            words_only=_symbols(lm) if c.words_only else None,
        )
        return rollout.Policy(lm, head, heads.TokenHead(temperature=0.0))


def _marks(lm: LatentLM, text: str) -> tuple[int, int]:
    """The ids of the two marks.

    Raises:
        UsageError: they are not two, or the model has no such token.
    """
    names = text.split(",")
    if len(names) != 2:
        raise UsageError(f"--marks are two tokens with a comma between them, not {text!r}.")
    ids = [lm.tokenizer.encode(name) for name in names]
    for name, found in zip(names, ids, strict=True):
        if len(found) != 1:
            raise UsageError(f"{name!r} is no token of {lm.name}; give others to --marks.")
    return ids[0][0], ids[1][0]


def _symbols(lm: LatentLM) -> Tensor | None:
    """The ids of digits, letters and operators; None for models that speak a task's symbols."""
    import torch

    if not isinstance(lm.tokenizer, HFTokenizer):
        return None
    ids = {i for symbol in _SYMBOLS for i in lm.tokenizer.encode(symbol)}
    return torch.tensor(sorted(ids), dtype=torch.int64, device=lm.device)
