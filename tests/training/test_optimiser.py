"""How weights move: all of them however small the step, and without a gradient only what decays."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.testing import assert_close

from latentgym.errors import CheckpointError, Notice, UsageError
from latentgym.heads import GatedHead, MixtureHead, MultiTokenHead, TokenHead
from latentgym.lm import LatentLM, load_model
from latentgym.registry import make_vector_env
from latentgym.rewards import Grade
from latentgym.rollout import Policy
from latentgym.training import (
    GRPO,
    GRPOConfig,
    Metrics,
    Optimisation,
    Stage,
    Supervised,
    SupervisedConfig,
    Trainer,
    Update,
)
from latentgym.training import checkpoint as checkpoints
from latentgym.training.manifest import latest
from latentgym.training.optimizers import flat

TINY_STEPS = Optimisation(lr=1e-6, schedule="constant", warmup=0.0)


def model(env: Any, **options: Any) -> LatentLM:
    lm: LatentLM = load_model(
        "tiny:llama:2x2x32", tokenizer=env.unwrapped.task.tokenizer, device="cpu", **options
    )
    return lm


def supervised(**options: Any) -> Stage:
    env = make_vector_env("latent/MNNS-continuous", 1)
    return Supervised(Policy(model(env, **options), MixtureHead()), env, SupervisedConfig(16))


def grpo(**options: Any) -> Stage:
    env = make_vector_env("latent/MNNS-continuous", 32)

    def grade(index: int, completion: str, answer: str) -> Grade:
        return Grade(float(sum(map(ord, completion)) % 2), answer, "ok", {"correct": 0.0})

    env.unwrapped.task.grade = grade
    policy = Policy(model(env, **options), MultiTokenHead(3))
    return GRPO(policy, env, GRPOConfig(prompts=8, group_size=4))


@pytest.mark.parametrize("make", [supervised, grpo])
@pytest.mark.parametrize("dtype", ["bfloat16", pytest.param("float32", marks=pytest.mark.thorough)])
def test_small_steps_move_the_weights(make: Any, dtype: str) -> None:
    stage = make(dtype=dtype, mixed_precision=True)
    before = {name: p.detach().clone() for name, p in stage.policy.named_parameters()}
    Trainer(stage, TINY_STEPS, 20).run()
    moved = sum(int((p != before[name]).sum()) for name, p in stage.policy.named_parameters())
    assert moved > 0.99 * sum(p.numel() for p in before.values())


@pytest.mark.parametrize("make", [supervised, grpo])
def test_weights_in_which_small_steps_are_lost_are_refused(make: Any) -> None:
    stage = make(dtype="bfloat16")
    with pytest.raises(UsageError, match=r"are bfloat16, .* mixed_precision=True"):
        Trainer(stage, TINY_STEPS, 20)
    stage.policy.lm.requires_grad_(False)
    stage.policy.head.scale = torch.nn.Parameter(torch.ones(1))
    Trainer(stage, TINY_STEPS, 20)  # frozen weights may be of any precision


class Nothing(Stage):
    """Steps without anything to learn."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy

    def step(self, number: int, update: Update) -> Metrics:
        parts = [p.sum() for p in self.policy.parameters() if p.requires_grad]
        update([0 * torch.stack(parts).sum()])
        return {}


def gated(seed: int = 0) -> Policy:
    env = make_vector_env("latent/MNNS-hybrid", 1)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Policy(model(env), GatedHead(32, TokenHead(), r_min=0.95, lambda_lr=1e-2))


def test_without_a_gradient_only_matrices_move() -> None:
    """The gate must not open by decay alone."""
    policy = gated()
    ids = {"token": torch.arange(policy.lm.vocab_size)}
    before = {name: p.detach().clone() for name, p in policy.named_parameters()}
    share = policy.head.statistics(ids, policy.lm.table_VD)["share"].mean()
    Trainer(Nothing(policy), Optimisation(lr=3e-4, weight_decay=0.5, schedule="constant"), 30).run()
    for name, p in policy.named_parameters():
        assert torch.equal(p, before[name]) == (p.ndim < 2), name
    assert policy.head.statistics(ids, policy.lm.table_VD)["share"].mean() < share + 1e-3


