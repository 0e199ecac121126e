"""The benchmark of outlier features: its rounding, and that a cell of it runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from benchmarks.outliers import blocks
from benchmarks.outliers.rounding import rounded, rounding
from latentgym.analysis.residual import ResidualStream


@given(st.integers(0, 2**31), st.integers(2, 12), st.floats(1e-20, 1e20))
def test_rounded_numbers_are_whole_multiples(seed: int, bits: int, scale: float) -> None:
    x = scale * torch.randn(4, 5, generator=torch.Generator().manual_seed(seed))
    found, most = rounded(x, bits), 2 ** (bits - 1) - 1
    steps = found / (x.abs().max() / most)
    assert_close(steps, steps.round(), rtol=0, atol=1e-3)
    assert float(steps.abs().max()) == pytest.approx(most)
    assert float((found - x).abs().max() / x.abs().max()) <= 0.5 / most + 1e-6
    assert torch.equal(rounded(torch.zeros(3), bits), torch.zeros(3))


@torch.no_grad()
def test_rounding_changes_weights_and_inputs_and_leaves_the_model_as_it_was(random_lm: Any) -> None:
    lm = random_lm("op")
    ids = torch.arange(5, 15)[None]
    before = {name: weight.clone() for name, weight in lm.state_dict().items()}

    def logits() -> torch.Tensor:
        return lm.logits(lm.hidden(lm.embed(ids), torch.ones_like(ids, dtype=torch.bool)))

    whole = logits()
    errors = []
    for bits in (4, 8, 16):
        with rounding(ResidualStream(lm), bits):
            errors.append(float((logits() - whole).norm() / whole.norm()))
            layer = lm.backbone.layers[0].self_attn.q_proj
            assert len(layer.weight.unique()) <= 2**bits - 1
    assert errors[0] > errors[1] > errors[2] > 0 and errors[2] < 1e-3
    assert torch.equal(logits(), whole)
    assert all(torch.equal(weight, before[name]) for name, weight in lm.state_dict().items())


def test_a_cell_runs_and_says_what_the_page_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = {"SIZE": "1x2x16", "STEPS": 2, "EVERY": 1, "QUESTIONS": 2, "LOOKED_AT": 2}
    for name, value in sizes.items():
        monkeypatch.setattr(blocks, name, value)
    monkeypatch.setattr(blocks, "CELLS", {"OP, AdamW": blocks.CELLS["OP, AdamW"]})
    (run,) = blocks.run(tmp_path, [0])["cells"]["OP, AdamW"]["runs"]
    assert len(run["all"]["kurtosis"]) == 2 and [step for step, *_ in run["course"]] == [1, 2]
    assert run["loss"] > 0 and run["loss_int8"] > 0
    json.dumps(run, allow_nan=False)
