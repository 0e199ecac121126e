"""Erasing the residual stream of single positions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from latentgym.analysis.erasure import residual_erasure
from latentgym.analysis.residual import ResidualStream
from latentgym.analysis.sequences import PositionKind, Sequences
from latentgym.lm import load_model
from latentgym.text.tokenizers import ByteTokenizer


def test_positions_are_those_before_the_answer(
    stream: ResidualStream, sequences: Sequences
) -> None:
    found = residual_erasure(stream, sequences, positions=5)
    for row, each in enumerate(found):
        length = int(sequences.mask_NT[row].sum())
        assert each["positions"][0] == 1 and each["positions"][-1] == length - 4
        assert len(each["positions"]) == len(each["kinds"]) == 5
        assert each["kinds"][0] == "prompt" and each["kinds"][-1] == "latent"
        assert np.shape(each["effect"]) == (len(stream), 5)
        assert np.all(np.array(each["effect"]) >= 0)


@torch.no_grad()
def test_effects_are_as_defined(stream: ResidualStream, sequences: Sequences) -> None:
    (told, *_) = residual_erasure(stream, sequences, layers=[1], positions=100)
    every = stream.trajectory(sequences.x_NTD, sequences.mask_NT)
    mean = every.states[1][sequences.mask_NT & ~sequences.first_NT].mean(0)
    one = sequences.select([0])
    trajectory = stream.trajectory(one.x_NTD, one.mask_NT)
    before_answer = (one.kind_NT[0] == PositionKind.ANSWER).roll(-1) & one.mask_NT[0]
    before_answer[-1] = False
    before = stream.logits(trajectory.final)[0, before_answer].softmax(-1)
    for place, effect in zip(told["positions"], told["effect"][0], strict=True):
        h = trajectory.states[1].clone()
        h[0, place] = mean
        *_, final = stream.onward(trajectory, h, 1)
        after = stream.logits(final)[0, before_answer].softmax(-1)
        assert effect == pytest.approx(float((after - before).norm(dim=-1).max()), rel=1e-3)


def test_what_nobody_reads_may_be_erased(random_sequences: Callable[..., Sequences]) -> None:
    """Where attention adds nothing, erasing a position moves the answer behind no other one."""
    lm = load_model("tiny:llama:2x4x32", tokenizer=ByteTokenizer())
    model: Any = lm.model
    with torch.no_grad():
        for block in model.model.layers:
            block.self_attn.o_proj.weight.zero_()
    found = residual_erasure(ResidualStream(lm), random_sequences(lm), positions=6)
    for each in found:
        assert np.all(np.array(each["effect"])[:, :-1] < 1e-7)
        assert np.all(np.array(each["effect"])[:, -1] > 1e-5)  # it is the answer's own position


def test_how_much_fits_does_not_matter(stream: ResidualStream, sequences: Sequences) -> None:
    few, many = (residual_erasure(stream, sequences, positions_at_once=n) for n in (1, 10**6))
    for one, other in zip(few, many, strict=True):
        np.testing.assert_allclose(one["effect"], other["effect"], rtol=1e-3, atol=1e-6)
