"""Steps that torch's compiler takes as a whole: one graph, compiled once, with equal results."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch._dynamo
from torch.testing import assert_close

from latentgym.episodes.protocol import Budget, Protocol
from latentgym.errors import UsageError
from latentgym.heads import DirichletHead, PolicyHead, TokenHead
from latentgym.rollout import Engine, Policy, Rollouts
from latentgym.rollout.compiled import whole_groups

from .conftest import HEADS, table

FEW = ("token",)


class Counter:
    """A compiler that leaves graphs as they are, and counts them."""

    def __init__(self) -> None:
        self.graphs = 0

    def __call__(self, graph: Any, inputs: Any) -> Callable[..., Any]:
        self.graphs += 1
        forward: Callable[..., Any] = graph.forward
        return forward


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter]:
    counter = Counter()
    torch._dynamo.reset()
    monkeypatch.setattr("latentgym.rollout.compiled.BACKEND", counter)
    yield counter
    torch._dynamo.reset()


def same(one: Rollouts, other: Rollouts) -> None:
    assert np.array_equal(one.token_NT, other.token_NT)
    assert np.array_equal(one.kind_NT, other.kind_NT)
    assert np.array_equal(one.terminated_N, other.terminated_N)
    for name, value in one.actions.items():
        assert_close(value, other.actions[name], rtol=1e-3, atol=1e-4)
    assert one.logp_NT is not None and other.logp_NT is not None
    assert_close(one.logp_NT, other.logp_NT, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "name", [n if n in FEW else pytest.param(n, marks=pytest.mark.thorough) for n in HEADS]
)
def test_compiled_is_eager(
    name: str, compiler: Counter, random_lm: Callable, prompts: Any, protocol: Protocol
) -> None:
    head: PolicyHead = HEADS[name]()
    eager = Engine(Policy(random_lm("llama"), head), record_log_probs=True, keep_thoughts=2)
    compiled = replace(eager, compile=True)
    if isinstance(head, DirichletHead):
        with pytest.raises(UsageError, match=r"DirichletHead cannot be compiled.*leave compile"):
            compiled.rollout(prompts, protocol, seed=1)
        return
    plain = eager.rollout(prompts, protocol, seed=1, group_size=2)
    same(plain, compiled.rollout(prompts, protocol, seed=1, group_size=2))
    graphs = compiler.graphs
    compiled.rollout(prompts, protocol, seed=1, group_size=2)
    assert 0 < compiler.graphs == graphs, "nothing is compiled twice"


def test_a_graph_serves_all_steps_of_a_capacity(
    compiler: Counter, random_lm: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("latentgym.lm.fixed_cache._CAPACITY", 8)
    engine = Engine(Policy(random_lm("llama"), TokenHead()), compile=True)
    rules = Protocol(think=Budget(14, exact=True), answer=Budget(0))
    for seed in range(3):
        engine.rollout([[5, 6]], rules, seed=seed, group_size=4)
        assert compiler.graphs == 2, "up to 8 positions, and up to 16"


@pytest.mark.thorough
def test_what_the_environment_inserts_is_read(compiler: Counter, random_lm: Callable) -> None:
    rules = Protocol(think=Budget(12), answer=Budget(3), tool_call=table(1, 0), max_tool_calls=3)
    eager = Engine(Policy(random_lm("llama"), TokenHead()), record_log_probs=True)
    found = []
    for engine in (eager, replace(eager, compile=True)):
        session = engine.start([[5], [6, 7]], rules, seed=3, group_size=3)
        session.run()
        assert session.waiting.size
        while session.waiting.size:
            session.insert(session.waiting, [[65] * (1 + row % 3) for row in session.waiting])
            session.run()
        found.append(session.finish())
    same(*found)


@pytest.mark.thorough
def test_torchs_own_compiler(random_lm: Callable, prompts: Any, protocol: Protocol) -> None:
    torch._dynamo.reset()
    eager = Engine(Policy(random_lm("llama"), TokenHead()), record_log_probs=True)
    plain = eager.rollout(prompts, protocol, seed=1, group_size=2)
    same(plain, replace(eager, compile=True).rollout(prompts, protocol, seed=1, group_size=2))


def test_other_blocks_are_refused(random_lm: Callable) -> None:
    engine = Engine(Policy(random_lm("gpt2"), TokenHead()), compile=True)
    with pytest.raises(UsageError, match=r"blocks of Llama or Qwen2.*leave compile out"):
        engine.rollout([[5]], Protocol(think=Budget(2), answer=Budget(1)), seed=0)


@pytest.mark.parametrize(
    ("going", "kept"),
    [
        ([1, 1, 1, 1, 1, 1], [0, 1, 2]),
        ([0, 1, 0, 0, 0, 0], [0]),
        ([0, 0, 0, 0, 1, 0], [2]),
        ([0, 1, 0, 0, 0, 1], [0, 2]),
        ([0, 0, 0, 0, 0, 0], [0]),
    ],
)
def test_groups_stay_whole_in_powers_of_two(going: list[int], kept: list[int]) -> None:
    places = whole_groups(torch.tensor(going).bool(), 2)
    assert places.tolist() == [2 * group + i for group in kept for i in range(2)]
