"""Rollouts in bf16: the correction against closed forms, and a step against its formula."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from latentgym.errors import Notice, UsageError
from latentgym.heads import GaussianHead, MultiTokenHead, PolicyHead, TokenHead
from latentgym.lm import LatentLM, load_model
from latentgym.registry import make_vector_env
from latentgym.rewards import Grade
from latentgym.rollout import Engine, Episodes, Policy, collect, log_probs, replay
from latentgym.testing.gradients import GradientRecorder
from latentgym.training import GRPO, GRPOConfig, Optimisation, Trainer, grpo
from latentgym.training.rollout_correction import RoundedPolicy, truncated_importance

HEADS: dict[str, tuple[Callable[[], PolicyHead], str]] = {
    "words": (TokenHead, "token"),
    "several tokens": (lambda: MultiTokenHead(3), "continuous"),
    "vectors": (lambda: GaussianHead(16, 8), "hybrid"),
}
SMALL = GRPOConfig(prompts=3, group_size=4, micro_batch=5, rollout_dtype="bfloat16")


def test_moments_are_those_of_the_distributions() -> None:
    """Of a policy that was moved by a known amount; every token once, weighted by mu."""
    generator = torch.Generator().manual_seed(0)
    logits_1V = 2 * torch.randn(1, 50, generator=generator)
    moved_1V = logits_1V + 1.5 * torch.randn(1, 50, generator=generator)
    mu, pi = logits_1V.log_softmax(-1), moved_1V.log_softmax(-1)
    found = truncated_importance(mu, pi, torch.ones(1, 50, dtype=torch.bool), cap=1.7)
    divergence = torch.nn.functional.kl_div(pi, mu, reduction="sum", log_target=True)
    assert (mu.exp() * found.kl_NT).sum() == pytest.approx(float(divergence), rel=1e-5)
    total = torch.minimum(pi.exp(), 1.7 * mu.exp()).sum()
    assert (mu.exp() * found.weight_NT).sum() == pytest.approx(float(total), rel=1e-5)
    assert torch.equal(found.truncated_NT, pi.exp() > 1.7 * mu.exp())
    assert 0 < int(found.truncated_NT.sum()) < 50


def test_what_is_no_action_is_not_weighted() -> None:
    wild = torch.tensor([[torch.nan, -torch.inf, -1.0]])
    found = truncated_importance(wild, wild + 0.5, torch.tensor([[False, False, True]]))
    assert found.weight_NT.tolist() == [[1.0, 1.0, pytest.approx(math.exp(0.5))]]
    assert found.kl_NT.tolist() == [[0.0, 0.0, -0.5]]
    assert not found.truncated_NT.any()


def make(name: str, config: GRPOConfig) -> GRPO:
    """A stage over chains of unequal length, half of which earn a reward."""
    head, family = HEADS[name]
    env = make_vector_env(f"latent/GSM8K-{family}", config.rows, source="sample", think=7, answer=4)

    def grade(index: int, completion: str, answer: str) -> Grade:
        return Grade(float(sum(map(ord, completion)) % 2), answer, "ok", {"correct": 0.0})

    env.unwrapped.task.grade = grade
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return GRPO(Policy(model(env.unwrapped.task.tokenizer), head()), env, config, 5)


def model(tokenizer: Any) -> LatentLM:
    lm: LatentLM = load_model("tiny:llama:1x2x16", tokenizer=tokenizer, mixed_precision=True)
    with torch.no_grad():  # a fresh model is so flat that tests of it would see little
        for parameter in lm.parameters():
            parameter.mul_(4)
    return lm


def still(losses: Iterable[Tensor]) -> float:
    """An update that moves nothing."""
    return float(sum(loss.detach() for loss in losses))


@pytest.mark.parametrize("name", HEADS)
def test_a_copy_that_rounds_nothing_trains_as_no_copy(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = make(name, replace(SMALL, rollout_dtype=None))
    monkeypatch.setattr(
        grpo, "RoundedPolicy", lambda policy, _: RoundedPolicy(policy, torch.float32)
    )
    copied = make(name, SMALL)
    seen = []
    for stage in (plain, copied):
        recorder = GradientRecorder(stage.policy)
        seen.append((stage.step(0, recorder), recorder.gradients))
    (expected, gradients), (found, others) = seen
    extra = {"train/rollout_kl", "train/rollout_truncated"}
    assert set(found) - set(expected) == extra
    assert all(abs(found[key]) < 1e-5 for key in extra)
    for key in set(expected) - {"rollout/seconds"}:
        assert found[key] == pytest.approx(expected[key], rel=1e-4, abs=1e-5), key
    torch.testing.assert_close(others, gradients, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("updates", [1, 2])
@pytest.mark.parametrize("name", HEADS)
def test_a_step_is_that_of_the_formula(
    name: str, updates: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The policy that acts was moved so far that some weights are cut off."""
    stage = make(name, replace(SMALL, updates=updates))
    assert stage.rounded is not None
    actor, kept = stage.rounded.policy, list[Episodes]()
    monkeypatch.setattr(stage.rounded, "refresh", lambda: None)
    with torch.no_grad():
        for parameter in actor.lm.parameters():
            parameter.mul_(1.2)
    answered = stage._answered
    monkeypatch.setattr(stage, "_answered", lambda *a: kept.append(answered(*a)) or kept[-1])
    metrics = stage.step(0, still)
    rollouts = kept[0].rollouts
    with torch.no_grad():
        mask_NT = replay(stage.policy, rollouts).action_NT
    pi, mu = log_probs(stage.policy, rollouts, 99)[mask_NT], rollouts.logp_NT
    assert mu is not None
    kl = mu[mask_NT] - pi
    weight = (-kl).exp().clamp(max=2.0)
    reward_QG = torch.from_numpy(kept[0].reward_N).view(3, 4)
    a_QG = (reward_QG - reward_QG.mean(1, keepdim=True)) / (reward_QG.std(1, keepdim=True) + 1e-9)
    a = a_QG.flatten()[:, None].expand(mask_NT.shape)[mask_NT].float()
    assert metrics["train/rollout_kl"] == pytest.approx(float(kl.mean()), rel=1e-3)
    truncated = float((-kl > torch.tensor(2.0).log()).float().mean())
    assert metrics["train/rollout_truncated"] == pytest.approx(truncated)
    assert 0 < truncated < 1
    assert metrics["train/loss"] == pytest.approx(float(-(weight * a).mean()), rel=1e-3, abs=1e-5)
    assert metrics["train/ratio"] == pytest.approx(1.0, abs=1e-5)


