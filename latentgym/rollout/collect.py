"""Episodes: the engine thinks, a vector environment says when to stop, and grades.

Legend: Q questions, G samples each, N = Q * G rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from latentgym.episodes.protocol import Protocol
from latentgym.errors import UsageError
from latentgym.rollout.acting import Info, actor
from latentgym.rollout.engine import Engine
from latentgym.rollout.prefix_cache import PrefixCache
from latentgym.rollout.rollouts import IntArray, Rollouts
from latentgym.rollout.thoughts import Step, thought_steps

RETURN = "return"  # the info of what wrappers made of the reward, summed up over an episode
COUNTS = ("rollout/thoughts", "rollout/tokens", "rollout/truncated", "rollout/calls")


@dataclass
class Episodes:
    """Finished episodes.

    Attributes:
        rollouts: thoughts and answer tokens.
        reward_N: rewards, float64.
        infos: the final info of each row.
        protocol: the rules that they kept to; None for thoughts that no environment has graded.
        steps: the thoughts of each row to look at; empty unless the engine kept some.
    """

    rollouts: Rollouts
    reward_N: npt.NDArray[np.float64]
    infos: list[Info]
    protocol: Protocol | None = None
    steps: list[list[Step]] = field(default_factory=list)

    def component(self, name: str) -> npt.NDArray[np.float64]:
        """A number of every row's final info."""
        return np.array([info[name] for info in self.infos], dtype=np.float64)

    def counts(self) -> dict[str, npt.NDArray[Any]]:
        """What is logged of every row by its name in `COUNTS`; calls where the task has them."""
        rollouts = self.rollouts
        counts = [rollouts.thoughts_N, rollouts.tokens_N, rollouts.truncated_N]
        calls = [self.component("calls")] if "calls" in self.infos[0] else []
        return dict(zip(COUNTS, [*counts, *calls], strict=False))

    @staticmethod
    def played(
        engine: Engine,
        env: Any,
        rollouts: Rollouts,
        reward_N: npt.NDArray[np.float64],
        finals: Mapping[int, Info],
    ) -> Episodes:
        """Episodes of an environment that are over; with wrappers, infos have the return too."""
        kept = engine.keep_thoughts
        wrapped = env is not env.unwrapped  # else it is the score
        added = [{RETURN: float(reward)} if wrapped else {} for reward in reward_N]
        infos = [{**finals.get(row, {}), **more} for row, more in enumerate(added)]
        steps = thought_steps(engine.policy, rollouts, kept) if kept else []
        return Episodes(rollouts, reward_N, infos, env.unwrapped.protocol, steps)

    def select(self, rows: npt.ArrayLike) -> Episodes:
        """Some of the episodes."""
        rows = np.asarray(rows, dtype=np.int64)
        return Episodes(
            self.rollouts.select(rows),
            self.reward_N[rows],
            [self.infos[row] for row in rows],
            self.protocol,
            [self.steps[row] for row in rows] if self.steps else [],
        )

    @staticmethod
    def concatenate(parts: Sequence[Episodes]) -> Episodes:
        """The rows of all parts."""
        return Episodes(
            Rollouts.concatenate([part.rollouts for part in parts]),
            np.concatenate([part.reward_N for part in parts]),
            [info for part in parts for info in part.infos],
            parts[0].protocol,
            [row for part in parts for row in part.steps],
        )


def collect(
    engine: Engine,
    env: Any,
    questions: Sequence[int] | npt.NDArray[np.int64],
    *,
    group_size: int = 1,
    seed: int,
    first_sample: int | npt.NDArray[np.int64] = 0,
    prompts: Sequence[Sequence[int]] | None = None,
    prefix: Sequence[Sequence[int]] | None = None,
    prefix_cache: PrefixCache | None = None,
    noise_free: int = 0,
    given_QkD: Tensor | None = None,
) -> Episodes:
    """Roll out and grade `group_size` episodes of each question.

    Args:
        engine: with the policy.
        env: a vector environment with at least Q * G rows that leaves resets to the agent, such as
            `make_vector_env` gives, or one of the same interface (`protocol`, `prompt`,
            `step_segment`). Wrappers of rewards and infos may be around ours: it is stepped
            through them then, and infos have the return.
        questions: numbers of the questions.
        group_size: samples per question.
        seed: of the random numbers.
        first_sample: number of the first sample, a counter behind the random numbers; one for
            all questions or one for each.
        prompts: token ids to read in place of the environment's own prompts.
        prefix, prefix_cache, noise_free, given_QkD: see `Engine.start`.

    Raises:
        UsageError: the environment resets rows by itself, or has wrappers that change more.
    """
    index = np.asarray(questions, dtype=np.int64)
    n = index.size * group_size
    if not n:
        raise UsageError("there is no question to collect; give at least one number.")
    playing = actor(env)
    playing.reset(np.repeat(index, group_size))
    base = env.unwrapped
    session = engine.start(
        [base.prompt(int(i)) for i in index] if prompts is None else prompts,
        base.protocol,
        seed=seed,
        group_size=group_size,
        question_Q=index,
        first_sample=first_sample,
        prefix=prefix,
        prefix_cache=prefix_cache,
        noise_free=noise_free,
        given_QkD=given_QkD,
    )
    told = np.zeros(n, dtype=np.int64)
    reward = np.zeros(n)
    finals: dict[int, Info] = {}
    while True:
        session.run()
        rollouts = session.finish()
        tokens = [rollouts.action_tokens(row) for row in range(n)]
        taken = playing.take(
            [new[start:] for new, start in zip(tokens, told, strict=True)], session.waiting
        )
        told = np.array([len(row) for row in tokens])
        reward += taken.reward_N
        finals |= taken.finals
        if not taken.tool_responses:
            break
        rows = np.array(sorted(taken.tool_responses), dtype=np.int64)
        session.insert(rows, [taken.tool_responses[row] for row in rows.tolist()])
    return Episodes.played(engine, env, rollouts, reward, finals)


def collect_in_batches(
    engine: Engine,
    env: Any,
    questions: Sequence[int] | npt.NDArray[np.int64],
    *,
    group_size: int = 1,
    seed: int,
) -> Iterator[tuple[npt.NDArray[np.int64], Episodes]]:
    """`collect` over many questions.

    Yields:
        Positions in `questions`, and the episodes of those questions.
    """
    from latentgym.rollout.queue import Queue

    index = np.asarray(questions, dtype=np.int64)
    actor(env)  # or it cannot be played
    if env is env.unwrapped and not engine.compiled:
        yield from Queue(engine, env, index, group_size, seed).run()
        return
    # Wrappers see whole batches, step by step; and steps are compiled for few numbers of rows.
    for places in in_batches(env, index, group_size):
        yield places, collect(engine, env, index[places], group_size=group_size, seed=seed)


def in_batches(env: Any, questions: IntArray, group_size: int = 1) -> Iterator[IntArray]:
    """Positions in `questions`, as many at once as the environment has rows.

    Questions of like prompt length go together, so that little is padded.
    """
    order = by_length(env, questions)
    size = max(1, env.unwrapped.num_envs // group_size)
    for start in range(0, len(order), size):
        yield order[start : start + size]


def by_length(env: Any, questions: IntArray) -> IntArray:
    """Positions in `questions`, those of short prompts first."""
    lengths = np.array([len(env.unwrapped.prompt(int(i))) for i in questions])
    return np.argsort(lengths, kind="stable")
