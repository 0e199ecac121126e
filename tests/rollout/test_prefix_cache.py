"""A reading that is asked again and again gives what reading from scratch gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from benchmarks.models import loaded
from latentgym.episodes.protocol import Protocol
from latentgym.heads import TokenHead
from latentgym.lm import LatentLM
from latentgym.lm.cache import GroupedCache
from latentgym.lm.model import left_pad
from latentgym.rollout import Engine, Policy, PrefixCache

Sequences = dict[int, list[int]]
EXACT = {"rtol": 1e-4, "atol": 1e-4}


def from_scratch(lm: LatentLM, sequences: list[list[int]], group_size: int) -> Any:
    with lm.decoding():
        return lm.prefill(*left_pad(sequences, lm.tokenizer.pad_id, lm.device), group_size)


def plain(lm: LatentLM, ids: list[int]) -> Tensor:
    """All last hidden states of one sequence, in one pass without a cache."""
    with torch.inference_mode():
        x_1TD = lm.embed(torch.tensor([ids]))
        return lm.hidden(x_1TD, torch.ones(1, len(ids), dtype=torch.bool))[0]


def decoded(lm: LatentLM, cache: GroupedCache, lengths: list[int], group: int) -> Tensor:
    """Hidden states of three fixed tokens behind a cache, others for each row: (N, 3, D)."""
    position_N = torch.tensor(lengths).repeat_interleave(group)
    states = []
    with lm.decoding():
        for step in range(3):
            token_N = (torch.arange(len(position_N)) * 7 + step * 31) % 250
            position_N1 = (position_N + step)[:, None]
            states.append(lm.extend(lm.embed(token_N)[:, None], position_N1, cache)[:, 0])
    return torch.stack(states, dim=1)


def check(
    prefix_cache: PrefixCache, wanted: Sequences, before: Sequences, group: int
) -> GroupedCache:
    """Read, and compare with a reading from scratch; the cache, not yet decoded behind."""
    lm, keys, sequences = prefix_cache.lm, list(wanted), list(wanted.values())
    prefill = prefix_cache.read(keys, sequences, group)
    expected = from_scratch(lm, sequences, group)
    assert_close(prefill.hidden_ND, expected.hidden_ND, **EXACT)
    with torch.inference_mode():
        assert_close(lm.logits(prefill.hidden_ND), lm.logits(expected.hidden_ND), **EXACT)
    for key, ids, fresh in zip(keys, sequences, prefix_cache.fresh_N, strict=True):
        assert fresh == len(ids) - agreed(before.get(key, []), ids)
        assert_close(prefix_cache.hidden(key), plain(lm, ids), **EXACT)
    return prefill.cache


def agreed(one: list[int], other: list[int]) -> int:
    """How many ids they begin with in common."""
    same = [a == b for a, b in zip(one, other, strict=False)]
    return same.index(False) if False in same else len(same)


IDS = st.lists(st.integers(0, 5), min_size=1, max_size=9)


@st.composite
def edits(draw: st.DrawFn) -> list[Sequences]:
    """Sequences by key as they are asked for, call after call."""
    calls: list[Sequences] = []
    known: Sequences = {}
    for _ in range(draw(st.integers(2, 5))):
        keys = draw(st.lists(st.integers(0, 4), min_size=1, max_size=4, unique=True))
        call = {}
        for key in keys:  # in any order; new ones among them, and old ones that come back
            old = known.get(key, [])
            kept = old[: draw(st.integers(0, len(old)))]
            call[key] = draw(st.sampled_from([old, kept]) | IDS.map(kept.__add__)) or [key]
        known |= call
        calls.append(call)
    return calls


@settings(max_examples=20)
@given(edits(), st.sampled_from(["llama", "gpt2", "gemma3_text"]), st.integers(1, 3))
def test_reading_again_is_reading_from_scratch(
    random_lm: Callable, calls: list[Sequences], arch: str, group: int
) -> None:
    lm = loaded(arch) if arch == "gemma3_text" else random_lm(arch)  # its windows have 8 positions
    assert isinstance(lm, LatentLM)
    prefix_cache, before = PrefixCache(lm), {}
    for wanted in calls:
        cache = check(prefix_cache, wanted, before, group)
        sequences = list(wanted.values())
        lengths = list(map(len, sequences))
        expected = from_scratch(lm, sequences, group).cache
        found = decoded(lm, cache, lengths, group)
        assert_close(found, decoded(lm, expected, lengths, group), **EXACT)
        before = wanted  # what is not asked for is forgotten


FIRST: Sequences = {3: [1, 2, 3, 4, 5], 1: [9, 8], 7: [6, 6, 6]}
SECOND: Sequences = {7: [6, 6, 6, 5, 5, 5], 3: [1, 2, 9], 4: [1]}


def test_windows_slide_over_what_was_read_before() -> None:
    """Of 8 positions; the sequences go on by unequal lengths, so that one of them is padded."""
    lm = loaded("gemma3_text")
    assert isinstance(lm, LatentLM)
    prefix_cache, first = PrefixCache(lm), {0: [1, 2, 3, 4, 5, 6, 7, 8, 9], 1: [9, 8, 7]}
    check(prefix_cache, first, {}, 1)
    second = {0: [*first[0], 10], 1: [*first[1], 3, 4, 5, 6, 7, 8]}
    cache = check(prefix_cache, second, first, 2)
    lengths = list(map(len, second.values()))
    expected = from_scratch(lm, list(second.values()), 2).cache
    assert_close(decoded(lm, cache, lengths, 2), decoded(lm, expected, lengths, 2), **EXACT)


def test_a_later_read_does_not_damage_a_cache_that_was_handed_out(random_lm: Callable) -> None:
    lm = random_lm("llama")
    prefix_cache = PrefixCache(lm)
    cache = check(prefix_cache, FIRST, {}, 2)
    check(prefix_cache, SECOND, FIRST, 2)
    lengths = list(map(len, FIRST.values()))
    expected = from_scratch(lm, list(FIRST.values()), 2).cache
    assert_close(decoded(lm, cache, lengths, 2), decoded(lm, expected, lengths, 2), **EXACT)


def test_decoding_and_compaction_do_not_damage_the_reading(random_lm: Callable) -> None:
    prefix_cache = PrefixCache(random_lm("llama"))
    cache = check(prefix_cache, FIRST, {}, 2)
    decoded(prefix_cache.lm, cache, list(map(len, FIRST.values())), 2)
    cache.keep(torch.tensor([1, 5]))
    check(prefix_cache, FIRST, FIRST, 2)
    assert prefix_cache.fresh_N.tolist() == [0, 0, 0]
    check(prefix_cache, SECOND, FIRST, 2)
    assert prefix_cache.fresh_N.tolist() == [3, 1, 1]


def test_what_was_not_asked_for_again_is_forgotten(random_lm: Callable) -> None:
    prefix_cache = PrefixCache(random_lm("llama"))
    for wanted, fresh in ((FIRST, [5, 2, 3]), ({3: FIRST[3]}, [0]), (FIRST, [0, 2, 3])):
        prefix_cache.read(list(wanted), list(wanted.values()))
        assert prefix_cache.fresh_N.tolist() == fresh
    prefix_cache.read([3], [FIRST[3]])
    with pytest.raises(KeyError):
        prefix_cache.hidden(1)


def test_only_what_has_changed_is_computed(
    random_lm: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm = random_lm("llama")
    prefix_cache, hidden, widths = PrefixCache(lm), lm.hidden, []

    def counted(x_BTD: Tensor, *rest: Any) -> Tensor:
        widths.append(x_BTD.shape[1])
        return hidden(x_BTD, *rest)

    monkeypatch.setattr(lm, "hidden", counted)
    for wanted in (FIRST, FIRST, SECOND):
        prefix_cache.read(list(wanted), list(wanted.values()))
    assert widths == [5, 3]  # nothing at all the second time


def test_rollouts_behind_a_reading_are_those_of_the_engine(
    random_lm: Callable, prompts: list[list[int]], protocol: Protocol
) -> None:
    engine = Engine(Policy(random_lm("llama"), TokenHead()))
    expected = engine.rollout(prompts, protocol, seed=1, group_size=3, question_Q=[4, 2, 9, 0])
    prefix_cache = PrefixCache(random_lm("llama"))
    for question, part in (([4, 9], [0, 2]), ([0, 4, 2, 9], [3, 0, 1, 2])):
        session = engine.start(
            [prompts[i] for i in part],
            protocol,
            seed=1,
            group_size=3,
            question_Q=question,
            prefix_cache=prefix_cache,
        )
        session.run()
        rows = np.concatenate([np.arange(3) + 3 * i for i in part])
        found, wanted = session.finish(), expected.select(rows)
        assert found.token_NT.tolist() == wanted.token_NT.tolist()
        assert found.kind_NT.tolist() == wanted.kind_NT.tolist()
    assert prefix_cache.fresh_N.tolist() == [len(prompts[3]), 0, len(prompts[1]), 0]
