"""A training step whose layers pack their weights is a plain one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from latentgym.heads import MixtureHead, MultiTokenHead
from latentgym.lm import load_model, packed, packed_training
from latentgym.lm.packed import Worth, available
from latentgym.registry import make_vector_env
from latentgym.rewards import Grade
from latentgym.rollout import Policy
from latentgym.training import (
    GRPO,
    GRPOConfig,
    Optimisation,
    Stage,
    Supervised,
    SupervisedConfig,
    Trainer,
)

pytestmark = pytest.mark.skipif(not available(), reason="this torch has no prepacked linear")

STAGES: dict[str, tuple[Any, Callable[[Policy, Any], Stage]]] = {
    "supervised": (MixtureHead, lambda p, env: Supervised(p, env, SupervisedConfig(8))),
    "policy gradient": (
        lambda: MultiTokenHead(2),
        lambda p, env: GRPO(p, env, GRPOConfig(prompts=4, group_size=4, updates=2)),
    ),
}


def grade(index: int, completion: str, answer: str) -> Grade:
    """A reward that an untrained model earns half of the time, so that there is a gradient."""
    return Grade(float(sum(map(ord, completion)) % 2), answer, "ok", {"correct": 0.0})


@pytest.mark.parametrize("recomputes", [False, True])
@pytest.mark.parametrize("name", STAGES)
def test_two_steps_are_plain_ones(
    name: str, recomputes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two, as the second is taken with weights that the optimiser has moved."""
    monkeypatch.setattr(packed, "LEAST", 1)
    for each in (packed, packed_training):
        monkeypatch.setattr(each, "worth", lambda *_: Worth(range(1, 1 << 30), 1))
    head, stage_of = STAGES[name]
    called: list[int] = []
    product = packed_training._product
    monkeypatch.setattr(
        packed_training, "_product", lambda *args: called.append(len(called)) or product(*args)
    )
    trained = []
    for packs in (False, True):
        env = make_vector_env("latent/MNNS-continuous", 16, limit=64)
        env.unwrapped.task.grade = grade
        tokenizer = env.unwrapped.task.tokenizer
        lm = load_model("tiny:llama:2x2x16", tokenizer=tokenizer, mixed_precision=True)
        if recomputes:
            lm.checkpoint_gradients()
        policy = Policy(lm, head())
        optimisation = Optimisation(lr=1e-2, eps=1e-3, schedule="constant", warmup=0.0)
        trainer = Trainer(stage_of(policy, env), optimisation, 2, packed=packs)
        metrics = [trainer.step(0), trainer.step(1)]
        assert bool(called) == packs
        assert not any("forward" in vars(module) for module in lm.modules())
        trained.append((metrics, [p.detach() for p in policy.parameters()]))
    (plain, expected), (found, weights) = trained
    torch.testing.assert_close(weights, expected, rtol=1e-4, atol=1e-5)
    for before, after in zip(plain, found, strict=True):
        assert after["train/grad_norm"] > 0
        for key in ("train/loss", "train/grad_norm"):
            assert after[key] == pytest.approx(before[key], rel=1e-4, abs=1e-6), key
