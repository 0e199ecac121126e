"""Entropy bonus, divergence in the reward, and a reference that moves: formulas, and resume."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.testing import assert_close

from latentgym.errors import CheckpointError, Notice, UsageError
from latentgym.heads.distributions import entropy
from latentgym.rollout import Policy, log_probs, replay
from latentgym.testing.gradients import GradientRecorder
from latentgym.training import GRPOConfig, Optimisation, Trainer
from latentgym.training.losses import advantages, summed_kl
from latentgym.training.manifest import latest

from .by_hand import HEADS, Kept, policy_and_env, written_mean

SMALL = GRPOConfig(prompts=3, group_size=4, micro_batch=5)


def make(name: str, config: GRPOConfig) -> Kept:
    """A stage over chains half of which earn a reward."""
    policy, env = policy_and_env(name, config.rows, think=7, answer=4)
    return Kept(policy, env, config, 5)


def moved(policy: Policy) -> None:
    """Another policy than the one that it began as."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)


@pytest.mark.thorough
def test_entropy_and_its_gradient_are_the_closed_form_and_trls_and_openrlhfs() -> None:
    z = torch.randn(4, 30, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    z.requires_grad_()
    found = entropy(z)
    (slope,) = torch.autograd.grad(found.sum(), z)
    p, logp = z.softmax(-1), z.log_softmax(-1)
    assert_close(found, -(p * logp).sum(-1))
    assert_close(slope, -p * (logp + found[:, None]))
    trl = pytest.importorskip("trl.trainer.utils")
    assert_close(found, trl.entropy_from_logits(z))
    theirs = pytest.importorskip("openrlhf.models.utils").compute_entropy(z)
    assert_close(slope, torch.autograd.grad(theirs.sum(), z)[0])


def test_the_gradient_of_entropy_is_finite_where_a_token_is_impossible() -> None:
    z = torch.tensor([0.3, -torch.inf, 1.0, -2000.0], requires_grad=True)
    (slope,) = torch.autograd.grad(entropy(z), z)
    assert slope.isfinite().all() and slope[1] == 0


@pytest.mark.parametrize("mean", ["token", "sequence", "sum", "phase"])
@pytest.mark.parametrize("name", HEADS)
def test_the_bonus_is_the_logged_entropy_where_actions_are_drawn_from_it(
    name: str, mean: str
) -> None:
    found = []
    for weight in (0.0, 0.7):
        stage = make(name, replace(SMALL, entropy=weight, mean=mean))
        recorder = GradientRecorder(stage.policy)
        found.append((stage.step(0, recorder), recorder.gradients, recorder.losses))
    (plain, before, _), (metrics, after, _) = found
    assert metrics["train/entropy"] == pytest.approx(plain["train/entropy"])

    policy, rollouts = stage.policy, stage.episodes.rollouts
    rows = []
    for row in range(len(rollouts)):
        scores = replay(policy, rollouts.select([row]), entropy_gradient=True)
        acted = scores.action_NT
        rows.append((scores.entropy_NT[acted], scores.thought_NT[acted]))
    bonus = written_mean(rows, mean)
    if mean == "token":
        assert float(bonus.detach()) == pytest.approx(metrics["train/entropy"], rel=1e-4)
    assert metrics["train/loss"] == pytest.approx(
        plain["train/loss"] - 0.7 * float(bonus.detach()), abs=1e-4
    )
    names, parameters = zip(*policy.named_parameters(), strict=True)
    slopes = torch.autograd.grad(0.7 * bonus, parameters, allow_unused=True)
    for key, slope in zip(names, slopes, strict=True):
        if slope is not None:
            assert_close(after[key], before[key] - slope, rtol=2e-3, atol=1e-5)


@pytest.mark.parametrize("name", HEADS)
def test_the_bonus_raises_the_entropy_of_what_is_drawn(
    name: str,
) -> None:
    stage = make(name, SMALL)
    stage.step(0, GradientRecorder(stage.policy))
    scores = replay(stage.policy, stage.episodes.rollouts, entropy_gradient=True)
    table = stage.policy.lm.table_VD
    of_thoughts = scores.entropy_NT[scores.thought_NT].sum()
    of_answers = scores.entropy_NT[scores.action_NT & ~scores.thought_NT].sum()
    slopes = [
        torch.autograd.grad(x, table, retain_graph=True)[0] for x in (of_thoughts, of_answers)
    ]
    assert bool(slopes[0].abs().max() > 0)
    assert bool(slopes[1].abs().max() > 0) == (name != "words")  # whose chains end unanswered
    assert not replay(stage.policy, stage.episodes.rollouts).entropy_NT.requires_grad


def test_summed_divergence_is_that_of_whole_rows() -> None:
    """Every row of three tokens once, weighted by its probability: k1 sums up to the divergence."""
    generator = torch.Generator().manual_seed(1)
    pi, ref = (torch.randn(3, 5, generator=generator).log_softmax(-1) for _ in range(2))
    rows = torch.cartesian_prod(*(torch.arange(5),) * 3)
    logp_NT, ref_NT = (torch.stack([x[t, rows[:, t]] for t in range(3)], 1) for x in (pi, ref))
    wide = [torch.nn.functional.pad(x, (0, 1), value=torch.nan) for x in (logp_NT, ref_NT)]
    mask_NT = torch.tensor([True, True, True, False]).expand(len(rows), 4)
    kl_N = summed_kl(*wide, mask_NT, torch.ones(len(rows), 4), "k1")
    exact = (pi.exp() * (pi - ref)).sum()
    assert float((logp_NT.sum(-1).exp() * kl_N).sum()) == pytest.approx(float(exact), rel=1e-5)
    parts_N = summed_kl(
        torch.stack(wide, -1), torch.zeros(len(rows), 4, 2), mask_NT[..., None].expand(-1, -1, 2),
        torch.tensor([1.0, 0.5]).expand(len(rows), 4, 2), "k1",
    )  # fmt: skip
    assert_close(parts_N, logp_NT.sum(-1) + 0.5 * ref_NT.sum(-1))


@pytest.mark.parametrize("updates", [1, 2])
@pytest.mark.parametrize("name", HEADS)
def test_divergence_in_the_reward_changes_advantages_alone(name: str, updates: int) -> None:
    config = replace(SMALL, kl=0.3, kl_in="reward", kl_estimator="k1", updates=updates)
    stage, plain = make(name, config), make(name, replace(config, kl=0.0, kl_in="loss"))
    for each in (stage, plain):
        moved(each.policy)
    recorder = GradientRecorder(stage.policy)
    metrics = stage.step(0, recorder)
    rollouts = stage.episodes.rollouts
    policy_NT, reference_NT = (
        log_probs(p, rollouts, 99).flatten(1) for p in (stage.policy, stage.reference)
    )
    reward_N = torch.from_numpy(stage.episodes.reward_N) - 0.3 * (policy_NT - reference_NT).sum(-1)
    assert metrics["reward/score"] == pytest.approx(stage.episodes.reward_N.mean())
    n = int(sum(replay(stage.policy, rollouts).action_NT.sum(-1)))
    wanted = float((policy_NT - reference_NT).sum() / n)
    if updates == 1:
        assert metrics["train/kl"] == pytest.approx(wanted, rel=1e-3)
        assert metrics["train/ratio_deviation"] == 0

    # The same advantages as rewards of a run without divergence.
    wanted = advantages(reward_N, 4).double().numpy()
    answered = plain._answered
    plain._answered = lambda *a: replace(answered(*a), reward_N=wanted)  # type: ignore[method-assign]
    plain.config = replace(plain.config, advantage="dr_grpo")
    again = GradientRecorder(plain.policy)
    plain.step(0, again)
    for key, slope in recorder.gradients.items():
        assert_close(slope, again.gradients[key], rtol=2e-3, atol=1e-5)


def run(out: Path, steps: int, every: int, *, resume: bool = False) -> Kept:
    stage = make("several tokens", replace(SMALL, kl=0.5, reference_every=every))
    optimisation = Optimisation(lr=1e-2, schedule="constant", warmup=0)
    trainer = Trainer(stage, optimisation, steps, out=out, packed=False, log_every=1)
    trainer.run(resume=resume)
    return stage


def test_a_reference_that_moves_is_saved_and_resumed(tmp_path: Path) -> None:
    """From between two refreshes, where it is neither the starting policy nor the policy."""
    run(tmp_path / "whole", 6, 2)
    stopped = run(tmp_path / "parts", 3, 2)
    folder = latest(tmp_path / "parts" / "checkpoints")
    assert folder is not None
    kept = load_file(str(folder / "kept.safetensors"))
    assert stopped.reference is not None
    start = make("several tokens", SMALL).policy.state_dict()
    now = load_file(str(folder / "policy.safetensors"))
    for name, tensor in kept.items():
        assert torch.equal(tensor, stopped.reference.state_dict()[name])
    assert any(not torch.equal(kept[name], start[name]) for name in kept)
    assert any(not torch.equal(kept[name], now[name]) for name in kept)
    with pytest.warns(Notice, match="is now of 6"):
        run(tmp_path / "parts", 6, 2, resume=True)
    pair = [latest(tmp_path / name / "checkpoints") for name in ("whole", "parts")]
    for file in ("policy.safetensors", "kept.safetensors"):
        a, b = (load_file(str(folder / file)) for folder in pair if folder)
        assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_divergence_is_measured_from_the_last_refresh() -> None:
    stage = make("words", replace(SMALL, kl=0.1, kl_estimator="k1", reference_every=3))
    kls = []
    for number in range(7):
        kls.append(stage.step(number, GradientRecorder(stage.policy))["train/kl"])
        moved(stage.policy)
    assert [abs(kl) < 1e-6 for kl in kls] == [True, False, False, True, False, False, True]


def test_without_refreshes_a_checkpoint_has_no_second_policy(tmp_path: Path) -> None:
    run(tmp_path, 1, 0)
    folder = latest(tmp_path / "checkpoints")
    assert folder is not None and not (folder / "kept.safetensors").exists()
    with pytest.raises(CheckpointError, match=r"kept\.safetensors is damaged"):
        run(tmp_path, 1, 2, resume=True)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"kl_in": "reward"}, "--grpo.kl-in reward goes with a divergence"),
        ({"reference_every": 5}, "--grpo.reference-every goes with a divergence"),
        ({"kl": 0.1, "kl_in": "rewards"}, "in the loss or the reward, not in 'rewards'"),
        ({"entropy": -0.1}, "entropy"),
        ({"entropy": float("nan")}, "entropy"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        replace(SMALL, **settings).validate()