@pytest.mark.filterwarnings("ignore::latentgym.system.sealed.UnverifiedWarning")
def test_a_run_whose_optimiser_had_other_groups_is_not_resumed(
    tmp_path: Path, changed: Any
) -> None:
    """Before vectors had groups of their own, a checkpoint had parameters in another order."""

    def trainer(out: Path) -> Trainer:
        return Trainer(Nothing(gated()), Optimisation(), 2, out=out)

    trainer(tmp_path).run()
    folder = latest(tmp_path / "checkpoints")
    assert folder is not None
    file = folder / "optimizer.safetensors"
    now = [p for group in gated().parameter_groups(1.0) for p in group["params"]]
    then: list[Tensor] = list(gated().parameters())
    assert [p.shape for p in now] != [p.shape for p in then]
    state = {"rng": load_file(str(file))["rng"]}
    for i, p in enumerate(then):
        state[f"{i}/step"] = torch.tensor(2.0)
        state[f"{i}/exp_avg"], state[f"{i}/exp_avg_sq"] = p.detach().clone(), p.detach().square()
    save_file(state, str(file))
    # They came later.
    changed(folder / "manifest.json", lambda manifest: manifest.pop("files"), older=True)
    with pytest.raises(CheckpointError, match=r"in other groups, .* another run .*--checkpoint"):
        trainer(tmp_path).run(resume=True)
    checkpoints.load_weights(tmp_path, gated(1))  # its weights are good


@pytest.mark.parametrize("optimizer", ["adamw", "soap", "adamw-8bit"])
def test_a_resumed_run_ends_with_the_same_weights(tmp_path: Path, optimizer: str) -> None:
    if optimizer == "soap":
        pytest.importorskip("pytorch_optimizer", reason="pip install 'latentgym[soap]'")
    if optimizer == "adamw-8bit":
        pytest.importorskip("bitsandbytes", reason="pip install 'latentgym[bitsandbytes]'")
    # Beyond step 10, at which SOAP renews its preconditioner, and in the middle of a period.
    how = Optimisation(lr=1e-3, optimizer=optimizer, schedule="constant", warmup=0.0)
    whole = Trainer(supervised(), how, 14, out=tmp_path / "whole")
    whole.run()
    Trainer(supervised(), how, 12, out=tmp_path / "parts").run()
    parts = Trainer(supervised(), how, 14, out=tmp_path / "parts")
    with pytest.warns(Notice, match="of 12 steps and is now of 14"):
        parts.run(resume=True)
    for one, other in zip(whole.policy.parameters(), parts.policy.parameters(), strict=True):
        assert torch.equal(one, other)
    ends = [flat(run.optimizer) for run in (whole, parts)]
    assert ends[0].keys() == ends[1].keys()
    assert all(torch.equal(x, ends[1][name]) for name, x in ends[0].items())


def test_epsilon_is_adams() -> None:
    """After one step from nothing a weight has moved by lr g / (|g| + epsilon)."""
    moved = []
    for eps in (1e-8, 1.0):
        stage = supervised()
        weight = next(iter(stage.policy.parameters()))
        before = weight.detach().clone()
        how = Optimisation(lr=1e-3, eps=eps, weight_decay=0.0, schedule="constant", warmup=0.0)
        Trainer(stage, how, 1).run()
        assert weight.grad is not None
        expected = before - 1e-3 * weight.grad / (weight.grad.abs() + eps)
        assert_close(weight.detach(), expected, rtol=1e-5, atol=1e-7)
        moved.append(float((weight.detach() - before).abs().max()))
    assert moved[1] < 0.5 * moved[0]


def test_optimisers_that_are_not_there_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="choose adamw, soap, adamw-8bit or paged-adamw-8bit"):
        Optimisation(optimizer="sgd").validate()
    with pytest.raises(UsageError, match=r"--optimisation\.eps must be at least 1e-12"):
        Optimisation(eps=0.0).validate()
    monkeypatch.setitem(sys.modules, "pytorch_optimizer", None)
    with pytest.raises(UsageError, match=r"pip install 'latentgym\[soap\]'"):
        Trainer(supervised(), Optimisation(optimizer="soap"), 1)
