"""Settings that would change nothing are found, and those that change something are not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from latentgym.agents.base import agent_class, preset
from latentgym.agents.effect import goes_with, idle
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
        ("cot", None, {"temperature": 0.7, "top_p": 0.9}, False, []),
        ("cot", None, {"top_p": 0.9}, False, ["top_p"]),  # a greedy head cuts nothing off
        ("cot", None, {"top_p": 0.9}, True, ["top_p"]),
        ("cot", None, {"vote": "majority"}, False, ["vote"]),
        ("cot", "self-consistency", {"vote": "first"}, False, []),
        ("cot", None, {"train_temperature": 0.5}, True, ["train_temperature"]),
        ("cot", "grpo-tiny", {"train_temperature": 0.5}, True, []),
        ("hrpo", None, {"r_min": 0.9}, False, []),
        ("hrpo", None, {"temperature": 0.9, "top_k": 7}, False, []),
        ("hrpo", None, {"gate_lr": 0.1, "lambda_lr": 0.1}, False, ["gate_lr", "lambda_lr"]),
        ("hrpo", None, {"gate_lr": 0.1, "lambda_lr": 0.1}, True, []),
        ("hrpo", None, {"official_padding": True}, False, ["official_padding"]),
        ("hrpo", None, {"official_temperature": True}, False, ["official_temperature"]),
        ("hrpo", None, {"official_padding": True, "official_temperature": True}, True, []),
        ("colar-grpo", None, {"answer_top_p": 0.5}, False, []),
        (
            "colar-grpo",
            None,
            {"answer_top_p": 0.5, "answer_temperature": 0.0},
            False,
            ["answer_top_p"],
        ),
        ("colar-grpo", None, {"density": "sum"}, False, ["density"]),
        ("swireasoning", None, {"window": 16}, False, []),  # a head with a state
        ("soft-thinking", None, {"top_k": 5, "top_p": 0.5, "temperature": 0.9}, False, []),
        ("mts-grpo", "dirichlet", {"gamma": 2.0}, False, []),
        ("best-of-n", None, {"samples": 5}, False, []),
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


@pytest.mark.parametrize(
    ("agent", "change", "training", "partner"),
    [
        ("mts-grpo", {"k": 6}, True, ("stage", "grpo")),
        ("mts-grpo", {"k": 6}, False, ("thoughts", "mts")),
        ("mts-grpo", {"gamma": 2.0}, True, ("thoughts", "dirichlet")),
        ("cot", {"top_p": 0.9}, False, ("temperature", 1.0)),
        ("cot", {"vote": "majority"}, False, None),  # it takes samples, and a temperature
        ("cot", {"train_temperature": 0.5}, True, ("stage", "grpo")),
        ("hrpo", {"gate_lr": 0.1}, False, None),  # nobody learns
    ],
)
def test_what_a_setting_goes_with_is_found(
    agent: str,
    change: dict[str, Any],
    training: bool,
    partner: tuple[str, Any] | None,
    random_lm: Callable[..., LatentLM],
) -> None:
    cls, lm = agent_class(agent), random_lm()
    default, (name, *_) = preset(cls, None), change
    given = replace(default, **change)
    assert goes_with(cls, given, default, lm, name, training=training) == partner
    if partner is not None:
        with_it = replace(default, **{partner[0]: partner[1]})
        assert not idle(cls, replace(with_it, **change), with_it, lm, training=training)
