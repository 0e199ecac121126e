"""Linear maps between layers: the closed form is the optimum, and judges itself on other rows."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

from latentgym.analysis import maps as module
from latentgym.analysis.maps import Reader, linear_maps
from latentgym.analysis.residual import ResidualStream
from latentgym.analysis.sequences import Sequences
from latentgym.envs.symbols import SymbolTokenizer
from latentgym.errors import UsageError
from latentgym.lm import LatentLM, load_model
from latentgym.text.tokenizers import ByteTokenizer


@pytest.fixture
def reader(random_sequences: Callable[..., Sequences]) -> Callable[..., Reader]:
    """`reader(lm)`: the same tokens as any other model reads."""

    def make(lm: LatentLM, **more: Any) -> Reader:
        fit, held_out = (random_sequences(lm, (30, 24, 27, 30), seed) for seed in (0, 1))
        return Reader(ResidualStream(lm), fit, held_out, **more)

    return make


def test_a_model_is_a_linear_image_of_itself(
    random_lm: Callable[..., LatentLM], reader: Callable[..., Reader]
) -> None:
    same = reader(random_lm("llama"))
    told = linear_maps(same, same)
    for layer in range(3):
        assert told["error"][layer][layer] < 1e-4
        assert told["relative_error"][layer][layer] < 1e-4
    assert min(told["error"][0][1], told["error"][2][0]) > 0.01
    assert told["best_source"] == [0, 1, 2]
    assert told["band"]["inside"] < 1e-4 < told["band"]["outside"]
    assert told["band"]["ratio"] == pytest.approx(told["band"]["inside"] / told["band"]["outside"])
    assert told["positions"] == {"fit": 107, "held_out": 107}  # the first of each row is left out
    json.dumps(told, allow_nan=False)


@pytest.mark.parametrize("bias", [0.0, 3.0])
def test_a_known_map_is_found(bias: float) -> None:
    """Of random states; and with noise, the error that is left is the noise."""
    generator = torch.Generator().manual_seed(0)

    def randn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.double)

    w, offset = randn(5, 4), bias * randn(4)

    def states(noise: float, parts: int = 3) -> Iterator[module.Layers]:
        for _ in range(parts):
            x = randn(400, 5)
            y = x @ w + offset + noise * randn(400, 4)
            yield [torch.cat([x, torch.ones_like(x[:, :1])], dim=1)], [y]

    moments = module._Moments.of(states(0.0), 1, 1)
    [[found]] = moments.solved(1e-12)
    torch.testing.assert_close(found, torch.cat([w, offset[None]]), rtol=1e-6, atol=1e-6)
    error, relative, positions = module._judged([[found]], states(0.0))
    assert float(error) < 1e-6 and float(relative) < 1e-6 and positions == 1200
    noisy = list(states(2.0))
    [[found]] = module._Moments.of(iter(noisy), 1, 1).solved(1e-12)
    error, relative, _ = module._judged([[found]], states(2.0))
    size = (w.square().sum(0) + 4.0).sum()  # of Y around its mean
    assert float(error) == pytest.approx(float((16.0 / size).sqrt()), rel=0.05)
    assert float(relative) == pytest.approx(
        float((16.0 / (size + offset.square().sum())).sqrt()), rel=0.05
    )
    # The closed form is the optimum: no step from it makes the squared error less.
    x, y = (torch.cat([part[i][0] for part in noisy]) for i in (0, 1))
    least = (x @ found - y).square().sum()
    for _ in range(5):
        assert (x @ (found + 1e-2 * randn(6, 4)) - y).square().sum() > least


def test_maps_are_from_one_model_to_another(
    random_lm: Callable[..., LatentLM], reader: Callable[..., Reader]
) -> None:
    torch.manual_seed(0)
    deep = load_model("tiny:gpt2:4x4x24", tokenizer=ByteTokenizer())
    source, target = reader(random_lm("llama")), reader(deep)
    told = linear_maps(source, target)
    assert (len(told["error"]), len(told["error"][0])) == (3, 5)
    chosen = linear_maps(replace(source, layers=[1]), replace(target, layers=[4, 2]))
    assert (chosen["source_layers"], chosen["target_layers"]) == ([1], [2, 4])
    assert chosen["error"] == [pytest.approx([told["error"][1][t] for t in (2, 4)], rel=1e-5)]
    # Equal depth: 0 and 0, 1 and 2, 2 and 4; the other pairs are half a layer apart or more.
    inside = [told["error"][s][2 * s] for s in range(3)]
    assert told["band"]["inside"] == pytest.approx(sum(inside) / 3)
    alone = linear_maps(replace(source, layers=[1]), replace(target, layers=[2]))
    assert alone["band"]["outside"] is None and alone["band"]["ratio"] is None


def test_chunks_change_nothing(
    random_lm: Callable[..., LatentLM], reader: Callable[..., Reader]
) -> None:
    same = reader(random_lm("llama"))
    whole, parts = linear_maps(same, same), linear_maps(same, same, positions_at_once=1)
    assert parts["positions"] == whole["positions"]
    for a, b in zip(parts["error"], whole["error"], strict=True):
        assert a == pytest.approx(b, rel=1e-3, abs=1e-4)


def test_what_cannot_be_mapped_is_refused(
    random_lm: Callable[..., LatentLM],
    reader: Callable[..., Reader],
    random_sequences: Callable[..., Sequences],
) -> None:
    lm = random_lm("llama")
    source = reader(lm)
    other = load_model("tiny", tokenizer=SymbolTokenizer(["<pad>", "<bos>", "<eos>", "a"]))
    with pytest.raises(UsageError, match=r"different tokenizers, .*; choose two models with one"):
        linear_maps(source, Reader(ResidualStream(other), source.fit, source.fit))
    with pytest.raises(UsageError, match="different tokens in the sequences to judge"):
        linear_maps(source, replace(source, held_out=source.fit))
    few = random_sequences(lm, (12,))
    with pytest.raises(UsageError, match="11 positions do not determine a map from a width of 32"):
        linear_maps(*[replace(source, fit=few)] * 2)
