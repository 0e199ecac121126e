"""Outlier metrics of the residual stream: closed forms, and what they do not depend on."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from latentgym.analysis.outliers import DEFINITIONS, Outliers, outliers
from latentgym.analysis.pooling import groups
from latentgym.analysis.residual import ResidualStream
from latentgym.analysis.sequences import PositionKind, Sequences
from latentgym.lm import LatentLM
from latentgym.lm.outliers import kurtosis, max_over_median, pearson_kurtosis

SEEDS = st.integers(0, 2**31)


def told(x_NTD: Tensor, mask_NT: Tensor | None = None) -> dict[str, Any]:
    """The metrics of one state, all positions in one group."""
    found = Outliers(1, x_NTD.shape[-1])
    every = torch.ones(x_NTD.shape[:2], dtype=torch.bool) if mask_NT is None else mask_NT
    found.add(0, x_NTD, {"all": every})
    group: dict[str, Any] = found.as_dict()["groups"]["all"]
    return group


def numbers(tree: Any) -> list[float | None]:
    """All numbers of nested lists and dictionaries, in order."""
    if isinstance(tree, dict):
        return [x for key in sorted(tree) for x in numbers(tree[key])]
    return [x for each in tree for x in numbers(each)] if isinstance(tree, list) else [tree]


@given(SEEDS, st.integers(1, 4), st.integers(2, 6))
def test_tokens_that_are_orthogonal_or_alike(seed: int, rows: int, tokens: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(8, 8, generator=generator))[0][:tokens]
    sizes = 10 * torch.rand(rows, tokens, 1, generator=generator) + 0.1
    apart = told(sizes * basis)
    assert apart["signal_mean"][0] == pytest.approx(0, abs=1e-6)
    assert apart["signal_rms"][0] == pytest.approx(0, abs=1e-6)
    alike = told(sizes * basis[:1])
    assert alike["signal_mean"][0] == pytest.approx(1) == alike["signal_rms"][0]
    opposite = told(torch.stack([basis[0], -basis[0]])[None])
    assert opposite["signal_mean"][0] == pytest.approx(-1)
    assert opposite["signal_rms"][0] == pytest.approx(1)


@given(SEEDS, st.integers(2, 9), st.integers(2, 7))
def test_feature_correlation_is_that_of_the_feature_gram(seed: int, n: int, width: int) -> None:
    x = torch.randn(1, n, width, generator=torch.Generator().manual_seed(seed)).double()
    y = x[0] / x[0].square().mean(0).sqrt()
    gram = y.T @ y / n
    off = gram[~torch.eye(width, dtype=torch.bool)]
    expected = float(off.square().mean().sqrt())
    assert told(x)["feature_correlation_rms"][0] == pytest.approx(expected, rel=1e-6, abs=1e-6)


@given(SEEDS, st.integers(-60, 60))
def test_scale_and_the_order_of_neurons_change_sizes_alone(seed: int, power: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x, order = torch.randn(3, 5, 8, generator=generator), torch.randperm(8, generator=generator)
    sizes = {"norm", "median", "top", "feature"}
    plain = {k: v for k, v in told(x).items() if k not in sizes}
    other = torch.ldexp(x[..., order], torch.tensor(power))
    changed = {k: v for k, v in told(other).items() if k not in sizes}
    assert numbers(changed) == pytest.approx(numbers(plain), rel=1e-6)


def test_massive_activations_are_named() -> None:
    x = torch.ones(2, 6, 8)
    x[0, 2, 5], x[1, 1, 5], x[0, 3, 7] = 900.0, -1000.0, 800.0
    found = told(x)
    assert found["top"] == [[1000.0, 900.0, 800.0]] and found["feature"] == [[5, 5, 7]]
    assert found["median"] == [1.0] and found["top_over_median"] == [[1000.0, 900.0, 800.0]]
    assert found["max_median_ratio"]["max"] == [1000.0]
    few = told(torch.ones(1, 1, 2))
    assert few["top"] == [[1.0, 1.0, 0.0]] and few["signal_mean"] == [None]


def test_groups_that_are_nowhere_are_not_told_and_single_positions_have_no_pairs() -> None:
    mask = torch.tensor([[True, False, False], [True, True, False]])
    x = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    found = told(x, mask)
    assert found["positions"] == 3 and found["sequences"] == 1
    cosine = torch.nn.functional.cosine_similarity(x[1, 0], x[1, 1], dim=0)
    assert found["signal_mean"][0] == pytest.approx(float(cosine), rel=1e-5)


@pytest.fixture(scope="module")
def sequences(random_lm: Callable[..., LatentLM]) -> tuple[ResidualStream, Sequences]:
    """Rows of unequal length with thoughts that are no tokens, padded on both sides."""
    lm = random_lm("llama")
    generator = torch.Generator().manual_seed(0)
    kind_NT = torch.zeros(5, 14, dtype=torch.long)
    for row, (start, prompt, thoughts, answer) in enumerate(
        [(0, 5, 3, 4), (3, 2, 3, 5), (2, 4, 0, 1), (4, 3, 6, 1), (1, 6, 2, 2)]
    ):
        kinds = [PositionKind.PROMPT] * prompt + [PositionKind.LATENT] * thoughts
        kinds += [PositionKind.ANSWER] * answer
        kind_NT[row, start : start + len(kinds)] = torch.tensor(kinds)
    token_NT = torch.randint(lm.vocab_size, kind_NT.shape, generator=generator)
    latents = 0.05 * torch.randn(5, 14, lm.hidden_size, generator=generator)
    with torch.no_grad():
        is_latent = (kind_NT == PositionKind.LATENT)[..., None]
        x_NTD = torch.where(is_latent, latents, lm.embed(token_NT))
    return ResidualStream(lm), Sequences(token_NT, kind_NT, x_NTD)


def test_they_are_the_metrics_of_the_models_own_states(sequences: Any) -> None:
    stream, rows = sequences
    found = outliers(stream, rows)
    states = stream.trajectory(rows.x_NTD, rows.mask_NT).states
    assert found["layers"] == ["h_0", "h_1", "h_2"]
    for name, where_NT in groups(rows).items():
        if not where_NT.any():
            assert name not in found["groups"]
            continue
        group = found["groups"][name]
        assert group["positions"] == int(where_NT.sum())
        for layer, h in enumerate(states):
            x_MD = h[where_NT]
            assert group["kurtosis"][layer] == pytest.approx(float(kurtosis(x_MD)), rel=1e-5)
            pearson = pearson_kurtosis(x_MD)
            assert group["pearson_kurtosis"]["mean"][layer] == pytest.approx(float(pearson.mean()))
            assert group["excess_kurtosis"]["max"][layer] == pytest.approx(float(pearson.max() - 3))
            ratio = float(max_over_median(x_MD, midpoint=True).mean())
            assert group["max_median_ratio"]["mean"][layer] == pytest.approx(ratio)
            assert group["top"][layer][0] == pytest.approx(float(x_MD.abs().max()))
            norm = float(x_MD.norm(dim=-1).mean())
            assert group["norm"]["mean"][layer] == pytest.approx(norm, rel=1e-5)


@pytest.mark.parametrize("at_once", [1, 30, 10_000])
def test_chunks_and_padding_do_not_matter(sequences: Any, at_once: int) -> None:
    stream, rows = sequences
    expected = outliers(stream, rows)["groups"]
    found = outliers(stream, rows, positions_at_once=at_once)["groups"]
    pad = torch.zeros(5, 3, dtype=torch.long)
    junk = torch.full((5, 3, rows.x_NTD.shape[-1]), 50.0)
    padded = Sequences(
        torch.cat([pad, rows.token_NT, pad], 1),
        torch.cat([pad, rows.kind_NT, pad], 1),
        torch.cat([junk, rows.x_NTD, junk], 1),
    )
    wider = outliers(stream, padded, positions_at_once=at_once)["groups"]
    for other in (found, wider):
        assert other.keys() == expected.keys()
        assert numbers(other) == pytest.approx(numbers(expected), rel=1e-4, abs=1e-6)


def test_each_number_has_its_definition_and_json_takes_all(sequences: Any) -> None:
    found = outliers(*sequences)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["definitions"] == dict(DEFINITIONS)
    for group in found["groups"].values():
        assert group.keys() - {"feature"} <= DEFINITIONS.keys()
