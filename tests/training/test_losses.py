"""Advantages, divergences and losses against their formulas."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from latentgym.errors import UsageError
from latentgym.heads.distributions import entropy
from latentgym.training.grpo_config import ADVANTAGES
from latentgym.training.losses import (
    KL_ESTIMATORS,
    MEANS,
    action_weights,
    advantages,
    kl_estimate,
    masked_mean,
    soft_target_loss,
)
from latentgym.training.surrogates import surrogate

REWARDS = torch.tensor([1.0, 0.0, 0.0, 1.0, 0.5, 0.0, 0.0, 0.1])
GROUPS = REWARDS.view(2, 4)
EVERYWHERE = torch.ones(1, dtype=torch.bool)
MEAN = GROUPS.mean(1, keepdim=True)
CLEAN = GROUPS[:, 0].mean()


@pytest.mark.parametrize(
    ("kind", "formula"),
    [
        ("group_norm", (GROUPS - MEAN) / GROUPS.std(1, keepdim=True)),
        ("group_norm_trl", (GROUPS - MEAN) / (GROUPS.std(1, keepdim=True) + 1e-4)),
        ("group_norm_population", (GROUPS - MEAN) / GROUPS.std(1, correction=0, keepdim=True)),
        ("dr_grpo", GROUPS - MEAN),
        ("rloo", GROUPS - (GROUPS.sum(1, keepdim=True) - GROUPS) / 3),
        ("batch", (GROUPS - GROUPS.mean()) / (GROUPS - GROUPS.mean()).norm()),
        ("clean_batch", (GROUPS - CLEAN) / (GROUPS - CLEAN).norm()),
    ],
)
def test_each_advantage_is_its_formula(kind: str, formula: Tensor) -> None:
    assert_close(advantages(REWARDS, 4, kind), formula.flatten())


def test_all_advantages_are_tested() -> None:
    (tested,) = test_each_advantage_is_its_formula.pytestmark
    assert {kind for kind, _ in tested.args[1]} == set(ADVANTAGES)


@pytest.mark.parametrize("kind", sorted(ADVANTAGES))
@given(st.floats(-1e3, 1e3, width=32), st.integers(2, 9))
def test_equal_rewards_give_no_advantage(kind: str, reward: float, size: int) -> None:
    """Also where the mean of equal numbers is rounded."""
    found = advantages(torch.full((3 * size,), reward), size, kind)
    assert found.abs().max() < 1e-3


def test_groups_that_do_not_divide_are_refused() -> None:
    with pytest.raises(UsageError, match="groups of 3 do not divide 8"):
        advantages(REWARDS, 3)


def test_leave_one_out_needs_others() -> None:
    with pytest.raises(UsageError, match="at least 2"):
        advantages(REWARDS, 1, "rloo")


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: advantages(REWARDS, 4, "group_nrom"), "did you mean 'group_norm'"),
        (lambda: kl_estimate(REWARDS, REWARDS, EVERYWHERE, "k4"), "did you mean 'k"),
        (lambda: masked_mean(GROUPS, GROUPS > 0, "rows"), "choose token or sequence"),
    ],
)
def test_unknown_names_are_refused(call: Any, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        call()


@pytest.mark.parametrize("kind", sorted(KL_ESTIMATORS))
def test_divergence_estimates_in_expectation(kind: str) -> None:
    """Exact expectations over four outcomes: k1 and k3 are unbiased, k2 up to third order."""
    logp = torch.tensor([0.1, -0.2, 0.3, 0.0], dtype=torch.float64).log_softmax(0)
    logq = torch.tensor([0.0, -0.1, 0.2, 0.1], dtype=torch.float64).log_softmax(0)
    exact = (logp.exp() * (logp - logq)).sum()
    mean = (logp.exp() * kl_estimate(logp, logq, EVERYWHERE, kind)).sum()
    assert_close(mean, exact, rtol=0.1 if kind == "k2" else 1e-9, atol=0.0)


def test_divergence_estimates_in_closed_form() -> None:
    r = torch.tensor([-0.7, 0.0, 1.3])
    zero = torch.zeros(3)
    assert_close(kl_estimate(r, zero, EVERYWHERE, "k1"), r)
    assert_close(kl_estimate(r, zero, EVERYWHERE, "k2"), r**2 / 2)
    assert_close(kl_estimate(r, zero, EVERYWHERE, "k3"), (-r).exp() - 1 + r)
    assert (kl_estimate(r, zero, EVERYWHERE, "k3") >= 0).all()


# ratio, advantage, loss, clipped; bounds 0.2 below and 0.3 above.
CASES = [
    (1.0, 2.0, -2.0, False),
    (1.2, 2.0, -2.4, False),
    (1.5, 2.0, -2.6, True),
    (0.5, 2.0, -1.0, False),
    (1.5, -2.0, 3.0, False),
    (0.9, -2.0, 1.8, False),
    (0.5, -2.0, 1.6, True),
]


@pytest.mark.parametrize(("ratio", "advantage", "loss", "clipped"), CASES)
def test_clipped_surrogate(ratio: float, advantage: float, loss: float, clipped: bool) -> None:
    logp = torch.tensor([[math.log(ratio)]], requires_grad=True)
    a = torch.tensor([[advantage]])
    out = surrogate("clip", logp, torch.zeros(1, 1), a, EVERYWHERE, 0.2, 0.3)
    assert out.loss_NT.item() == pytest.approx(loss)
    assert out.ratio_NT.item() == pytest.approx(ratio)
    assert out.clipped_NT.item() is clipped
    out.loss_NT.sum().backward()
    # A step down the loss makes good actions likelier; a clipped action has no gradient.
    expected = 0.0 if clipped else -ratio * advantage
    assert logp.grad is not None and logp.grad.item() == pytest.approx(expected)


def test_means_are_weights_on_a_mean_over_rows() -> None:
    loss = torch.randn(2, 6, generator=torch.Generator().manual_seed(3))
    action = torch.tensor([[1, 1, 1, 0, 1, 1], [1, 1, 0, 1, 0, 0]]).bool()
    thought = torch.tensor([[1, 1, 1, 0, 0, 0], [0, 0, 0, 0, 0, 0]]).bool()

    def mean(kind: str) -> Tensor:
        return masked_mean(loss * action_weights(thought, action, kind), action, "sequence")

    thoughts, words = loss[0, :3].mean(), loss[0, 4:].mean()
    other = loss[1, [0, 1, 3]]
    assert_close(mean("phase"), (thoughts + words + other.mean()) / 2)
    assert_close(mean("sum"), (loss[0][action[0]].sum() + other.sum()) / 2)
    assert_close(mean("sequence"), masked_mean(loss, action, "sequence"))
    with pytest.raises(UsageError, match="no mean 'tokens'"):
        action_weights(thought, action, "tokens")


def test_short_chains_weigh_more_where_rows_are_averaged() -> None:
    """With right chains of 2 and 20 thoughts each thought of the short one counts ten times."""
    thought = torch.arange(20) < torch.tensor([[2], [20]])
    logp = torch.zeros(2, 20, requires_grad=True)
    advantage = torch.ones(2, 1) * action_weights(thought, thought, "phase")
    out = surrogate("clip", logp, logp.detach(), advantage, thought, 0.2, 0.2)
    (gradient,) = torch.autograd.grad(masked_mean(out.loss_NT, thought, "sequence"), logp)
    assert (gradient[0, 0] / gradient[1, 0]).item() == pytest.approx(10)


def test_masked_means() -> None:
    values = torch.tensor([[1.0, 2.0, 9.0], [5.0, 9.0, 9.0], [9.0, 9.0, 9.0]])
    mask = torch.tensor([[1, 1, 0], [1, 0, 0], [0, 0, 0]]).bool()
    assert masked_mean(values, mask, "token").item() == pytest.approx(8 / 3)
    assert masked_mean(values, mask, "sequence").item() == pytest.approx((1.5 + 5 + 0) / 3)
    assert masked_mean(values, torch.zeros_like(mask), "token").item() == 0


def test_soft_targets_of_one_id_are_cross_entropy() -> None:
    torch.manual_seed(0)
    logits, ids = torch.randn(3, 5, 7), torch.randint(7, (3, 5, 1))
    expected = torch.nn.functional.cross_entropy(logits.view(-1, 7), ids.view(-1), reduction="none")
    found = soft_target_loss(logits, ids, torch.ones(3, 5, 1))
    assert_close(found.flatten(), expected)


def test_soft_targets_are_a_divergence() -> None:
    torch.manual_seed(0)
    logits, target = torch.randn(4, 7), torch.randn(4, 7).softmax(-1)
    ids = torch.stack([torch.randperm(7) for _ in range(4)])
    expected = torch.nn.functional.kl_div(logits.log_softmax(-1), target, reduction="none").sum(-1)
    found = soft_target_loss(logits, ids, target.gather(-1, ids))
    assert_close(found, expected)
    nothing = soft_target_loss(target.log(), ids, target.gather(-1, ids))
    assert_close(nothing, torch.zeros(4))


def test_unused_slots_of_a_soft_target_do_not_count() -> None:
    logits = torch.randn(1, 7, generator=torch.Generator().manual_seed(0)).requires_grad_()
    ids, weights = torch.tensor([[3, 5, 0, 0]]), torch.tensor([[0.5, 0.5, 0.0, 0.0]])
    loss = soft_target_loss(logits, ids, weights)
    assert_close(loss, soft_target_loss(logits, ids[:, :2], weights[:, :2]))
    loss.sum().backward()
    assert logits.grad is not None and logits.grad.isfinite().all()


ANYTHING = st.sampled_from([math.nan, math.inf, -math.inf, 1e38, -1e38, 0.0])


@st.composite
def masked_batches(draw: st.DrawFn) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Which steps are actions, which of them thoughts, sound numbers, and what may be elsewhere."""
    shape = draw(st.integers(1, 4)), draw(st.integers(1, 5))
    size = shape[0] * shape[1]

    def many(of: st.SearchStrategy[Any], times: int = 1) -> list[Any]:
        return draw(st.lists(of, min_size=times * size, max_size=times * size))

    action_NT = torch.tensor(many(st.booleans())).view(shape)
    thought_NT = torch.tensor(many(st.booleans())).view(shape) & action_NT
    sound = torch.tensor(many(st.floats(-5, 0, width=32), 3)).view(3, *shape)
    wild = torch.tensor(many(ANYTHING, 3)).view(3, *shape)
    return action_NT, thought_NT, sound, wild


