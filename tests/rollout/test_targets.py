"""Right answers behind the thoughts of whole episodes: as behind thoughts that stop there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from latentgym.errors import UsageError
from latentgym.heads import GaussianHead, MixtureHead, TokenHead
from latentgym.lm import load_model
from latentgym.registry import make_vector_env
from latentgym.rollout import Engine, Policy, StepKind, collect, log_probs
from latentgym.rollout.targets import target_log_probs, think, with_right_answers

HEADS: dict[str, Callable[[], Any]] = {
    "token": lambda: TokenHead(),
    "hybrid": lambda: GaussianHead(32, 16),
    "continuous": lambda: MixtureHead(),
}
N = 5


@pytest.mark.parametrize("task", ["MNNS", "GSM8KAug"])
@pytest.mark.parametrize("family", HEADS)
def test_they_are_as_likely_as_behind_thoughts_alone(task: str, family: str) -> None:
    """MNNS has exact budgets; GSM8KAug a marker, which few find, and a forced prompt."""
    options = {"source": "generated", "force_answer": True} if task == "GSM8KAug" else {}
    env = make_vector_env(f"latent/{task}-{family}", 2 * N, **options)
    base: Any = env.unwrapped
    lm = load_model("tiny:gpt2:2x2x32", tokenizer=base.task.tokenizer)
    engine = Engine(Policy(lm, HEADS[family]()))
    questions = np.arange(N)
    episodes = collect(engine, env, questions, group_size=2, seed=3)
    right = with_right_answers(episodes, env)

    shown = [base.demonstration(i) for i in range(N)]
    targets = [d.ids_TS[d.thoughts :, 0].tolist() for d in shown]
    alone = think(engine, env, questions, group_size=2, seed=3)
    expected_NT, target_NT = target_log_probs(engine.policy, alone, targets, 2 * N)
    found_NT = log_probs(engine.policy, right, 2 * N)
    scored_NT = torch.from_numpy(right.kind_NT == StepKind.TARGET)
    assert_close(found_NT[scored_NT], expected_NT[target_NT], rtol=1e-4, atol=1e-4)
    for row, ids in enumerate(right.prompt_N):
        assert right.token_NT[row][right.kind_NT[row] == StepKind.TARGET].tolist() == targets[ids]


def test_an_episode_without_a_place_for_them_is_refused() -> None:
    env = make_vector_env("latent/GSM8KAug-token", N, source="generated")
    lm = load_model("tiny:gpt2:2x2x32", tokenizer=env.unwrapped.task.tokenizer)
    episodes = collect(Engine(Policy(lm, TokenHead())), env, np.arange(N), seed=0)
    with pytest.raises(UsageError, match="end before their answer"):
        with_right_answers(episodes, env)
