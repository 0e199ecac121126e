"""Attention over a cache: long insertions are read in parts, whatever the model's attention is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from benchmarks.models import loaded
from latentgym.lm import LatentLM
from latentgym.lm.attention import query_parts
from latentgym.lm.model import left_pad
from latentgym.rollout.decoder import RowDecoder

INSERTED = 7


def grouped(lm: LatentLM) -> torch.Tensor:
    """Last hidden states of what is inserted into rows of two prompts, some of it padded."""
    ids, mask = left_pad([[5, 6, 7, 8, 9], [11, 12]], lm.tokenizer.pad_id, lm.device)
    with lm.decoding(), torch.no_grad():
        read = lm.prefill(ids, mask, 2)
        x = lm.embed(torch.arange(20, 20 + 4 * INSERTED).view(4, INSERTED))
        real = torch.ones(4, INSERTED, dtype=torch.bool)
        real[1, :3] = False
        position = mask.sum(1).repeat_interleave(2)[:, None] + real.cumsum(1) - 1
        return lm.extend(x, position.clamp_min(0), read.cache, real)[real]


def by_rows(lm: LatentLM) -> torch.Tensor:
    """Last hidden states of rows that start at different lengths and read on."""
    decoder = RowDecoder(lm, 3)
    with lm.decoding(), torch.no_grad():
        decoder.start(np.arange(3), [[5, 6, 7], [8], [5, 6, 7]], INSERTED)
        decoder.read_tokens(np.arange(3), [list(range(30, 30 + n)) for n in (INSERTED, 2, 5)])
        return decoder.hidden_ND.clone()


@pytest.mark.parametrize("read", [grouped, by_rows])
@pytest.mark.parametrize("arch", ["llama", "gemma2", "gpt_oss"])
def test_parts_of_what_is_inserted_are_the_whole(
    arch: str, read: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Among them a model with windows and capped scores, and one with sinks."""
    lm = loaded(arch)
    assert isinstance(lm, LatentLM) and callable(read)
    whole = read(lm)
    seen = []

    def counted(n: int, each: int) -> list[slice]:
        found = list(query_parts(n, each))
        seen.append(len(found))
        return found

    for module in ("cache", "row_cache"):
        monkeypatch.setattr(f"latentgym.lm.{module}.query_parts", counted)
    monkeypatch.setattr("latentgym.lm.attention._MOST_SCORES", 300)
    assert_close(read(lm), whole, rtol=1e-5, atol=1e-5)
    assert max(seen) > 1


@pytest.mark.parametrize("n", [1, 7, 512])
@pytest.mark.parametrize("each", [1, 10**6, 10**9])
def test_parts_cover_everything_once_and_are_bounded(n: int, each: int) -> None:
    parts = list(query_parts(n, each))
    assert [i for part in parts for i in range(part.start, part.stop)] == list(range(n))
    assert all((part.stop - part.start) * each <= max(1 << 26, each) for part in parts)
