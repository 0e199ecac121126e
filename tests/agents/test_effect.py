"""Settings that would change nothing are found, and those that change something are not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from latentgym.agents.base import agent_class, preset
from latentgym.agents.effect import idle
from latentgym.lm import LatentLM


@pytest.mark.parametrize(
    ("agent", "name", "change", "training", "found"),
    [
        ("mts-grpo", None, {"k": 6}, True, ["k"]),  # csft thinks in whole mixtures
        ("mts-grpo", "grpo", {"k": 6}, True, []),
        ("mts-grpo", None, {"gamma": 2.0, "dropout": 0.2}, True, ["gamma"]),
        ("cot", None, {"batch_size": 8}, True, []),
        ("cot", None, {"batch_size": 8}, False, ["batch_size"]),
        ("cot", None, {"samples": 4, "temperature": 0.7}, False, []),
        ("hrpo", None, {"r_min": 0.9}, False, []),
        ("coconut", None, {"thought": "none"}, False, []),
        ("latentr3", "rl-tiny", {"stage": "sft"}, True, []),
    ],
)
def test_each_setting_is_told_by_what_it_changes(
    agent: str,
    name: str | None,
    change: dict[str, Any],
    training: bool,
    found: list[str],
    random_lm: Callable[..., LatentLM],
) -> None:
    cls, lm = agent_class(agent), random_lm()
    default = preset(cls, name)
    before = [(p.requires_grad, p.dtype) for p in lm.parameters()]
    assert idle(cls, replace(default, **change), default, lm, training=training) == found
    assert [(p.requires_grad, p.dtype) for p in lm.parameters()] == before
