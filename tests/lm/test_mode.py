"""Training and evaluation mode are lent, part by part, and given back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from torch import nn

from latentgym.lm import LatentLM, load_model
from latentgym.lm.mode import mode
from latentgym.text.tokenizers import ByteTokenizer


def mixed_modes() -> LatentLM:
    """A model in training whose first layer is kept in evaluation."""
    lm: LatentLM = load_model("tiny:gpt2:2x2x16", tokenizer=ByteTokenizer())
    lm.train()
    lm.backbone.h[0].eval()
    return lm


def flags(module: nn.Module) -> list[bool]:
    return [part.training for part in module.modules()]


@pytest.mark.parametrize(
    ("within", "training"),
    [
        (lambda lm: lm.decoding(), False),
        (lambda lm: mode(lm, training=False), False),
        (lambda lm: mode(lm, training=True), True),
    ],
)
@pytest.mark.parametrize("fails", [False, True])
def test_every_part_is_as_it_was(
    within: Callable[[LatentLM], Any], training: bool, fails: bool
) -> None:
    lm = mixed_modes()
    before = flags(lm)
    assert len(set(before)) == 2
    try:
        with within(lm):
            assert set(flags(lm)) == {training}
            if fails:
                raise KeyError
    except KeyError:
        assert fails
    assert flags(lm) == before