@given(masked_batches(), st.sampled_from(sorted(MEANS)), st.sampled_from(sorted(KL_ESTIMATORS)))
@settings(max_examples=100)
def test_what_stands_behind_a_mask_does_not_count(
    batch: tuple[Tensor, Tensor, Tensor, Tensor], mean: str, estimator: str
) -> None:
    """Whatever it is, loss and gradient are those of a batch that has zeros there."""
    action_NT, thought_NT, sound, wild = batch

    def loss_and_gradient(elsewhere: Tensor) -> tuple[Tensor, Tensor]:
        logp, old, reference = torch.where(action_NT, sound, elsewhere)
        logp.requires_grad_()
        advantage = torch.where(action_NT, sound[0] + 2.5, elsewhere[0])
        found = surrogate("clip", logp, old, advantage, action_NT, 0.2, 0.3)
        loss_NT = found.loss_NT + 0.1 * kl_estimate(logp, reference, action_NT, estimator)
        loss_NT = loss_NT * action_weights(thought_NT, action_NT, mean)
        loss = masked_mean(loss_NT, action_NT, "token" if mean == "token" else "sequence")
        assert (found.ratio_NT[~action_NT] == 1).all()
        assert not found.clipped_NT[~action_NT].any()
        return loss, torch.autograd.grad(loss, logp)[0]

    for found, expected in zip(
        loss_and_gradient(wild), loss_and_gradient(torch.zeros(3, 1, 1)), strict=True
    ):
        assert found.isfinite().all()
        assert_close(found, expected)


