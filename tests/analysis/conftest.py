"""Models and sequences to look into."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

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


@pytest.fixture
def latents_report() -> dict[str, Any]:
    """Of two questions with two thoughts each, as `analyze latents` writes it."""
    number = {"mean": -0.25, "low": -0.5, "high": 0.1}
    steps: list[int | str] = [0, 1, "all"]
    cells = [{"step": step, "rows": 2, "probability": number} for step in steps]
    names = ("zero", "swap", "zero@0.5")
    near, then = ([{"id": 7, "text": "S3", name: 0.5}] for name in ("cosine", "probability"))
    return {
        "model": "tiny",
        "env": "latent/MNNS-continuous",
        "agent": "mts-grpo",
        "analysis": "latents",
        "blocks": 2,
        "sequences": 2,
        "positions": {"prompt": 8, "latent": 4, "answer": 2},
        "questions": [17, 40],
        "answers": [{"parsed": "S4", "score": 1.0}, {"parsed": None, "score": 0.0}],
        "demonstrations": False,
        "latents": {
            "direct": {
                "effect": "direct",
                "questions": 2,
                "map": {name: [dict(cell) for cell in cells] for name in names},
            },
            "decoded": [
                {"row": row, "step": step, "kind": "latent", "nearest": near, "lens": {"1": then}}
                for row in range(2)
                for step in range(2)
            ],
        },
        "definitions": {"latents": {"zero": "the zero vector"}},
    }
