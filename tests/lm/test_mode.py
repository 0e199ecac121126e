"""Training and evaluation mode are lent, part by part, and given back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from latentgym.lm import LatentLM, load_model
from latentgym.lm.mode import mode
from latentgym.registry import make_vector_env
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


@pytest.mark.parametrize("how", ["bfloat16 throughout", "frozen under autocast"])
def test_frequencies_of_positions_are_not_rounded(how: str) -> None:
    """In bf16 they would turn the 2,000th position by far more than they should."""
    frozen = how == "frozen under autocast"
    task: Any = make_vector_env("latent/MNNS-token", 1).unwrapped.task
    exact = load_model("tiny:llama:2x2x32", tokenizer=task.tokenizer)
    lm = load_model(
        "tiny:llama:2x2x32", tokenizer=task.tokenizer, dtype="bfloat16", mixed_precision=frozen
    )
    if frozen:
        lm.freeze()
    assert all(p.dtype == torch.bfloat16 for p in lm.parameters())
    for one, other in zip(lm.model.buffers(), exact.model.buffers(), strict=True):
        assert one.dtype == other.dtype == torch.float32 and torch.equal(one, other)
    x, mask = exact.embed(torch.arange(8).expand(1, -1)), torch.ones(1, 8, dtype=torch.bool)
    position = torch.arange(1992, 2000)[None]
    with torch.no_grad():
        of_both = [
            m.backbone(
                inputs_embeds=x.to(m.table_VD.dtype), attention_mask=mask, position_ids=position
            ).last_hidden_state.float()
            for m in (exact, lm)
        ]
    assert_close(*of_both, rtol=0.1, atol=0.1)
