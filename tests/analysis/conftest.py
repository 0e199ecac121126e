"""Models and sequences to look into."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from latentgym.analysis.residual import ResidualStream
from latentgym.analysis.sequences import PositionKind, Sequences
from latentgym.lm import LatentLM

LENGTHS = (24, 17, 30)


@pytest.fixture
def stream(random_lm: Callable[..., LatentLM]) -> ResidualStream:
    return ResidualStream(random_lm("llama"))


@pytest.fixture
def sequences(stream: ResidualStream) -> Sequences:
    return _random_sequences(stream.lm)


@pytest.fixture
def random_sequences() -> Callable[..., Sequences]:
    """`random_sequences(lm, lengths, seed)`: rows of prompt, latents and answer, padded on both
    sides."""
    return _random_sequences


def _random_sequences(lm: LatentLM, lengths: tuple[int, ...] = LENGTHS, seed: int = 0) -> Sequences:
    generator = torch.Generator().manual_seed(seed)
    width = max(lengths) + 4
    token = torch.randint(3, lm.vocab_size, (len(lengths), width), generator=generator)
    kind = torch.zeros_like(token)
    for row, length in enumerate(lengths):
        # Left padding as prompts have it, and right padding as steps have it.
        kind[row, 2 + row % 2 : 2 + row % 2 + length] = PositionKind.PROMPT
        end = 2 + row % 2 + length
        kind[row, end - 9 : end - 3] = PositionKind.LATENT
        kind[row, end - 3 : end] = PositionKind.ANSWER
    x = lm.embed(token).detach()
    noise = torch.randn(x.shape, generator=generator) * x.std()
    latent = (kind == PositionKind.LATENT)[..., None]
    return Sequences(token, kind, torch.where(latent, x + noise, x))
