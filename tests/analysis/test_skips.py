"""Effects of skipped layers: closed forms, and models run again without the layer."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from latentgym.analysis.residual import PARTS, ResidualStream
from latentgym.analysis.sequences import PositionKind, Sequences
from latentgym.analysis.skips import Effects, LayerSkips
from latentgym.lm import load_model
from latentgym.text.tokenizers import ByteTokenizer

KINDS: dict[str, Callable[[LayerSkips], Effects]] = {
    "block": lambda skips: skips.everywhere(),
    "attention": lambda skips: skips.everywhere("attention"),
    "mlp": lambda skips: skips.everywhere("mlp"),
    "future": lambda skips: skips.future(),
    "thoughts": lambda skips: skips.thoughts(),
    "local": lambda skips: skips.local(),
}


@pytest.fixture
def deep() -> ResidualStream:
    lm = load_model("tiny:llama:4x4x32", tokenizer=ByteTokenizer())
    with torch.no_grad():
        for p in lm.parameters():
            p.mul_(3.0)
    return ResidualStream(lm)


def silence(stream: ResidualStream, layer: int, part: str) -> None:
    """Set to zero what writes to the residual stream."""
    block: Any = stream.blocks[layer]
    with torch.no_grad():
        if part in ("block", "attention"):
            block.self_attn.o_proj.weight.zero_()
        if part in ("block", "mlp"):
            block.mlp.down_proj.weight.zero_()


@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_of_zeros_has_no_effect(
    kind: str, deep: ResidualStream, random_sequences: Callable[..., Sequences]
) -> None:
    sequences = random_sequences(deep.lm)
    silence(deep, 1, "block")
    effects = KINDS[kind](LayerSkips(deep, sequences)).as_dict()
    groups = effects["layers"]
    assert groups["all"]["positions"] > 0
    for group in groups.values():
        for later in range(2, 4):
            assert group["max"][1][later] == pytest.approx(0.0, abs=1e-5)
            assert group["max"][0][later] > 1e-4
    for group in effects["output"].values():
        assert group["max"][1] == pytest.approx(0.0, abs=1e-6)
        assert group["max"][0] > 1e-4


@pytest.mark.parametrize("part", PARTS)
def test_skipping_is_the_model_without_that_layer(
    part: Any, deep: ResidualStream, random_sequences: Callable[..., Sequences]
) -> None:
    """Weights of zero do what a skip does, where the first position is skipped as well."""
    sequences = random_sequences(deep.lm)
    x, mask = sequences.x_NTD, sequences.mask_NT
    before = deep.trajectory(x, mask)
    skipped = deep.skipped(before, 1, part, mask)
    states = list(deep.onward(before, skipped, 2))
    silence(deep, 1, part)
    after = deep.trajectory(x, mask)
    for ours, theirs in zip(states, after.states[2:], strict=True):
        torch.testing.assert_close(ours[mask], theirs[mask], rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_effects_are_as_defined(
    deep: ResidualStream, random_sequences: Callable[..., Sequences]
) -> None:
    sequences = random_sequences(deep.lm)
    mask, first = sequences.mask_NT, sequences.first_NT
    told = LayerSkips(deep, sequences).everywhere().as_dict()
    before = deep.trajectory(sequences.x_NTD, mask)
    # The block is taken out by hand, but for the first position.
    h = torch.where(first[..., None], before.states[2], before.states[1])
    after = [h]
    for layer in (2, 3):
        after.append(deep.block(before, layer, after[-1]))
    counted = mask & ~first
    for later, (x, y) in enumerate(pairwise(after), start=2):
        added = before.states[later + 1] - before.states[later]
        change = (added - (y - x)).norm(dim=-1) / added.norm(dim=-1)
        cell = told["layers"]["all"]["mean"][1][later]
        assert cell == pytest.approx(float(change[counted].mean()), rel=1e-4)
    probs = [deep.logits(x).softmax(-1) for x in (after[-1], before.final)]
    moved = (probs[0] - probs[1]).norm(dim=-1)
    assert told["output"]["all"]["max"][1] == pytest.approx(float(moved[counted].max()), rel=1e-4)
    assert told["layers"]["all"]["mean"][1][:2] == [None, None]


def test_the_last_layer_has_no_effect_on_the_future(
    deep: ResidualStream, random_sequences: Callable[..., Sequences]
) -> None:
    """Its output at a position is read by that position's head alone."""
    effects = LayerSkips(deep, random_sequences(deep.lm)).future().as_dict()
    assert all(
        group["max"][3] == pytest.approx(0.0, abs=1e-6) for group in effects["output"].values()
    )
    assert effects["output"]["all"]["max"][0] > 1e-4


