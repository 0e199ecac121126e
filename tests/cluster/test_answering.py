"""Answering by many workers: the order of the parts, and the same record as one process gives."""

from __future__ import annotations

import builtins
import sys
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest

from latentgym.agents.latentseek import LatentSeekConfig
from latentgym.agents.mts_grpo import MTSGRPOConfig
from latentgym.agents.run import Run
from latentgym.cli.main import main
from latentgym.cluster.answering import AnsweringWorker, handed_out, in_parts, on_cluster
from latentgym.cluster.connection import ClusterError, connected, failures
from latentgym.evaluation.evaluate import evaluate, evaluate_answerer
from latentgym.evaluation.journal import JOURNAL

EVAL = ["eval", "mts-grpo", "latent/MNNS-continuous", "--model", "tiny:gpt2:1x1x16"]


@pytest.mark.parametrize(("n", "workers"), [(1, 1), (3, 2), (8, 2), (9, 2), (100, 3)])
def test_parts_hold_every_question_once_in_order(n: int, workers: int) -> None:
    parts = in_parts(np.arange(n) + 7, workers)
    assert np.concatenate(parts).tolist() == list(range(7, n + 7))
    sizes = [len(part) for part in parts]
    assert min(sizes) >= 1 and max(sizes) - min(sizes) <= 1
    assert len(parts) == min(n, 4 * workers)


def test_whoever_is_done_gets_the_next_part() -> None:
    """One worker is stuck in its first part until the other has done all the rest."""
    others_done, did = Event(), []

    def work(worker: str, part: int) -> int:
        if worker == "slow":
            assert others_done.wait(timeout=60)
        did.append((worker, part))
        return part * 10

    def first(pending: list[Future[int]]) -> Future[int]:
        return next(iter(wait(pending, return_when=FIRST_COMPLETED).done))

    results = {}
    with ThreadPoolExecutor(2) as pool:
        for i, future in handed_out(range(6), ["slow", "fast"], partial(pool.submit, work), first):
            results[i] = future.result()
            if len(results) == 5:
                others_done.set()
    assert results == {i: i * 10 for i in range(6)}
    assert did == [*(("fast", part) for part in range(1, 6)), ("slow", 0)]


def test_more_workers_than_parts_leaves_some_idle() -> None:
    asked = []

    def start(worker: str, part: str) -> str:
        asked.append((worker, part))
        return part

    given = list(handed_out(["a"], ["one", "two"], start, lambda pending: pending[0]))
    assert (given, asked) == ([(0, "a")], [("one", "a")])


def sampling(**more: Any) -> Run:
    return Run(
        agent="mts-grpo",
        config=MTSGRPOConfig(thoughts="mts", k=4),
        env="latent/MNNS-continuous",
        env_options={"split": "test"},
        model="tiny:gpt2:1x1x16",
        **more,
    )


@dataclass(frozen=True)
class Broken:
    """A run whose grader fails at one question, as a bug or a damaged row would make it."""

    run: Run
    at: int

    def make_agent(self) -> Any:
        return self.run.make_agent()

    def actor(self) -> Any:
        return self.run.actor()

    def make_env(self, num_envs: int) -> Any:
        env = self.run.make_env(num_envs)
        grade = env.unwrapped.task.grade

        def failing(index: int, completion: str, answer: str) -> Any:
            if index == self.at:
                raise ZeroDivisionError("no digits")
            return grade(index, completion, answer)

        env.unwrapped.task.grade = failing
        return env


