"""Several updates of one rollout: against the formulas, written out on plain tensors."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from latentgym.rollout import Policy, Scores, replay
from latentgym.training import GRPOConfig, scoring
from latentgym.training.step_metrics import UpdateMetrics
from latentgym.training.surrogates import Surrogate

from .by_hand import Kept, policy_and_env, written_mean

SMALL = GRPOConfig(prompts=4, group_size=4, micro_batch=3, clip_low=0.05, clip_high=0.1)


class Watched(Kept):
    """Keeps which rows it learns from in each optimiser step."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.batches: list[Any] = []

    def _mini_batches(self, number: int, epoch: int) -> Any:
        found = super()._mini_batches(number, epoch)
        self.batches += found
        return found


def make(name: str, config: GRPOConfig) -> Watched:
    """A stage over chains of unequal length, half of which earn a reward."""
    policy, env = policy_and_env(name, config.rows)
    return Watched(policy, env, config, 5)


class Descent:
    """Moves a policy down the gradient, so far each time."""

    far = 0.05

    def __init__(self, policy: Policy) -> None:
        self.parameters = list(policy.parameters())

    def __call__(self, losses: Iterable[Tensor]) -> float:
        for parameter in self.parameters:
            parameter.grad = None
        for loss in losses:
            loss.backward()
        self.move()
        return 0.0

    @torch.no_grad()
    def move(self) -> None:
        known = [p for p in self.parameters if p.grad is not None]
        norm = torch.stack([p.grad.norm() for p in known]).norm()
        for parameter in known:
            parameter -= self.far * parameter.grad / norm


def written_out(stage: Watched, fresh: Watched) -> dict[str, float]:
    """Metrics of the step that `stage` took, row by row; it moves the policy of `fresh`."""
    c, rollouts = stage.config, stage.episodes.rollouts
    policy, reference = fresh.policy, fresh.reference
    descent = Descent(policy)

    def row_of(scorer: Policy, row: int) -> tuple[Tensor, Tensor]:
        """Log-probabilities of a row's actions, and which of them are thoughts."""
        scores = replay(scorer, rollouts.select([row]))
        return scores.logp_NT[scores.action_NT], scores.thought_NT[scores.action_NT]

    rows = range(len(rollouts))
    with torch.no_grad():
        old = [row_of(policy, row)[0] for row in rows]
        start = [row_of(reference, row)[0] for row in rows] if reference else old
    reward_QG = stage.episodes.reward_N.reshape(-1, c.group_size)
    spread = reward_QG.std(1, ddof=1, keepdims=True) + 1e-9
    a = ((reward_QG - reward_QG.mean(1, keepdims=True)) / spread).ravel()
    losses, ratios, clipped, kls = [], [], [], []
    for batch in stage.batches:
        of_rows = []
        for row in batch:
            logp, thought = row_of(policy, row)
            ratio = (logp - old[row]).exp()
            within = ratio.clamp(1 - c.clip_low, 1 + c.clip_high)
            gain = torch.stack([ratio * a[row], within * a[row]])
            kl = (start[row] - logp).exp() - 1 - (start[row] - logp)
            each = -gain.min(0).values + c.kl * kl
            of_rows.append((each, thought))
            ratios.append(ratio.detach())
            kls.append(kl.detach())
            clipped.append((gain[1] < gain[0]).float())
        loss = written_mean(of_rows, c.mean)
        descent([loss])
        losses.append(loss.item())
    return {
        "train/loss": float(np.mean(losses)),
        "train/ratio": float(torch.cat(ratios).mean()),
        "train/ratio_deviation": float((torch.cat(ratios) - 1).abs().max()),
        "train/clip_fraction": float(torch.cat(clipped).mean()),
        **({"train/kl": float(torch.cat(kls).mean())} if c.kl else {}),
    }


