"""The logit lens is the model behind the last block, and a distribution like any other before."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from latentgym.analysis import lens as module
from latentgym.analysis.lens import (
    KL_FINAL_LENS,
    KL_LENS_FINAL,
    OVERLAP,
    compared,
    decode_latents,
    logit_lens,
)
from latentgym.analysis.pooling import ALL, WITH_FIRST
from latentgym.analysis.residual import ResidualStream
from latentgym.analysis.sequences import PositionKind, Sequences
from latentgym.errors import UsageError
from latentgym.lm import LatentLM

NAMES = (KL_FINAL_LENS, KL_LENS_FINAL, OVERLAP)


def test_behind_the_last_block_the_lens_is_the_model(
    stream: ResidualStream, sequences: Sequences
) -> None:
    told = logit_lens(stream, sequences)
    assert told["layers"] == [0, 1, 2]
    groups = {ALL, WITH_FIRST, "prompt", "latent", "answer"}
    for name, last in zip(NAMES, (0.0, 0.0, 1.0), strict=True):
        assert told[name].keys() == groups
        for group in groups:
            assert told[name][group]["mean"][-1] == pytest.approx(last, abs=1e-9)
    first = told[KL_LENS_FINAL][ALL]["mean"]
    assert first[0] > 0.01 and first[0] != pytest.approx(told[KL_FINAL_LENS][ALL]["mean"][0])
    assert told[OVERLAP][WITH_FIRST]["positions"] == int(sequences.mask_NT.sum())
    json.dumps(told, allow_nan=False)


@given(st.integers(0, 2**31), st.sampled_from([2, 5, 30]), st.floats(0.0, 50.0))
def test_divergence_is_not_negative(seed: int, vocabulary: int, scale: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    final, other = scale * torch.randn(2, 4, vocabulary, generator=generator)
    found = compared(final.log_softmax(-1), other.log_softmax(-1))
    reversed_ = compared(other.log_softmax(-1), final.log_softmax(-1))
    assert all(bool((value >= 0).all()) for value in found.values())
    assert bool((found[OVERLAP] <= 1).all())
    expected = torch.nn.functional.kl_div(
        other.log_softmax(-1), final.log_softmax(-1), log_target=True, reduction="none"
    ).sum(-1)
    torch.testing.assert_close(found[KL_FINAL_LENS], expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found[KL_LENS_FINAL], reversed_[KL_FINAL_LENS])


@pytest.mark.parametrize("arch", ["llama", "gpt2", "qwen2"])
def test_the_lens_reads_the_hidden_states_that_transformers_tells(
    arch: str, random_lm: Callable[..., LatentLM], random_sequences: Callable[..., Sequences]
) -> None:
    """One position alone, computed by the model's own modules."""
    # A copy: transformers leaves hooks in a model that has told its hidden states.
    lm: Any = copy.deepcopy(random_lm(arch))
    stream = ResidualStream(lm)
    row = random_sequences(lm, (12,)).select([0])
    states = lm.model(inputs_embeds=row.x_NTD, output_hidden_states=True).hidden_states
    norm = lm.backbone.ln_f if arch == "gpt2" else lm.backbone.norm
    final = lm.model.lm_head(states[-1]).log_softmax(-1)  # behind the norm already
    expected = torch.zeros(len(stream))
    for layer, state in enumerate(states[:-1]):
        logp = lm.model.lm_head(norm(state)).log_softmax(-1)
        expected[layer] = (logp.exp() * (logp - final)).sum(-1)[0, 1:].mean()
    told = logit_lens(stream, row)[KL_LENS_FINAL][ALL]["mean"]
    torch.testing.assert_close(torch.tensor(told[:-1]), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("at_once", [1, 40, 10_000])
def test_chunks_change_nothing(
    at_once: int, stream: ResidualStream, sequences: Sequences, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = logit_lens(stream, sequences)
    monkeypatch.setattr(LatentLM, "logits_at_once", 3)
    parts = logit_lens(stream, sequences, positions_at_once=at_once)
    for name in NAMES:
        for group, told in parts[name].items():
            assert told["mean"] == pytest.approx(whole[name][group]["mean"], rel=1e-4, abs=1e-6)
            assert told["positions"] == whole[name][group]["positions"]


def test_chosen_layers_are_some_of_all(stream: ResidualStream, sequences: Sequences) -> None:
    whole, some = logit_lens(stream, sequences), logit_lens(stream, sequences, layers=[2, 1])
    assert some["layers"] == [1, 2]
    assert some[OVERLAP][ALL]["mean"] == whole[OVERLAP][ALL]["mean"][1:]
    for layers in ([3], [-1], []):
        with pytest.raises(UsageError, match=r"the layers 0 to 2"):
            logit_lens(stream, sequences, layers=layers)


def test_scalars_are_of_the_inputs_of_blocks() -> None:
    """The first below half of the largest KL, and above .3; the check behind L is no layer."""
    means = {
        KL_FINAL_LENS: torch.tensor([4.0, 2.0, 1.9, 0.5, 0.0]),
        KL_LENS_FINAL: torch.tensor([1.0, 0.9, 0.8, 0.7, 0.0]),
        OVERLAP: torch.tensor([0.1, 0.3, 0.31, 0.2, 1.0]),
    }
    told = module._scalars([0, 1, 2, 3, 4], 4, means)
    assert told["first_kl_below_half"][KL_FINAL_LENS] == {"l": 2, "depth": 0.75}
    assert told["first_kl_below_half"][KL_LENS_FINAL] == {"l": None, "depth": None}
    assert told["first_overlap_above"] == {"l": 2, "depth": 0.75}


@pytest.mark.parametrize("at_once", [1, 10_000])
def test_thoughts_are_decoded_where_they_stand(
    at_once: int, stream: ResidualStream, sequences: Sequences
) -> None:
    lm = stream.lm
    thought = sequences.kind_NT == PositionKind.LATENT
    row, column = thought.nonzero()[7].tolist()
    x = sequences.x_NTD.clone()
    x[row, column] = 0.3 * lm.embed(torch.tensor(99))
    sequences = sequences.with_inputs(x)
    rows = decode_latents(stream, sequences, lm.tokenizer, top=3, positions_at_once=at_once)
    assert len(rows) == int(thought.sum()) == 18
    assert [r["step"] for r in rows] == [*range(6)] * 3
    assert [r["row"] for r in rows] == [0] * 6 + [1] * 6 + [2] * 6
    told = rows[7]
    assert told["kind"] == "latent" and told["row"] == row
    first = int(sequences.mask_NT[row].nonzero().min())
    assert told["position"] == column - first
    assert told["nearest"][0] == {"id": 99, "text": "c", "cosine": pytest.approx(1.0)}
    assert told["lens"].keys() == {"0", "1", "2"}
    # Its last lens is what the model predicts behind it.
    hidden = lm.hidden(x, sequences.mask_NT)[row, column]
    weight, ids = lm.logits(hidden).softmax(-1).topk(3)
    assert [t["id"] for t in told["lens"]["2"]] == ids.tolist()
    found = [t["probability"] for t in told["lens"]["2"]]
    assert found == pytest.approx(weight.tolist(), rel=1e-4)
    json.dumps(rows, allow_nan=False)
