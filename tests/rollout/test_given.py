"""Embeddings that rows read after their prompts, before their first action."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from latentgym.agents.answering import make_answer
from latentgym.episodes.protocol import Protocol
from latentgym.errors import UsageError
from latentgym.heads import MixtureHead, PolicyHead, RATTHead, TokenHead
from latentgym.lm import load_model
from latentgym.registry import make_vector_env
from latentgym.rollout import Engine, Policy, PrefixCache, Rollouts, collect, replay

HEADS: dict[str, Callable[[], PolicyHead]] = {
    "token": TokenHead,
    "mixture": lambda: MixtureHead(top_k=4),
    "ratt": lambda: RATTHead(32, 0.5),
}


def same(one: Rollouts, other: Rollouts) -> None:
    assert np.array_equal(one.token_NT, other.token_NT)
    assert np.array_equal(one.kind_NT, other.kind_NT)
    assert one.logp_NT is not None and other.logp_NT is not None
    assert_close(one.logp_NT, other.logp_NT, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("arch", ["llama", "gpt2"])
@pytest.mark.parametrize("name", HEADS)
def test_any_vectors_are_read_and_replayed(
    name: str, arch: str, random_lm: Callable, prompts: Any, protocol: Protocol
) -> None:
    policy = Policy(random_lm(arch), HEADS[name]())
    engine = Engine(policy, record_log_probs=True)
    given = torch.randn(len(prompts), 3, 32, generator=torch.Generator().manual_seed(0))
    found = engine.rollout(prompts, protocol, seed=3, group_size=3, given_QkD=given)
    repeated = Engine(policy, share_prompts=False, record_log_probs=True, compact_every=1)
    same(found, repeated.rollout(prompts, protocol, seed=3, group_size=3, given_QkD=given))
    bare = engine.rollout(prompts, protocol, seed=3, group_size=3)
    assert not np.array_equal(bare.token_NT, found.token_NT)
    some = found.select([9, 3, 4])
    for rollouts in (found, some, Rollouts.concatenate([found.select([0]), some])):
        with torch.no_grad():
            scores = replay(policy, rollouts)
        assert rollouts.logp_NT is not None
        expected = torch.where(scores.action_NT, rollouts.logp_NT, 0.0)
        assert_close(scores.joint(scores.logp_NT), expected, rtol=1e-4, atol=1e-4)
    alone = engine.start(
        prompts[2:3], protocol, seed=3, group_size=3, question_Q=[2], given_QkD=given[2:3]
    )
    alone.run()
    same(alone.finish(), found.select([6, 7, 8]))


def test_embeddings_of_tokens_are_these_tokens(
    random_lm: Callable, prompts: Any, protocol: Protocol
) -> None:
    lm = random_lm("qwen2")
    engine = Engine(Policy(lm, MixtureHead()), record_log_probs=True)
    more = torch.arange(60, 60 + 2 * len(prompts)).view(-1, 2)
    longer = [[*prompt, *ids] for prompt, ids in zip(prompts, more.tolist(), strict=True)]
    expected = engine.rollout(longer, protocol, seed=1, group_size=2)
    given = lm.embed(more).detach()
    same(engine.rollout(prompts, protocol, seed=1, group_size=2, given_QkD=given), expected)


def test_they_cost_positions_of_the_prompt() -> None:
    env = make_vector_env("latent/MNNS-continuous", 2)
    lm = load_model("tiny:gpt2:2x2x32", tokenizer=env.unwrapped.task.tokenizer)
    engine = Engine(Policy(lm, MixtureHead(), TokenHead()))
    costs = []
    for given in (None, torch.zeros(2, 5, 32)):
        episodes = collect(engine, env, [0, 1], seed=0, given_QkD=given)
        costs.append(make_answer(env.unwrapped.task, 0, episodes, np.array([0]), 0))
    assert costs[1].positions.prompt - costs[0].positions.prompt == 5
    assert costs[1].context - costs[0].context == 5


def test_what_does_not_fit_is_refused(
    random_lm: Callable, prompts: Any, protocol: Protocol
) -> None:
    engine = Engine(Policy(random_lm("llama"), TokenHead()))
    n = len(prompts)
    for shape in ((n, 32), (n + 1, 2, 32), (n, 2, 31)):
        with pytest.raises(UsageError, match=rf"are \({n}, k, 32\)"):
            engine.rollout(prompts, protocol, seed=0, given_QkD=torch.zeros(shape))
    with pytest.raises(UsageError, match="not both"):
        engine.start(
            prompts,
            protocol,
            seed=0,
            given_QkD=torch.zeros(n, 2, 32),
            prefix_cache=PrefixCache(engine.policy.lm),
        )
    with pytest.raises(UsageError, match="positions"):
        engine.rollout(prompts, protocol, seed=0, given_QkD=torch.zeros(n, 100_000, 32))
