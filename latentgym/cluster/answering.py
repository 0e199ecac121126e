"""Answering spread over the workers of a Ray cluster.

Questions are independent and randomness is counter-based, so many workers give the answers and
scores that one process gives. Only what depends on who shares a batch differs: the clock,
`forward_positions.discarded`, and which thoughts `latent/...` metrics look at.

Ray is imported where it is used, not before.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

import numpy as np

from latentgym.cluster.connection import ClusterError, connected
from latentgym.errors import LatentGymError, UsageError
from latentgym.evaluation.answers import Answer, Answered, Answerer, Identity, IntArray

_PARTS_PER_WORKER = 4  # so that nobody waits long for the slowest

Worker = TypeVar("Worker")
Part = TypeVar("Part")
Pending = TypeVar("Pending")


class Answerable(Protocol):
    """What workers answer with; `latentgym.agents.run.Run` is one. It must be picklable."""

    def make_agent(self) -> Any:
        """The agent."""
        ...

    def actor(self) -> Any:
        """The policy that answers."""
        ...

    def make_env(self, num_envs: int) -> Any:
        """A vector environment."""
        ...


@contextmanager
def answering(
    run: Answerable, workers: int, rows: Callable[[Any], int], *, address: str | None = None
) -> Iterator[Answerer]:
    """Within it, workers of a Ray cluster answer.

    Args:
        run: what each of them builds, once.
        workers: how many; each takes a processor and, where there are any, a GPU.
        rows: how many rows decode together, given the model.
        address: of a cluster to join; None starts one here.

    Raises:
        UsageError: no workers, ray is missing, or the cluster is too small.
        ClusterError: a worker failed.
    """
    if workers < 1:
        raise UsageError(f"--workers must be at least 1, but is {workers}.")
    afterwards = "Evaluate again, or use --backend local."
    with connected(workers, option="--workers", afterwards=afterwards, address=address):
        yield on_cluster(run, workers, rows)


def on_cluster(run: Answerable, workers: int, rows: Callable[[Any], int]) -> Answerer:
    """Workers on the cluster that is connected; arguments as for `answering`."""
    import ray

    remote = ray.remote(num_cpus=1, num_gpus=1)(AnsweringWorker)
    actors = [remote.remote(run, rows) for _ in range(workers)]
    identity: Identity = ray.get([actor.begin.remote() for actor in actors])[0]

    def answer(questions: IntArray, seed: int, answered: Answered) -> list[Answer]:
        parts = in_parts(questions, workers)
        done: dict[int, list[Answer]] = {}
        for i, pending in handed_out(
            parts, actors, lambda actor, part: actor.answer.remote(part, seed), _first
        ):
            done[i] = ray.get(pending)
            answered(done[i])
        return [answer for i in range(len(parts)) for answer in done[i]]

    return Answerer(identity, answer)


class AnsweringWorker:
    """Runs in a worker process.

    Args:
        run: what it builds.
        rows: how many rows decode together, given the model.
    """

    def __init__(self, run: Answerable, rows: Callable[[Any], int]) -> None:
        self._run, self._rows = run, rows

    def begin(self) -> Identity:
        """Build agent, policy and environment.

        Not done by the constructor: what that raises, Ray reports as the death of the worker.
        """
        self._agent, self._policy = self._run.make_agent(), self._run.actor()
        self._env = self._run.make_env(self._rows(self._policy.lm))
        return Identity.of(self._agent, self._policy)

    def answer(self, questions: IntArray, seed: int) -> list[Answer]:
        """Answers to some questions.

        Raises:
            ClusterError: something failed that does not say itself what to do.
        """
        try:
            answers: list[Answer] = self._agent.answer(
                self._policy, self._env, questions, seed, lambda _: None
            )
            return answers
        except LatentGymError:
            raise
        except Exception as error:
            raise ClusterError(
                f"questions {questions.min()} to {questions.max()} failed with "
                f"{type(error).__name__}: {error}; use --backend local to see where."
            ) from error


def in_parts(questions: IntArray, workers: int) -> list[IntArray]:
    """Split questions (Q,) into parts in their order, several for each worker, none empty."""
    return np.array_split(questions, min(len(questions), workers * _PARTS_PER_WORKER))


def handed_out(
    parts: Sequence[Part],
    workers: Sequence[Worker],
    start: Callable[[Worker, Part], Pending],
    first: Callable[[list[Pending]], Pending],
) -> Iterator[tuple[int, Pending]]:
    """Give each worker a part, and the next one as soon as it has done that.

    Args:
        parts: what is to be done.
        workers: who does it.
        start: begins a part with a worker.
        first: waits until one of several running parts is done, and says which.

    Yields:
        The number of each part and what was started, as they are done.
    """
    left = deque(enumerate(parts))
    running: dict[Pending, tuple[int, Worker]] = {}

    def give(worker: Worker) -> None:
        if left:
            number, part = left.popleft()
            running[start(worker, part)] = number, worker

    for worker in workers:
        give(worker)
    while running:
        pending = first(list(running))
        number, worker = running.pop(pending)
        give(worker)  # before the caller looks at the result, which may take a while
        yield number, pending


def _first(pending: list[Any]) -> Any:
    import ray

    ready, _ = ray.wait(pending, num_returns=1)
    return ready[0]