def test_the_future_begins_where_nothing_is_skipped_any_more(
    deep: ResidualStream, random_sequences: Callable[..., Sequences]
) -> None:
    """As many positions as lie behind the draws, and never the prompt's first ones."""
    sequences = random_sequences(deep.lm, (10, 40))
    told = LayerSkips(deep, sequences).future(draws=4).as_dict()["layers"]
    # The short row has no future (8 is not below 10 - 4); that of the long one begins at 8, 16, ..
    assert told["all"]["positions"] == sum(40 - t for t in (8, 16, 24, 32))
    assert (
        LayerSkips(deep, sequences).future(draws=1, seed=1).as_dict()["layers"]["all"]["positions"]
    )


def test_draws_that_no_sequence_has_cost_nothing(
    deep: ResidualStream,
    random_sequences: Callable[..., Sequences],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read: list[Any] = []
    trajectory = deep.trajectory
    monkeypatch.setattr(deep, "trajectory", lambda *a: read.append(a) or trajectory(*a))
    sequences, done = random_sequences(deep.lm, (10, 40)), []
    skips = LayerSkips(deep, sequences, 1, advance=lambda: done.append(1))
    told = skips.future(draws=60).as_dict()
    assert len(read) == 4 and len(done) == 2 * 60 * 4  # what is announced is done
    assert told == skips.future(draws=4).as_dict()


def test_effects_on_the_output_may_be_left_out(
    deep: ResidualStream, random_sequences: Callable[..., Sequences]
) -> None:
    sequences = random_sequences(deep.lm)
    told = LayerSkips(deep, sequences, outputs=False).everywhere()
    assert told.output.groups == ()
    assert told.layers.as_dict() == LayerSkips(deep, sequences).everywhere().layers.as_dict()


def test_thoughts_are_skipped_where_the_answer_is_not_predicted(
    deep: ResidualStream, random_sequences: Callable[..., Sequences]
) -> None:
    sequences = random_sequences(deep.lm)
    told = LayerSkips(deep, sequences).thoughts().as_dict()
    assert told["layers"].keys() == {"all"}
    assert told["layers"]["all"]["positions"] == 9  # three answer tokens in each of three rows
    # What the last layer adds to a thought is read by nobody else.
    assert told["output"]["all"]["max"][3] == pytest.approx(0.0, abs=1e-6)
    assert told["output"]["all"]["max"][0] > 1e-4
    none = torch.where(sequences.kind_NT == PositionKind.LATENT, 1, sequences.kind_NT)
    without = Sequences(sequences.token_NT, none, sequences.x_NTD)
    assert LayerSkips(deep, without).thoughts().as_dict()["layers"]["all"]["max"][0][1] == 0.0


@pytest.mark.parametrize("kind", KINDS)
def test_rows_and_chunks_do_not_matter(
    kind: str, deep: ResidualStream, random_sequences: Callable[..., Sequences]
) -> None:
    sequences = random_sequences(deep.lm)
    whole, parts = (KINDS[kind](LayerSkips(deep, sequences, n)) for n in (10**6, 1))
    for one, other in ((whole.layers, parts.layers), (whole.output, parts.output)):
        assert one.groups == other.groups
        for group in one.groups:
            np.testing.assert_allclose(one.mean(group), other.mean(group), rtol=1e-3, atol=1e-5)
            np.testing.assert_allclose(one.max(group), other.max(group), rtol=1e-3, atol=1e-5)


def test_rows_have_their_own_tables(
    deep: ResidualStream, random_sequences: Callable[..., Sequences]
) -> None:
    sequences = random_sequences(deep.lm)
    tables = LayerSkips(deep, sequences).everywhere().per_sequence("mean")
    assert tables.shape == (3, 4, 4) and not tables[:, 0, 1:].isnan().any()
    one = LayerSkips(deep, sequences.select([1])).everywhere().layers.mean()
    np.testing.assert_allclose(tables[1], one, rtol=1e-4)