def test_the_copy_that_acts_is_the_policy_rounded_as_it_is_now() -> None:
    stage = make("words", SMALL)
    assert stage.rounded is not None
    with torch.no_grad():
        for parameter in stage.policy.lm.parameters():
            parameter.add_(0.01)
    stage.step(0, still)
    actor, learner = stage.rounded.policy, stage.policy
    for rounded, exact in zip(actor.lm.parameters(), learner.lm.parameters(), strict=True):
        assert torch.equal(rounded, exact.bfloat16()) and not rounded.requires_grad
        assert exact.dtype == torch.float32 and exact.requires_grad
    assert actor.head is learner.head
    assert {b.dtype for b in actor.lm.buffers()} == {b.dtype for b in learner.lm.buffers()}


def test_rollouts_are_those_of_a_model_in_bf16() -> None:
    stage = make("words", SMALL)
    questions = stage.order.batch(0)
    found = stage._answered(questions, 3).rollouts
    lm = load_model(
        "tiny:llama:1x2x16", tokenizer=stage.env.unwrapped.task.tokenizer, mixed_precision=True
    )
    lm.load_state_dict(stage.policy.lm.state_dict())
    for parameter in lm.parameters():
        parameter.data = parameter.data.bfloat16()
    engine = Engine(Policy(lm, TokenHead()))
    expected = collect(engine, stage.env, questions, group_size=4, seed=3).rollouts
    assert (found.token_NT == expected.token_NT).all()


def test_adapters_and_tied_weights_are_copied_as_they_are() -> None:
    env = make_vector_env("latent/GSM8K-token", 2, source="sample")
    lm = load_model(
        "tiny:gpt2:1x1x16", tokenizer=env.unwrapped.task.tokenizer, mixed_precision=True
    )
    lm.add_lora(2, 4)
    policy = Policy(lm, TokenHead())
    rounded = RoundedPolicy(policy, torch.bfloat16)
    copied = rounded.policy.lm
    assert copied.lm_head.weight is copied.table_VD
    with torch.no_grad():
        for name, parameter in lm.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.3)
    rounded.refresh()
    ids = torch.arange(4)[None]
    mask = torch.ones_like(ids, dtype=torch.bool)
    with torch.no_grad():
        narrow = copied.hidden(copied.embed(ids), mask).float()
        wide = lm.hidden(lm.embed(ids), mask)
    torch.testing.assert_close(narrow, wide, rtol=0.1, atol=0.1)


def test_a_resumed_run_ends_with_the_same_weights(tmp_path: Path) -> None:
    def trainer(out: Path, steps: int) -> Trainer:
        stage = make("words", replace(SMALL, updates=2))
        optimisation = Optimisation(lr=0.1, schedule="constant", warmup=0.0)
        return Trainer(stage, optimisation, steps, out=out)

    whole, first = trainer(tmp_path / "whole", 3), trainer(tmp_path / "parts", 1)
    whole.run()
    first.run()
    second = trainer(tmp_path / "parts", 3)
    with pytest.warns(Notice, match="steps"):
        second.run(resume=True)
    for a, b in zip(whole.policy.parameters(), second.policy.parameters(), strict=True):
        assert torch.equal(a, b)


def test_rollouts_in_another_type_are_refused() -> None:
    with pytest.raises(UsageError, match="cannot be in float16; choose bfloat16"):
        GRPOConfig(rollout_dtype="float16").validate()  # type: ignore[arg-type]
