"""Every architecture on the list is exact, or refused in a sentence."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.testing import assert_close

from benchmarks.models import ARCHITECTURES, build, loaded
from latentgym.errors import UsageError
from latentgym.lm import LatentLM
from latentgym.lm.model import left_pad

PROMPTS = [list(range(5, 19)), [40, 41, 42]]  # one exceeds the windows of 8
GROUP, STEPS = 2, 9  # and what stands behind the other does


def written_out(model: Any, x_1TD: torch.Tensor) -> torch.Tensor:
    """The last logits of one row by transformers alone, with its attention written out."""
    ours, model.config._attn_implementation = model.config._attn_implementation, "eager"
    try:
        mask = torch.ones(1, x_1TD.shape[1], dtype=torch.long)
        return model(inputs_embeds=x_1TD, attention_mask=mask, use_cache=False).logits[0, -1]
    finally:
        model.config._attn_implementation = ours


@pytest.mark.parametrize("name", ARCHITECTURES)
@torch.no_grad()
def test_decoding_latents_is_the_models_own_forward_pass(name: str) -> None:
    lm = loaded(name)
    if isinstance(lm, UsageError):
        assert str(lm).endswith(".") and "\n" not in str(lm) and "; choose" in str(lm)
        return
    ids = torch.tensor(PROMPTS[0])
    assert_close(lm.embed(ids), lm.model.get_input_embeddings()(ids), rtol=0, atol=0)
    assert_close(lm.table_VD[ids], lm.embed(ids), rtol=0, atol=0)
    generator = torch.Generator().manual_seed(0)
    latents = lm.table_VD.std() * torch.randn(4, STEPS, lm.hidden_size, generator=generator)
    cache = lm.prefill(*left_pad(PROMPTS, 256, torch.device("cpu")), GROUP).cache
    first = torch.tensor([len(p) for p in PROMPTS]).repeat_interleave(GROUP)[:, None]
    for start, stop in ((0, 1), (1, 5), (5, STEPS)):
        position = first + torch.arange(start, stop)
        hidden = lm.extend(latents[:, start:stop], position, cache)
    for row, logits in enumerate(lm.logits(hidden[:, -1])):
        prompt = lm.embed(torch.tensor(PROMPTS[row // GROUP]))
        expected = written_out(lm.model, torch.cat([prompt, latents[row]])[None])
        assert_close(logits, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def test_the_list_is_long_and_has_what_is_promised() -> None:
    exact = {name for name in ARCHITECTURES if isinstance(loaded(name), LatentLM)}
    assert len(exact) >= 40
    assert exact >= {"gemma", "gemma2", "gemma3_text", "granite", "cohere", "gpt_oss", "nemotron"}
    assert not exact & {"bert", "roberta", "diffllama", "gemma3n_text", "mamba"}


@pytest.mark.parametrize(
    ("name", "option", "plain"),
    [
        ("gemma2", "attn_logit_softcapping", None),
        ("gemma2", "final_logit_softcapping", None),
        ("gemma2", "query_pre_attn_scalar", 8),
        ("gemma3_text", "sliding_window", 64),
        ("granite", "embedding_multiplier", 1.0),
        ("granite", "logits_scaling", 1.0),
        ("cohere", "logit_scale", 1.0),
        ("mistral", "sliding_window", None),
    ],
)
@torch.no_grad()
def test_what_is_special_shows(
    name: str, option: str, plain: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or the tests above would show nothing."""
    special = build(name)
    monkeypatch.setitem(ARCHITECTURES, name, {**ARCHITECTURES[name], option: plain})
    ids = torch.arange(5, 25)[None]
    one, other = (written_out(m, m.get_input_embeddings()(ids)) for m in (special, build(name)))
    assert (one - other).norm() > 1e-2 * one.norm()
