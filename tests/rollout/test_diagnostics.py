"""Outlier metrics in closed form, and what is told of a rollout's thoughts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from latentgym.heads import MultiTokenHead, TokenHead
from latentgym.protocol import Budget, Protocol
from latentgym.rollout import Engine, Policy, latent_statistics
from latentgym.rollout.diagnostics import kurtosis, max_median_ratio, nearest_cosine


def test_kurtosis_in_closed_form() -> None:
    signs = torch.randn(50, 8, generator=torch.Generator().manual_seed(0)).sign()
    assert_close(kurtosis(3 * signs), torch.tensor(1.0))
    assert_close(kurtosis(7 * torch.eye(8)[:1].expand(5, 8)), torch.tensor(8.0))
    gaussian = torch.randn(20_000, 16, generator=torch.Generator().manual_seed(1))
    assert 1 <= float(kurtosis(gaussian)) < 1.01
    shuffled = gaussian[:, torch.randperm(16, generator=torch.Generator().manual_seed(2))]
    assert_close(kurtosis(shuffled), kurtosis(gaussian))


def test_metrics_do_not_depend_on_scale() -> None:
    x = torch.randn(40, 9, generator=torch.Generator().manual_seed(3)) ** 3
    assert_close(kurtosis(100 * x), kurtosis(x))
    assert_close(max_median_ratio(100 * x), max_median_ratio(x))
    assert_close(max_median_ratio(torch.tensor([[1.0, -2.0, 8.0]])), torch.tensor(4.0))


def test_a_word_is_its_own_nearest() -> None:
    table = torch.randn(30, 8, generator=torch.Generator().manual_seed(4))
    assert_close(nearest_cosine(2.5 * table[3:9], table), torch.tensor(1.0))
    assert float(nearest_cosine(table[:1] + table[1:2], table)) < 1


def test_thoughts_of_a_rollout(random_lm: Callable, prompts: Any, protocol: Protocol) -> None:
    lm = random_lm("llama")

    def told(head: Any, rules: Protocol = protocol) -> dict[str, float]:
        policy = Policy(lm, head)
        return latent_statistics(policy, Engine(policy).rollout(prompts, rules, seed=0))

    one, four = told(MultiTokenHead(1)), told(MultiTokenHead(4))
    assert one["latent/nearest"] == pytest.approx(1, abs=1e-5)
    # The mean of four embeddings is shorter than one; a word is as long as words are.
    assert 0.2 < four["latent/norm"] < 0.9 < one["latent/norm"] < 1.2
    assert four["latent/nearest"] < 1 and "latent/word_norm" in four
    assert told(TokenHead()) == {}
    assert told(MultiTokenHead(2), Protocol(think=Budget(0), answer=Budget(3))) == {}
