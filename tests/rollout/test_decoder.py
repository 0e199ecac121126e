"""Rows that begin, read and begin anew in any order are what one pass over each says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from benchmarks.models import ARCHITECTURES, loaded
from latentgym.errors import UsageError
from latentgym.lm import LatentLM
from latentgym.rollout.decoder import RowDecoder

ROWS = 3
# Plain, learned positions, windows with capped scores, windows with sinks.
TESTED = ("llama", "gpt2", "gemma2", "gpt_oss")


def of(arch: str) -> LatentLM:
    lm = loaded(arch)
    assert isinstance(lm, LatentLM), lm
    return lm


def whole(lm: LatentLM, ids: list[int]) -> torch.Tensor:
    """The last hidden state of a sequence that is read in one pass."""
    with lm.decoding():
        tokens = torch.tensor([ids])
        return lm.hidden(lm.embed(tokens), torch.ones_like(tokens, dtype=torch.bool))[0, -1]


ids_of = st.lists(st.integers(0, 255), min_size=1, max_size=9)
some_rows = st.lists(st.integers(0, ROWS - 1), min_size=1, max_size=ROWS, unique=True)
moves = st.lists(
    st.tuples(
        st.sampled_from(["start", "read", "tokens", "ahead"]),
        some_rows,
        st.lists(ids_of, min_size=ROWS, max_size=ROWS),
    ),
    max_size=7,
)


@pytest.mark.parametrize("arch", TESTED)
@settings(max_examples=12)
@given(first=st.lists(ids_of, min_size=ROWS, max_size=ROWS), moves=moves)
def test_any_order_is_reading_in_one_pass(arch: str, first: list[Any], moves: list[Any]) -> None:
    lm = of(arch)
    decoder, said = RowDecoder(lm, ROWS), [list(ids) for ids in first]
    with lm.decoding():
        decoder.start(np.arange(ROWS), first, 0)
        for what, some, ids in moves:
            rows, theirs = np.array(some), [ids[row] for row in some]
            if what == "start":
                decoder.start(rows, theirs, 4)
                for row, new in zip(some, theirs, strict=True):
                    said[row] = list(new)
            elif any(len(said[row]) + 9 > 64 for row in some):
                continue
            elif what == "read":
                token_B = torch.tensor([new[0] for new in theirs])
                decoder.read(rows, lm.embed(token_B))
                for row, new in zip(some, theirs, strict=True):
                    said[row].append(new[0])
            elif what == "tokens":
                decoder.read_tokens(rows, theirs)
                for row, new in zip(some, theirs, strict=True):
                    said[row] += new
            else:  # nothing of it stays
                decoder.log_prob_of(rows, [[] for _ in some], theirs)
    for row, ids in enumerate(said):
        assert_close(decoder.hidden_ND[row], whole(lm, ids), rtol=1e-3, atol=1e-3)


@pytest.mark.thorough
def test_every_architecture_that_works() -> None:
    tried = 0
    for arch in ARCHITECTURES:
        lm = loaded(arch)
        if not isinstance(lm, LatentLM):
            continue
        decoder = RowDecoder(lm, 2)
        with lm.decoding():
            decoder.start(np.arange(2), [[1, 2, 3, 4, 5, 6, 7, 8, 9, 10], [7, 8]], 20)
            decoder.read_tokens(np.array([1, 0]), [[4, 5, 6], [9]])
            decoder.start(np.array([0]), [[3]], 20)
            decoder.read(np.arange(2), lm.embed(torch.tensor([11, 12])))
        assert_close(decoder.hidden_ND[0], whole(lm, [3, 11]), rtol=1e-3, atol=1e-3, msg=arch)
        assert_close(
            decoder.hidden_ND[1], whole(lm, [7, 8, 4, 5, 6, 12]), rtol=1e-3, atol=1e-3, msg=arch
        )
        tried += 1
    assert tried > 40


@pytest.mark.parametrize("before", [[], [9, 8, 7]])
def test_how_likely_tokens_would_be(before: list[int]) -> None:
    lm, prompt, ids = of("llama"), [1, 2, 3], [40, 41]
    decoder = RowDecoder(lm, 2)
    with lm.decoding():
        decoder.start(np.arange(2), [prompt, prompt[:1]], 0)
        kept = decoder.hidden_ND.clone()
        found_B = decoder.log_prob_of(np.array([0]), [before], [ids])
        tokens = torch.tensor([[*prompt, *before, *ids]])
        hidden = lm.hidden(lm.embed(tokens), torch.ones_like(tokens, dtype=torch.bool))
        logp_TV = lm.logits(hidden[0]).log_softmax(-1)
    at = len(prompt) + len(before) - 1
    expected = (logp_TV[at, 40] + logp_TV[at + 1, 41]) / 2
    assert_close(found_B[0], expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(decoder.hidden_ND, kept)


def test_prompts_that_rows_share_are_read_once() -> None:
    lm, read = of("llama"), []
    decoder = RowDecoder(lm, 5)
    hook = lm.backbone.register_forward_pre_hook(
        lambda module, args, kwargs: read.append(kwargs["inputs_embeds"].shape[:2]),
        with_kwargs=True,
    )
    with lm.decoding():
        decoder.start(np.arange(5), [[1, 2], [3, 4, 5], [1, 2], [1, 2], [3, 4, 5]], 0)
    hook.remove()
    assert [tuple(shape) for shape in read] == [(2, 3)]


def test_more_prompts_than_one_pass_may_have(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = of("llama")
    monkeypatch.setattr("latentgym.rollout.decoder._MOST_POSITIONS", 6)
    decoder, prompts = RowDecoder(lm, 4), [[1, 2], [3, 4, 5], [1, 2], [6, 7, 8, 9, 10, 11, 12]]
    with lm.decoding():
        decoder.start(np.arange(4), prompts, 0)
    for row, ids in enumerate(prompts):
        assert_close(decoder.hidden_ND[row], whole(lm, ids), rtol=1e-3, atol=1e-3)


def test_more_positions_than_the_model_has() -> None:
    lm = of("llama")
    decoder = RowDecoder(lm, 1)
    with lm.decoding(), pytest.raises(UsageError, match=r"may take 66 positions, but .* has 64"):
        decoder.start(np.arange(1), [[1, 2, 3, 4, 5, 6]], 60)
    with lm.decoding():
        decoder.start(np.arange(1), [[1, 2, 3, 4]], 60)
        with pytest.raises(UsageError, match="lower the environment's budgets"):
            decoder.read_tokens(np.arange(1), [[1] * 61])
