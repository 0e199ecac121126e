"""The likelihood of right answers after what a policy has thought, and the reward made of it.

"Reinforced Latent Reasoning for LLM-based Recommendation" (arXiv 2505.19092) rewards a chain of
thought with minus the perplexity of the right answer behind it. No answer is decoded, and the
reward is dense; it says nothing of what the policy would have answered.

Legend: N rows, T steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from latentgym.episodes.protocol import Phase, Protocol
from latentgym.errors import UsageError
from latentgym.heads.distributions import masked
from latentgym.rollout.acting import unstepped
from latentgym.rollout.collect import Episodes
from latentgym.rollout.engine import Engine
from latentgym.rollout.policy import Policy
from latentgym.rollout.replay import log_probs
from latentgym.rollout.rollouts import IntArray, Rollouts, StepKind
from latentgym.rollout.states import states


def think(
    engine: Engine,
    env: Any,
    questions: IntArray,
    *,
    group_size: int,
    seed: int,
    noise_free: int = 0,
) -> Rollouts:
    """Chains of thought alone, up to where their answers would begin.

    Args:
        engine: with the policy.
        env: gives prompts and rules; it is not stepped.
        questions: numbers of the questions.
        group_size: chains of each.
        seed: of the random numbers.
        noise_free: see `Engine.start`.

    Raises:
        UsageError: the environment has wrappers, or a chain may end without an answer, or wait for
            the environment.
    """
    env = unstepped(env, "a reward of how well thoughts foresee the answer")
    session = engine.start(
        [env.prompt(int(i)) for i in questions],
        env.protocol,
        seed=seed,
        group_size=group_size,
        question_Q=questions,
        noise_free=noise_free,
    )
    session.run(answers=False)
    _ = session.decode_state  # or a chain has no place for an answer
    return session.finish()


def with_targets(rollouts: Rollouts, targets: Sequence[Sequence[int]]) -> Rollouts:
    """Rollouts with the tokens of a target after each row, to be scored.

    Args:
        rollouts: N rows, of chains that end with their thoughts, such as `think` gives; behind
            whole episodes see `with_right_answers`.
        targets: token ids for each of their prompts.
    """
    length_N = rollouts.length_N
    added_N = np.array([len(targets[prompt]) for prompt in rollouts.prompt_N])
    more = int((length_N + added_N).max()) - rollouts.token_NT.shape[1]
    wide = ((0, 0), (0, max(0, more)))
    token_NT, kind_NT = np.pad(rollouts.token_NT, wide), np.pad(rollouts.kind_NT, wide)
    step = np.arange(token_NT.shape[1])
    place_NT = (step >= length_N[:, None]) & (step < (length_N + added_N)[:, None])
    token_NT[place_NT] = np.concatenate([targets[prompt] for prompt in rollouts.prompt_N])
    kind_NT[place_NT] = StepKind.TARGET
    actions = {
        name: torch.cat([x, x.new_zeros(len(x), max(0, more), *x.shape[2:])], dim=1)
        for name, x in rollouts.actions.items()
    }
    return replace(rollouts, token_NT=token_NT, kind_NT=kind_NT, actions=actions, logp_NT=None)


def with_right_answers(episodes: Episodes, env: Any) -> Rollouts:
    """The thoughts of finished episodes with the right answers after them, in place of their own.

    Args:
        episodes: of that environment.
        env: the environment; its demonstrations end with the right answers.

    Raises:
        UsageError: an episode ended before its answer.
    """
    rollouts = episodes.rollouts
    begin_N = _answers_begin(episodes.protocol, rollouts)
    if (begin_N < 0).any():
        raise UsageError(
            "some episodes end before their answer, so there is no place for the right one; use an "
            "environment that forces answers (force_answer=True), or larger budgets."
        )
    before_NT = np.arange(rollouts.kind_NT.shape[1]) < begin_N[:, None]
    kind_NT = np.where(before_NT, rollouts.kind_NT, StepKind.PAD).astype(np.int8)
    first_Q = np.unique(rollouts.prompt_N, return_index=True)[1]
    shown = [env.unwrapped.demonstration(int(rollouts.question_N[n])) for n in first_Q]
    answers = [d.ids_TS[d.thoughts :, 0].tolist() for d in shown]
    return with_targets(replace(rollouts, kind_NT=kind_NT), answers)


def _answers_begin(protocol: Protocol | None, rollouts: Rollouts) -> IntArray:
    """The step at which each row begins to answer by itself; -1 where it never does."""
    assert protocol is not None  # thoughts that no environment has graded have no answers
    begin_N = np.full(len(rollouts), -1)
    for t, state in zip(range(rollouts.kind_NT.shape[1]), states(protocol, rollouts), strict=False):
        begin_N[(begin_N < 0) & (state.phase == Phase.ANSWER) & (state.forced_left == 0)] = t
    return begin_N


def target_log_probs(
    policy: Policy, rollouts: Rollouts, targets: Sequence[Sequence[int]], micro_batch: int
) -> tuple[Tensor, Tensor]:
    """Log-probability of each token of a target after each row.

    Args:
        policy: scores them with its answer head.
        rollouts: N rows.
        targets: token ids for each of their prompts.
        micro_batch: most rows at once.

    Returns:
        fp32 (N, T), and which of the T steps are of the target; on the CPU.
    """
    scored = with_targets(rollouts, targets)
    logp_NT = log_probs(policy, scored, micro_batch).cpu()
    return logp_NT, torch.from_numpy(scored.kind_NT == StepKind.TARGET)


def perplexity_reward(logp_NT: Tensor, target_NT: Tensor) -> Tensor:
    """Minus the perplexity of each row's target: -exp(mean over its tokens of -log p).

    Args:
        logp_NT: log-probabilities in nats.
        target_NT: which steps are tokens of the target, bool; one or more in each row.

    Returns:
        (N,), at most -1; differentiable.
    """
    return -(-masked(logp_NT, target_NT).sum(-1) / target_NT.sum(-1)).exp()


def foreseen(
    engine: Engine,
    env: Any,
    questions: IntArray,
    *,
    group_size: int,
    seed: int,
    micro_batch: int,
    scorer: Policy,
    noise_free: int = 0,
) -> Episodes:
    """Chains of thought, rewarded by how well they foresee the right answer (LatentR3).

    Args:
        engine, env, questions, group_size, seed, noise_free: see `think`.
        micro_batch: most rows that are scored at once.
        scorer: tells how likely the answers are; the engine's policy, or one that it is a copy of.

    Returns:
        Episodes that end with their thoughts; `reward/perplexity` is the negative reward.
    """
    rollouts = think(
        engine, env, questions, group_size=group_size, seed=seed, noise_free=noise_free
    )
    shown = [env.unwrapped.demonstration(int(i)) for i in questions]
    targets = [d.ids_TS[d.thoughts :, 0].tolist() for d in shown]
    logp_NT, target_NT = target_log_probs(scorer, rollouts, targets, micro_batch)
    reward_N = perplexity_reward(logp_NT, target_NT).double().numpy()
    infos = [{"reward/perplexity": -reward} for reward in reward_N.tolist()]
    return Episodes(rollouts, reward_N, infos)
