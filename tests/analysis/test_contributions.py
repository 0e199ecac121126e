"""Norms, relative contributions and cosines, against the plainest computation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from latentgym.analysis.contributions import layer_contributions, turning_layer
from latentgym.analysis.residual import ResidualStream
from latentgym.analysis.sequences import PositionKind, Sequences
from latentgym.lm import LatentLM


def test_they_are_means_over_positions(stream: ResidualStream, sequences: Sequences) -> None:
    told = layer_contributions(stream, sequences)
    trajectory = stream.trajectory(sequences.x_NTD, sequences.mask_NT)
    latent = sequences.kind_NT == PositionKind.LATENT
    for layer in range(len(stream)):
        h, a, m = (
            part[layer][latent]
            for part in (trajectory.resid_pre, trajectory.attn_out, trajectory.mlp_out)
        )
        cosine = ((a + m) * h).sum(-1) / ((a + m).norm(dim=-1) * h.norm(dim=-1))
        expected = {
            "norm_h": h.norm(dim=-1),
            "relative_attention": a.norm(dim=-1) / h.norm(dim=-1),
            "relative_mlp": m.norm(dim=-1) / (h + a).norm(dim=-1),
            "relative_block": (a + m).norm(dim=-1) / h.norm(dim=-1),
            "cosine_block": cosine,
        }
        for name, values in expected.items():
            group = told[name]["latent"]
            assert group["mean"][layer] == pytest.approx(float(values.mean()), rel=1e-4)
            assert group["max"][layer] == pytest.approx(float(values.max()), rel=1e-4)
            assert group["positions"] == int(latent.sum())


def test_rows_padding_and_chunks_do_not_matter(
    random_lm: Callable[..., LatentLM], random_sequences: Callable[..., Sequences]
) -> None:
    lm = random_lm("gpt2")
    stream, sequences = ResidualStream(lm), random_sequences(lm)
    whole = layer_contributions(stream, sequences)
    chunked = layer_contributions(stream, sequences, positions_at_once=1)
    alike(whole, chunked)


def alike(one: Any, other: Any) -> None:
    """Nested dicts and lists of numbers."""
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            alike(one[key], other[key])
    elif isinstance(one, list):
        assert len(one) == len(other)
        for pair in zip(one, other, strict=True):
            alike(*pair)
    else:
        assert one == pytest.approx(other, rel=1e-3, abs=1e-5)


def test_the_first_position_is_in_one_group_alone(
    stream: ResidualStream, sequences: Sequences
) -> None:
    """A sink there moves no other number."""
    before = layer_contributions(stream, sequences)["norm_h"]
    first = sequences.first_NT[..., None]
    after = layer_contributions(
        stream, sequences.with_inputs(torch.where(first, 100.0, sequences.x_NTD))
    )["norm_h"]
    for group in before:
        # What stands behind attends to it, so only the input of the first layer is unmoved.
        same = before[group]["mean"][0] == pytest.approx(after[group]["mean"][0], rel=1e-6)
        assert same == (group != "with_first")


@pytest.mark.parametrize(
    ("cosines", "turn"),
    [
        ([-1.0, -0.5, 0.2, 0.3], 2),
        ([-1.0, 0.1, -0.1, 0.0], 3),
        ([0.5, 0.1, 0.2], None),
        ([0.5, -0.1], None),
        ([-0.5, None, 0.1], None),
        ([], None),
    ],
)
def test_the_turning_layer_is_the_last(cosines: list[float | None], turn: int | None) -> None:
    assert turning_layer(cosines) == turn
