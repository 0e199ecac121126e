"""Episodes that were cut off: against the paper's formula, TRL's and OpenRLHF's, and row by row."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from latentgym.errors import UsageError
from latentgym.registry import make_vector_env
from latentgym.rollout import Engine, collect, replay
from latentgym.testing.gradients import GradientRecorder
from latentgym.training import GRPO, GRPOConfig
from latentgym.training.overlong import actions_left, overlong_penalty, penalised

from .by_hand import HEADS, Kept, policy_and_env, written_mean

SMALL = GRPOConfig(prompts=6, group_size=4, micro_batch=5)


def test_the_penalty_is_that_of_the_paper_of_trl_and_of_openrlhf() -> None:
    most, buffer = 20, 8
    length = np.arange(most + 1)
    found = overlong_penalty(most - length, buffer)
    paper = np.where(length <= most - buffer, 0.0, (most - buffer - length) / buffer)
    np.testing.assert_allclose(found, paper)

    rewards = pytest.importorskip("trl.rewards")
    theirs = rewards.get_soft_overlong_punishment(most, buffer)([[0] * n for n in length])
    np.testing.assert_allclose(found, theirs)

    pytest.importorskip("openrlhf")
    from latentgym.openrlhf.shim import install

    install()
    from openrlhf.trainer.ppo_utils.length_penalty import apply_overlong_penalty

    rewards_N = torch.zeros(len(length), dtype=torch.float64)
    experience = SimpleNamespace(response_length=torch.from_numpy(length), rewards=rewards_N)
    apply_overlong_penalty([experience], most, buffer)
    np.testing.assert_allclose(found, rewards_N.numpy())


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("force", [True, False])
def test_what_was_left_is_counted_of_the_budgets_that_cut_off(name: str, force: bool) -> None:
    policy, env = policy_and_env(name, 64, force_answer=force)
    with torch.no_grad():
        episodes = collect(Engine(policy), env, range(16), group_size=4, seed=1)
    rollouts, protocol = episodes.rollouts, env.unwrapped.protocol
    assert set(protocol.cutting) == ({"answer"} if force else {"think", "answer"})
    left_N = actions_left(protocol, rollouts)
    assert not left_N[rollouts.truncated_N].any()
    assert 0 < rollouts.truncated_N.sum() < 64 and left_N.max() > 0
    spent_N = rollouts.thoughts_N == 9  # without a marker, so that all tokens are the answer's
    assert spent_N.any()
    expected_N = 5 - rollouts.tokens_N if force else np.zeros(64)
    assert left_N[spent_N].tolist() == expected_N[spent_N].tolist()


def test_the_penalty_is_a_component_of_the_reward() -> None:
    policy, env = policy_and_env("words", 24)
    with torch.no_grad():
        episodes = collect(Engine(policy), env, range(24), seed=1)
    cut_N = episodes.rollouts.truncated_N
    for buffer in (0, 1, 4):
        found = penalised(episodes, buffer)
        added_N = found.component("reward/overlong")
        np.testing.assert_allclose(found.reward_N, episodes.reward_N + added_N)
        assert (added_N[cut_N] == -1).all() and (added_N >= -1).all() and (added_N <= 0).all()
        if buffer == 0:
            assert (added_N[~cut_N] == 0).all()
    assert any(-1 < penalty < 0 for penalty in added_N)
    assert "reward/overlong" not in episodes.infos[0]


@pytest.mark.parametrize("mean", ["token", "sequence", "sum", "phase"])
@pytest.mark.parametrize("name", HEADS)
def test_masked_episodes_take_no_part_in_the_loss(name: str, mean: str) -> None:
    """The gradient is that of the others alone, with advantages of whole groups."""
    policy, env = policy_and_env(name, SMALL.rows)
    stage = Kept(policy, env, replace(SMALL, truncated="mask", mean=mean), 5)
    recorder = GradientRecorder(policy)
    metrics = stage.step(0, recorder)
    rollouts = stage.episodes.rollouts
    learnt = np.flatnonzero(~rollouts.truncated_N)
    assert 0 < len(learnt) < SMALL.rows
    assert metrics["rollout/truncated"] == pytest.approx(rollouts.truncated_N.mean())

    reward_QG = stage.episodes.reward_N.reshape(-1, 4)
    spread_Q1 = reward_QG.std(1, ddof=1, keepdims=True) + 1e-9
    a = ((reward_QG - reward_QG.mean(1, keepdims=True)) / spread_Q1).ravel()
    rows = []
    for row in learnt:
        scores = replay(policy, rollouts.select([row]))
        acted = scores.action_NT
        rows.append((-a[row] * scores.logp_NT[acted], scores.thought_NT[acted]))
    expected = torch.autograd.grad(written_mean(rows, mean), list(policy.lm.parameters()))
    for mine, theirs in zip(recorder.lm_gradients, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=2e-3, atol=1e-5)


def test_a_step_whose_episodes_were_all_cut_off_learns_nothing() -> None:
    policy, env = policy_and_env("words", SMALL.rows)
    stage = Kept(policy, env, replace(SMALL, truncated="mask", dynamic_sampling=1), 5)
    stage._learnt = lambda episodes: np.zeros(len(episodes.rollouts), bool)  # type: ignore[method-assign]
    recorder = GradientRecorder(policy)
    metrics = stage.step(0, recorder)
    assert not recorder.losses and "train/loss" not in metrics
    assert metrics["train/groups_drawn_again"] == SMALL.prompts  # none of them teaches


def test_a_step_learns_from_the_reward_with_its_penalty() -> None:
    policy, env = policy_and_env("words", SMALL.rows)
    config = replace(SMALL, truncated="penalty", overlong_buffer=3)
    stage = Kept(policy, env, config, 5)
    metrics = stage.step(0, GradientRecorder(policy))
    plain = stage.episodes.reward_N
    assert metrics["reward/overlong"] < 0
    assert metrics["reward/score"] == pytest.approx(plain.mean() + metrics["reward/overlong"])


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"truncated": "msk"}, "did you mean 'mask'"),
        ({"overlong_buffer": 3}, "goes with --grpo.truncated penalty"),
        ({"truncated": "mask", "reward": "perplexity"}, "are not cut off"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(
    settings: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(UsageError, match=sentence):
        replace(SMALL, **settings).validate()


def test_budgets_that_do_not_fit_are_refused() -> None:
    policy, env = policy_and_env("words", SMALL.rows)
    config = replace(SMALL, truncated="penalty", overlong_buffer=6)
    with pytest.raises(UsageError, match="more than the budget answer of 5 steps; give at most 5"):
        GRPO(policy, env, config)
    exact = make_vector_env("latent/MNNS-continuous", SMALL.rows)
    with pytest.raises(UsageError, match="no budget of this environment cuts an episode off"):
        GRPO(policy, exact, replace(config, overlong_buffer=0))
