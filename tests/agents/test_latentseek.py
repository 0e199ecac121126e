"""LatentSeek: what a step does to latents, and what a search does to a question."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from latentgym.agents.latentseek import LatentSeek, LatentSeekConfig
from latentgym.agents.search.latents import Latents, reinforce, tokens_of
from latentgym.errors import UsageError

EPS = 1e-3


class Head:
    """A language-model head alone."""

    def __init__(self, table_VD: Tensor) -> None:
        self.table_VD, self.dtype = table_VD.requires_grad_(), table_VD.dtype

    def logits(self, hidden: Tensor) -> Tensor:
        return (hidden @ self.table_VD.T).float()


def latents(head: Any, *lengths: int, lr: float = 0.01, seed: int = 0) -> list[Latents]:
    generator = torch.Generator().manual_seed(seed)
    found = []
    for length in lengths:
        z_LD = torch.randn(length, head.table_VD.shape[1], generator=generator)
        found.append(Latents(z_LD, head.logits(z_LD).argmax(-1).numpy(), [], lr))
    return found


@pytest.fixture
def head() -> Any:
    return Head(torch.randn(11, 6, generator=torch.Generator().manual_seed(1)))


def log_prob(head: Any, each: Latents, token_L: Any) -> float:
    with torch.no_grad():
        logp_LV = head.logits(each.z_LD).log_softmax(-1)
    return float(logp_LV.gather(1, torch.from_numpy(token_L)[:, None]).sum())


def test_the_gradient_is_the_closed_form(head: Any) -> None:
    """R * W^T (p - onehot) * p_a / (p_a + eps), of the loss that is descended."""
    reward, tried = [-0.5, -1.0, -1 / 6], latents(head, 3, 1, 4)
    before = [each.z_LD.detach().clone() for each in tried]
    reinforce(tried, reward, head, EPS, 0.0)
    for r, each, z_LD in zip(reward, tried, before, strict=True):
        p_LV = head.logits(z_LD).softmax(-1).detach()
        p_L1, a_L1 = p_LV.max(-1, keepdim=True)
        onehot_LV = torch.zeros_like(p_LV).scatter(1, a_L1, 1.0)
        closed = r * (p_L1 / (p_L1 + EPS)) * ((p_LV - onehot_LV) @ head.table_VD.detach())
        assert each.z_LD.grad is not None
        assert_close(each.z_LD.grad, closed, rtol=1e-4, atol=1e-6)
        # Adam's first step goes by lr against the sign of every coordinate.
        assert_close(each.z_LD.detach(), z_LD - 0.01 * closed.sign(), rtol=1e-3, atol=1e-4)


def test_of_equally_likely_tokens_the_chosen_one_is_pushed_away() -> None:
    head = Head(torch.eye(3))
    [each] = tried = latents(head, 1)
    with torch.no_grad():
        each.z_LD.copy_(torch.tensor([[2.0, 2.0, 0.0]]))
    reinforce(tried, [-1.0], head, 0.0, 0.0)
    p = torch.tensor([2.0, 2.0, 0.0]).softmax(-1)
    assert each.z_LD.grad is not None
    assert_close(each.z_LD.grad[0], -(p - torch.tensor([1.0, 0.0, 0.0])), rtol=1e-4, atol=1e-6)
    assert next(tokens_of(tried, head)).tolist() == [1]


def test_a_bad_answer_becomes_less_likely(head: Any) -> None:
    for seed in range(5):
        tried = latents(head, 4, 2, lr=1e-3, seed=seed)
        before = [log_prob(head, each, each.token_L) for each in tried]
        reinforce(tried, [-0.2, -1.0], head, 1e-8, 0.0)
        after = [log_prob(head, each, each.token_L) for each in tried]
        assert all(a < b for a, b in zip(after, before, strict=True))


def test_a_perfect_answer_moves_nothing_and_a_good_one_is_left_to_itself(head: Any) -> None:
    good, bad = latents(head, 3, 3)
    before = good.z_LD.detach().clone()
    reinforce([good, bad], [0.0, -1.0], head, EPS, 0.0)
    assert torch.equal(good.z_LD.detach(), before)
    assert not torch.equal(bad.z_LD.detach(), bad.origin_LD)


def test_gradients_stay_with_the_latents_and_within_their_bound(head: Any) -> None:
    tried = latents(head, 3, 2)
    reinforce(tried, [-1.0, -1.0], head, EPS, 0.1)
    assert head.table_VD.grad is None
    norms = [float(each.z_LD.grad.norm()) for each in tried if each.z_LD.grad is not None]
    assert norms == pytest.approx([0.1, 0.1], rel=1e-3)


def test_latents_know_what_they_stand_for(head: Any) -> None:
    tried = latents(head, 3, 1)
    assert [t.tolist() for t in tokens_of(tried, head)] == [t.token_L.tolist() for t in tried]
    [each, _] = tried
    each.before = [7, 7]
    moved = each.token_L.copy()
    moved[[0, 2]] += 1
    each.move(moved)
    assert each.changed == 2 and each.prefix() == [7, 7, *moved.tolist()]


def test_noise_is_a_function_of_seed_question_and_step(head: Any) -> None:
    [each] = latents(head, 4)

    def scattered(*counters: int, sigma: float = 0.5) -> Tensor:
        each.scatter(sigma, *counters)
        return each.z_LD.detach() - each.origin_LD

    noise = scattered(1, 2, 3)
    assert_close(scattered(1, 2, 3), noise)  # from the origin, not from where it was
    assert_close(scattered(1, 2, 3, sigma=1.0), 2 * noise)
    others = [scattered(*counters) for counters in ((0, 2, 3), (1, 0, 3), (1, 2, 0))]
    assert all((other - noise).abs().min() > 0 for other in others)
    assert len(set(noise.flatten().tolist())) == noise.numel()


@pytest.mark.parametrize(
    "wrong",
    [{"ratio": 1.5}, {"start": -0.1}, {"lr": -1}, {"iterations": -1}, {"most": -1}, {"sigma": -1}],
)
def test_settings_that_make_no_sense(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="latentseek needs ratio and start in"):
        LatentSeekConfig(**wrong)


def test_logits_are_taken_in_groups_that_fit(
    head: Any, random_lm: Callable, guessing: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = LatentSeekConfig(reward="constant", lr=3.0, iterations=2, ratio=0.5)
    found = []
    for most in (1 << 26, 8 * 259, 1):
        monkeypatch.setattr("latentgym.lm.model.MOST_LOGITS", most)
        agent = LatentSeek(config)
        policy = agent.policy(random_lm("llama"), acting=True)
        answers = agent.answer(policy, guessing(4), np.arange(8), 0, lambda done: None)
        found.append([answer.info for answer in answers])
    assert found[0] == found[1] == found[2]


def test_presets_are_controls_of_each_other() -> None:
    presets = LatentSeek.presets
    assert presets["noise"].update == "noise"
    assert [LatentSeek(presets[n]).oracle for n in ("psrm", "constant", "gsm8k")] == [1, 0, 0]
    official = presets["official"].verifier
    assert official.official_parsing and not official.forced
    assert presets["gsm8k"].threshold == -0.2