CASES = {
    "three passes": {"updates": 3},
    "three passes, sequence mean, divergence": {"updates": 3, "mean": "sequence", "kl": 0.3},
    "mini-batches": {"mini_batches": 4},
    "passes over mini-batches, phases, divergence": {
        "updates": 3,
        "mini_batches": 2,
        "mean": "phase",
        "kl": 0.3,
    },
    "passes over mini-batches, sums, divergence": {
        "updates": 2,
        "mini_batches": 4,
        "mean": "sum",
        "kl": 0.03,
        "micro_tokens": 60,
    },
}


@pytest.mark.parametrize(
    ("name", "case"),
    [
        ("words", "three passes, sequence mean, divergence"),
        ("words", "passes over mini-batches, sums, divergence"),
        *(pytest.param("words", case, marks=pytest.mark.thorough) for case in CASES),
        ("several tokens", "three passes"),
        ("vectors", "passes over mini-batches, phases, divergence"),
    ],
)
def test_updates_are_those_of_the_formulas(name: str, case: str) -> None:
    config = replace(SMALL, **CASES[case])
    stage, fresh = make(name, config), make(name, config)
    metrics = stage.step(2, Descent(stage.policy))
    lengths = stage.episodes.rollouts.length_N
    assert lengths.min() < lengths.max()
    expected = written_out(stage, fresh)
    assert len(stage.batches) == config.updates * config.mini_batches
    for key, value in expected.items():
        assert metrics[key] == pytest.approx(value, rel=1e-3, abs=1e-5), key
    assert metrics["train/clip_fraction"] > 0.01
    for a, b in zip(stage.policy.parameters(), fresh.policy.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def test_every_pass_takes_all_rows_in_an_order_of_its_own() -> None:
    stage = make("words", replace(SMALL, updates=3, mini_batches=4))
    orders = [
        np.concatenate(stage._mini_batches(number, epoch))
        for number in (0, 1)
        for epoch in range(3)
    ]
    assert all(sorted(order) == list(range(16)) for order in orders)
    assert len({tuple(order) for order in orders}) == 6
    again = np.concatenate(stage._mini_batches(1, 2))
    assert np.array_equal(again, orders[-1])


@pytest.mark.parametrize("updates", [1, 3])
def test_a_rollout_is_scored_once_before_it_is_learnt_from(
    updates: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = make("words", replace(SMALL, updates=updates, kl=0.1))
    scored: list[Policy] = []
    log_probs = scoring.log_probs

    def watch(policy: Policy, *args: Any) -> Tensor:
        scored.append(policy)
        return log_probs(policy, *args)

    monkeypatch.setattr(scoring, "log_probs", watch)
    stage.step(0, Descent(stage.policy))
    # With a single update the policy's own log-probabilities serve, detached.
    assert scored == ([stage.reference] if updates == 1 else [stage.policy, stage.reference])


def test_a_rollouts_metrics_are_means_over_its_updates() -> None:
    """Three passes that move nothing tell what one pass tells."""
    one = make("words", replace(SMALL, mean="sum", kl=0.1)).step(
        0, lambda losses: float(len([*losses]))
    )
    stage = make("words", replace(SMALL, mean="sum", kl=0.1, updates=3))
    three = stage.step(0, lambda losses: float(len([*losses])))
    for key in ("train/loss", "train/kl", "train/entropy", "train/ratio", "train/grad_norm"):
        assert three[key] == pytest.approx(one[key], rel=1e-5, abs=1e-7), key


def test_what_is_no_action_is_not_counted() -> None:
    action_NT = torch.tensor([[True, False], [True, True]])
    wild = torch.where(action_NT, torch.ones(2, 2), torch.nan)
    seen = UpdateMetrics()
    seen.add(
        Scores(wild, action_NT, torch.ones(2, 2), wild, action_NT),
        Surrogate(wild, 2 * wild, ~action_NT),
        3 * wild,
        torch.tensor(0.5),
    )
    seen.grad_norms.append(1.0)
    assert seen.metrics() == {
        "train/entropy": 1.0,
        "train/ratio": 2.0,
        "train/clip_fraction": 0.0,
        "train/kl": 3.0,
        "train/loss": 0.5,
        "train/ratio_deviation": 1.0,
        "train/grad_norm": 1.0,
    }
