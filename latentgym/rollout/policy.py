"""A policy: a language model, the head it thinks with, and the voice it answers with."""

from __future__ import annotations

from typing import Any

from torch import nn

from latentgym.heads import PolicyHead, TokenHead
from latentgym.lm.model import LatentLM


class Policy(nn.Module):
    """What is rolled out, replayed, trained and saved.

    Args:
        lm: the language model.
        head: thinks. With a `TokenHead`, thoughts are words.
        voice: speaks the answer's tokens; the head itself if that is a `TokenHead`.
    """

    def __init__(self, lm: LatentLM, head: PolicyHead, voice: TokenHead | None = None) -> None:
        super().__init__()
        self.lm = lm
        self.head = head
        if voice is None:
            voice = head if isinstance(head, TokenHead) else TokenHead()
        self.voice = voice

    @property
    def speaks_its_thoughts(self) -> bool:
        """Whether thoughts and answers are drawn by the same head (the token family)."""
        return self.voice is self.head

    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        """Optimiser groups: the model's trainable parameters, then the head's own."""
        trainable = [p for p in self.lm.parameters() if p.requires_grad]
        groups: list[dict[str, Any]] = [{"params": trainable, "lr": lr}] if trainable else []
        return groups + self.head.parameter_groups(lr)