def test_a_failing_grader_stops_the_worker_and_names_the_questions() -> None:
    worker = AnsweringWorker(Broken(sampling(), at=12), lambda _: 4)
    worker.begin()
    assert len(worker.answer(np.arange(5, 8), 0)) == 3
    with pytest.raises(ClusterError, match="questions 10 to 13 failed with ZeroDivisionError: no"):
        worker.answer(np.arange(10, 14), 0)


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--workers", "2"], "--backend ray"),
        (["--ray-address", "auto"], "--backend ray"),
        (["--backend", "ray"], "needs --workers"),
        (["--backend", "ray", "--workers", "0"], "--workers must be at least 1"),
        (["--backend", "ray", "--workers", "2", "--limit", "99999"], "questions, not 99999"),
        (["--backend", "ray", "--workers", "2", "--index", "99999"], "no question 99999"),
        (["--backend", "ray", "--workers", "2", "--control", "shuffle"], "--backend local"),
        (["--backend", "ray", "--workers", "2", "-o", "m=99"], "from 2 to 8, not 99"),
    ],
)
def test_mistakes_are_found_before_a_cluster_starts(
    argv: list[str],
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("latentgym.cluster.answering.connected", None)
    assert main([*EVAL, *argv]) == 2
    err = capsys.readouterr().err
    assert says in err
    assert "Traceback" not in err


def test_without_ray_there_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def without_ray(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "ray":
            raise ImportError("no ray")
        return real(name, *args, **kwargs)

    real = builtins.__import__
    monkeypatch.setattr(builtins, "__import__", without_ray)
    assert main([*EVAL, "--backend", "ray", "--workers", "2"]) == 2
    assert "pip install 'latentgym[openrlhf]'" in capsys.readouterr().err


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    ray = pytest.importorskip("ray", reason="needs ray (extra openrlhf)")
    # Workers cannot import a test's module.
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    with connected(2, option="", afterwards="Again."):
        yield ray


@pytest.mark.cluster
@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_two_workers_give_the_record_of_one_process(cluster: Any, tmp_path: Path) -> None:
    run = sampling()
    env_id, options = run.env_id, {"seeds": [0, 3], "limit": 90, "config": {"k": 4}}
    here = evaluate(run.make_agent(), run.actor(), env_id, run.make_env(16), **options)
    answerer = on_cluster(run, 2, lambda _: 16)
    there = evaluate_answerer(answerer, env_id, run.make_env(1).unwrapped.task, **options)

    assert there.rollouts == here.rollouts
    assert len({rollout["answer"] for rollout in here.rollouts}) > 3
    one, other = vars(here.result), vars(there.result)
    positions = [record.pop("forward_positions") for record in (one, other)]
    for record, position in zip((one, other), positions, strict=True):
        for clock in ("wall_s", "answers_per_s", "created"):
            assert record.pop(clock)
        del position["discarded"], record["flops_per_answer"]
        # A few thoughts of each batch are looked at, and batches are made up otherwise.
        looks = [record["metrics"].pop(k) for k in list(record["metrics"]) if "latent/" in k]
        assert looks and np.isfinite(looks).all()
    assert other == one
    assert positions[1] == positions[0]


@pytest.mark.cluster
@pytest.mark.filterwarnings("ignore")
@pytest.mark.thorough
def test_workers_search_as_one_process_does(cluster: Any) -> None:
    config = LatentSeekConfig(reward="psrm", ratio=1.0, lr=0.3)
    run = Run("latentseek", config, "MNNS-token", "tiny:gpt2:1x1x16", {"split": "test"})
    here = evaluate(run.make_agent(), run.actor(), run.env_id, run.make_env(8), limit=40)
    answerer = on_cluster(run, 2, lambda _: 8)
    there = evaluate_answerer(answerer, run.env_id, run.make_env(1).unwrapped.task, limit=40)
    assert there.rollouts == here.rollouts
    assert there.result.oracle and max(len(row["trace"]) for row in here.rollouts) > 2


@pytest.mark.cluster
@pytest.mark.filterwarnings("ignore")
@pytest.mark.thorough
def test_what_workers_answered_before_one_failed_is_not_asked_again(
    cluster: Any, tmp_path: Path
) -> None:
    run = sampling()
    task, options = run.make_env(1).unwrapped.task, {"limit": 40, "seeds": [0, 1]}
    broken = on_cluster(Broken(run, at=33), 2, lambda _: 16)
    says = r"a worker stopped: questions 30 to 34 failed with ZeroDivisionError: no digits;"
    with pytest.raises(ClusterError, match=says), failures("Again."):
        evaluate_answerer(broken, run.env_id, task, journal=tmp_path, **options)
    del broken  # its workers make room for others
    kept = (tmp_path / JOURNAL).read_text().count('"seed": 0')
    assert 2 <= kept < 8  # of the 8 parts of 5 questions, the seventh of which fails

    sound, asked = on_cluster(run, 1, lambda _: 16), []

    def answer(questions: Any, seed: int, answered: Any) -> Any:
        asked.append((seed, len(questions)))
        return sound.answer(questions, seed, answered)

    resumed = evaluate_answerer(
        replace(sound, answer=answer), run.env_id, task, journal=tmp_path, **options
    )
    assert asked == [(0, 40 - 5 * kept), (1, 40)]
    env = run.make_env(16)
    whole = evaluate(run.make_agent(), run.actor(), run.env_id, env, **options)
    assert resumed.rollouts == whole.rollouts


@pytest.mark.cluster
@pytest.mark.filterwarnings("ignore")
def test_a_worker_that_cannot_begin_says_why(cluster: Any) -> None:
    with pytest.raises(ClusterError, match="no tiny architecture"), failures("Again."):
        on_cluster(Run("mts-grpo", MTSGRPOConfig(), "MNNS-continuous", "tiny:rnn"), 1, lambda _: 1)
