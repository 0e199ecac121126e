"""The parts of the residual stream are those of transformers, in every architecture."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from latentgym.analysis.residual import PARTS, ResidualStream
from latentgym.analysis.sequences import Sequences
from latentgym.errors import UsageError
from latentgym.lm import LatentLM, load_model
from latentgym.text.tokenizers import ByteTokenizer

RandomSequences = Callable[..., Sequences]
SIZES: dict[str, Any] = {
    "vocab_size": 260,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "bos_token_id": None,
    "ffn_dim": 64,  # of OPT
    "word_embed_proj_dim": 32,
}
# Plain, with norms behind attention and MLP, with scaled residuals, with biases, with experts, with
# an MLP that is no module.
PRE_NORM = "qwen3 gemma gemma2 olmo2 granite phi3 starcoder2 mixtral opt".split()


def of_kind(kind: str, **more: Any) -> LatentLM:
    config = AutoConfig.for_model(kind, **SIZES, **more)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
    return LatentLM(model, ByteTokenizer(), kind).eval()


def models() -> list[Any]:
    tiny = [
        pytest.param(lambda a=a: load_model(f"tiny:{a}:3x4x32", tokenizer=ByteTokenizer()), id=a)
        for a in ("gpt2", "llama", "qwen2")
    ]
    return [*tiny, *(pytest.param(lambda k=k: of_kind(k), id=k) for k in PRE_NORM)]


@pytest.mark.parametrize("make", models())
def test_what_blocks_add_is_the_residual_stream(
    make: Callable[[], LatentLM], random_sequences: RandomSequences
) -> None:
    lm = make()
    stream, sequences = ResidualStream(lm), random_sequences(lm)
    x, mask = sequences.x_NTD, sequences.mask_NT
    trajectory = stream.trajectory(x, mask)
    # h_0 + the sum of all a and m is h_L, and its norm is the model's last hidden state.
    total = trajectory.resid_pre[0] + sum(trajectory.attn_out) + sum(trajectory.mlp_out)
    close(total, trajectory.final, mask)
    close(stream.normed(trajectory.final), lm.hidden(x, mask), mask)
    # Ours are the states that transformers tells; the last of those is behind the norm.
    position_ids = (mask.cumsum(1) - 1).clamp(min=0)
    told = lm.model(
        inputs_embeds=x,
        attention_mask=mask.long(),
        position_ids=position_ids,
        output_hidden_states=True,
    ).hidden_states
    for ours, theirs in zip(trajectory.resid_pre, told[:-1], strict=True):
        close(ours, theirs, mask)
    # Going on from any layer is the model.
    for layer in range(len(stream) + 1):
        *_, last = stream.onward(trajectory, trajectory.states[layer], layer)
        close(last, trajectory.final, mask)


@pytest.mark.parametrize("make", models())
@pytest.mark.parametrize("part", PARTS)
def test_a_skipped_part_adds_nothing(
    make: Callable[[], LatentLM], part: Any, random_sequences: RandomSequences
) -> None:
    """Skipped everywhere it is the model without that part; nowhere, the model."""
    lm = make()
    stream, sequences = ResidualStream(lm), random_sequences(lm)
    mask = sequences.mask_NT
    trajectory = stream.trajectory(sequences.x_NTD, mask)
    h, after = trajectory.states[1:3]
    nowhere = stream.skipped(trajectory, 1, part, torch.zeros_like(mask))
    close(nowhere, after, mask)
    without = stream.skipped(trajectory, 1, part, mask)
    if part == "block":
        close(without, h, mask)
    elif part == "mlp":
        close(without, h + trajectory.attn_out[1], mask)
    else:  # what the MLP alone makes of h
        assert not torch.allclose((without - h)[mask], trajectory.mlp_out[1][mask], atol=1e-6)
    where = mask & (torch.arange(mask.shape[1]) < 12)
    early = stream.skipped(trajectory, 1, part, where)
    close(early, without, where)  # positions know nothing of those behind them
    if part != "attention":
        close(early, after, mask & ~where)


def close(x: torch.Tensor, y: torch.Tensor, mask: torch.Tensor) -> None:
    torch.testing.assert_close(x[mask], y[mask], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("phi", {}),
        ("cohere", {}),
        ("gpt_neox", {}),
        ("opt", {"do_layer_norm_before": False}),
    ],
    ids=["phi", "cohere", "gpt_neox", "post-norm opt"],
)
def test_parallel_and_post_norm_blocks_are_refused(kind: str, more: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"cannot be taken apart: .*; choose a pre-norm model"):
        ResidualStream(of_kind(kind, **more))


@pytest.mark.parametrize("weight", [float("nan"), float("inf"), 1e38])
def test_what_is_no_number_is_refused(weight: float) -> None:
    lm = load_model("tiny:llama:3x4x32", tokenizer=ByteTokenizer())
    with torch.no_grad():
        next(iter(lm.backbone.layers[1].mlp.parameters())).fill_(weight)
    with pytest.raises(UsageError, match="no number"):
        ResidualStream(lm)


def test_other_precisions_are_refused() -> None:
    lm = load_model("tiny", tokenizer=ByteTokenizer(), dtype="bfloat16")
    with pytest.raises(UsageError, match="float32"):
        ResidualStream(lm)


def test_no_hook_is_left(stream: ResidualStream, sequences: Sequences) -> None:
    trajectory = stream.trajectory(sequences.x_NTD, sequences.mask_NT)
    stream.skipped(trajectory, 0, "attention", sequences.mask_NT)
    modules = list(stream.lm.modules())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in modules)