@pytest.mark.parametrize("kind", ["token", "sequence"])
@given(masked_batches())
def test_a_mean_is_that_of_what_is_not_masked(
    kind: str, batch: tuple[Tensor, Tensor, Tensor, Tensor]
) -> None:
    action_NT, _, sound, wild = batch
    values = torch.where(action_NT, sound[0], wild[0]).requires_grad_()
    rows = [row[mask] for row, mask in zip(sound[0], action_NT, strict=True)]
    rows = [torch.cat(rows)] if kind == "token" else rows
    expected = torch.stack([row.mean() if len(row) else torch.zeros(()) for row in rows]).mean()
    found = masked_mean(values, action_NT, kind)
    assert_close(found, expected)
    (gradient,) = torch.autograd.grad(found, values)
    assert gradient.isfinite().all()
    assert not gradient[~action_NT].any()


@given(st.lists(st.booleans(), min_size=4, max_size=4))
def test_ids_without_weight_may_be_impossible(used: list[bool]) -> None:
    """A model that masks its logits says -inf of ids that an unused slot may name."""
    logits = torch.tensor([0.3, -0.5, 0.9, 0.1, 0.7])
    used_S, ids = torch.tensor([*used, True]), torch.arange(5)
    masked_logits = torch.where(used_S, logits, -math.inf).requires_grad_()
    weights = used_S / used_S.sum()
    loss = soft_target_loss(masked_logits, ids, weights)
    assert_close(
        loss, soft_target_loss(logits[used_S], torch.arange(int(used_S.sum())), weights[used_S])
    )
    (gradient,) = torch.autograd.grad(loss, masked_logits)
    assert gradient.isfinite().all()
    assert_close(entropy(masked_logits.detach()), entropy(logits[used_S]))
