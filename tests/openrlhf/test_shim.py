"""The shim: only what is missing, only while it is needed, and loud when OpenRLHF changes."""

from __future__ import annotations

import importlib.util
import inspect
import sys
from dataclasses import replace
from typing import Any

import pytest
import torch

pytest.importorskip("openrlhf", reason="needs OpenRLHF (see the README)")

from latentgym.errors import UsageError
from latentgym.openrlhf import shim


def test_nothing_is_touched_where_everything_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    forbidden = ("_patch_cuda", "_patch_replay_buffer", "_placeholders")
    for name in forbidden:
        monkeypatch.setattr(shim, name, lambda *_: pytest.fail("touched a whole machine"))
    assert shim.install.__wrapped__() == {"placeholders": [], "cpu": False}


def test_placeholders_leave_and_raise() -> None:
    report = shim.install()
    for package in report["placeholders"]:
        assert not any(n == package or n.startswith(f"{package}.") for n in sys.modules)
        assert importlib.util.find_spec(package) is None
    if "vllm" in report["placeholders"]:
        from openrlhf.trainer.ppo_utils.samples_generator import SamplingParams

        with pytest.raises(RuntimeError, match=r"vllm\.SamplingParams is called, but vllm"):
            SamplingParams(temperature=1.0)


def test_installing_twice_is_installing_once() -> None:
    assert shim.install() is shim.install()


def test_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.metadata.version", lambda name: "0.12.0")
    with pytest.raises(UsageError, match=r"written for OpenRLHF 0\.11\.2, but 0\.12\.0"):
        shim.install.__wrapped__()


def test_names_that_are_rebound_are_there() -> None:
    """An upgrade of OpenRLHF must fail here, not on a cluster."""
    shim.install()
    from openrlhf.trainer import ppo_trainer
    from openrlhf.trainer.ppo_utils import samples_generator
    from openrlhf.trainer.ppo_utils.replay_buffer import NaiveReplayBuffer
    from openrlhf.trainer.ray import launcher, ppo_actor
    from openrlhf.utils.deepspeed import deepspeed

    for module, names in {
        ppo_trainer: "get_tokenizer prepare_datasets SamplesGenerator RemoteExperienceMaker tqdm",
        samples_generator: "tqdm",
        ppo_actor: "Actor get_tokenizer",
        launcher: "Actor",
        deepspeed: "get_scheduler",
    }.items():
        for name in names.split():
            assert hasattr(module, name), f"{module.__name__} has no {name}"
    for owner, method in {
        shim.plain(ppo_trainer.PPOTrainer): "save_logs_and_checkpoints",
        samples_generator.SamplesGenerator: "_dispatch_prompts_to_vllm",
        deepspeed.DeepspeedStrategy: "_get_model_parameters",
    }.items():
        assert callable(getattr(owner, method))
    assert "sample_batch_size" in inspect.signature(NaiveReplayBuffer.__init__).parameters


def test_the_optimisers_settings_arrive(make_job: Any) -> None:
    from latentgym.openrlhf.arguments import arguments

    job = make_job()
    how = replace(job.optimisation, beta2=0.95, eps=3e-5)
    adam = arguments(replace(job, optimisation=how)).actor.adam
    assert (adam.lr, adam.betas[1], adam.eps) == (how.lr, 0.95, 3e-5)
