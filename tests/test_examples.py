"""The examples run, and do what they say."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

EXAMPLES = Path(__file__).parents[1] / "examples"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # a dataclass looks itself up there
    spec.loader.exec_module(module)
    return module


def test_a_new_agent_learns_more_than_the_commonest_answer() -> None:
    rewards = load("new_agent").train(updates=150)
    assert np.mean(rewards[-20:]) > 0.45  # the commonest answer earns 0.37


@pytest.mark.parametrize(("family", "interface"), [("continuous", "mixture"), ("token", "token")])
def test_ppo_steers_a_model_inside(family: str, interface: str) -> None:
    ppo = load("ppo")
    o = ppo.Settings(
        env=f"latent/MNNS-{family}",
        interface=interface,
        dynamics="tiny:gpt2:1x2x16",
        num_envs=64,
        total_steps=64 * 8 * 2,
    )
    with torch.random.fork_rng(devices=[]):
        controller, curve = ppo.train(o)
    assert [steps for steps, _ in curve] == [512, 1024]
    accuracy = ppo.evaluate(o, controller, 128)
    assert accuracy == ppo.evaluate(o, controller, 128)  # without noise
    # A controller that says nothing is the model by itself.
    for parameter in controller.act.parameters():
        parameter.data.zero_()
    assert ppo.evaluate(o, controller, 128) == ppo.evaluate(o, None, 128)
