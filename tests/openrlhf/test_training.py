"""Real Ray, real OpenRLHF: what two workers train is what one process trains."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from latentgym.agents.run import Run
from latentgym.cluster.connection import ClusterError
from latentgym.openrlhf.job import Job
from latentgym.rewards import GraderError
from latentgym.rollout import Engine, collect
from latentgym.training import Trainer

Weights = dict[str, torch.Tensor]

# What Ray and DeepSpeed leave open while a cluster starts.
pytestmark = [
    pytest.mark.cluster,
    pytest.mark.filterwarnings(
        "ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning"
    ),
]


def through_openrlhf(job: Job, workers: Any) -> tuple[Any, Weights]:
    """The session after training, and the weights, which all workers agree on."""
    from latentgym.openrlhf.launch import Session

    session = Session(job, workers)
    session.fit()
    first, *others = session.weights()
    for other in others:
        assert all(torch.equal(first[name], other[name]) for name in first)
    return session, first


def here(job: Job) -> tuple[list[dict[str, float]], Weights]:
    """The metrics of each step of the local backend, and the weights that it ends with."""
    policy = job.run.learner()
    if job.cluster.gradient_checkpointing:
        policy.lm.checkpoint_gradients()
    stage = job.grpo.build(policy, job.run.make_env, job.run.seed)
    trainer = Trainer(stage, job.optimisation, job.steps)
    return [trainer.step(number) for number in range(job.steps)], policy.state_dict()


def assert_same(theirs: Weights, ours: Weights, job: Job) -> None:
    fresh = job.run.learner().state_dict()
    assert any((ours[k] - v).abs().max() > 1e-4 for k, v in fresh.items()), "nothing was learned"
    assert all(theirs[k].dtype == v.dtype for k, v in ours.items())
    if job.run.dtype == "bfloat16":
        # Rows stand elsewhere in their batches, and what bf16 rounds there Adam enlarges.
        apart, moved = (
            torch.cat([(x[k] - ours[k]).float().flatten() for k in ours]).norm()
            for x in (theirs, fresh)
        )
        assert apart < 0.1 * moved
        return
    worst = max(float((theirs[name] - value).abs().max()) for name, value in ours.items())
    # Where a model begins trained, or a row has one action, many gradients are near nothing, and
    # Adam enlarges rounding.
    near_nothing = job.run.checkpoint is not None or job.run.agent == "coconut"
    assert worst < (1e-5 if near_nothing else 2e-6)


def lines(job: Job) -> list[dict[str, float]]:
    return [json.loads(line) for line in (job.out / "metrics.jsonl").read_text().splitlines()]


CASES: dict[str, dict[str, Any]] = {
    "token": {"agent": "cot"},
    "continuous": {},
    "hidden states": {"agent": "coconut"},
    "divergence": {"grpo": {"kl": 0.1}},
    "gate, divergence from words": {
        "agent": "hrpo",
        "grpo": {"kl": 0.1},
        "optimisation": {"weight_decay": 3.0},
    },
    "Gaussian, mean over phases": {
        "agent": "colar-grpo",
        "config": {"prompt_suffix": ""},
        "optimisation": {"lr": 1e-3},
    },
    "mean over phases, divergence": {"grpo": {"mean": "phase", "kl": 0.1}},
    "sequence mean": {"grpo": {"mean": "sequence", "entropy": 0.2}},
    "sums, divergence": {"grpo": {"mean": "sum", "kl": 0.1}},
    "three passes": {"grpo": {"updates": 3, "clip_low": 0.02, "clip_high": 0.02}},
    "searches, three passes, divergence": {
        "agent": "cot",
        "searches": True,
        "grpo": {"updates": 3, "clip_low": 0.01, "clip_high": 0.01, "mean": "phase", "kl": 0.1},
    },
    "schedule": {"optimisation": {"schedule": "cosine", "warmup": 0.4}, "steps": 5},
    "adapters": {"run": {"lora": {"r": 4, "alpha": 8}}},
    "bf16, gate, divergence, zero 3": {
        "agent": "hrpo",
        "run": {"dtype": "bfloat16"},
        "grpo": {"kl": 0.1},
        "zero": 3,
    },
    "bf16, adapters": {"run": {"dtype": "bfloat16", "lora": {"r": 4, "alpha": 8}}},
    "searches": {"agent": "cot", "searches": True},
    "searches, gate": {
        "agent": "hrpo",
        "searches": True,
        "grpo": {"truncated": "penalty", "overlong_buffer": 4},
    },
    "sub-tokens": {"agent": "multiplex"},
    "Gumbel noise": {"agent": "soft-grpo"},
    "router, three passes": {
        "agent": "tarpo",
        "config": {"soft_share": 0.5},
        "grpo": {"updates": 3, "clip_low": 0.01, "clip_high": 0.01},
    },
    "transitions": {
        "agent": "ctrls",
        "config": {"prefix": 2},
        "run": {"env_options": {"source": "generated", "max_operations": 2, "largest": 9}},
        "grpo": {"rewards": ["own_rewards:low"]},
    },
    "zero 0": {"zero": 0},
    "own rewards": {"grpo": {"rewards": ["own_rewards:low=0.5", "own_rewards:some", "task=2"]}},
    "zero 1, recomputed activations": {"zero": 1, "gradient_checkpointing": True},
    "zero 3": {"zero": 3, "grpo": {"kl": 0.1}},
    "zero 3, Gaussian": {
        "zero": 3,
        "agent": "colar-grpo",
        "config": {"prompt_suffix": ""},
        "optimisation": {"lr": 1e-3},
    },
}


# What must agree step by step; entropy is that of rows where losses are averaged over rows.
SHARED = {"reward/score", "reward/overlong", "train/loss", "train/clip_fraction", "train/kl"}
SHARED |= {"train/lr"}


# What further cases have only in other combinations.
AGAIN = {
    *("divergence", "mean over phases, divergence", "sums, divergence", "three passes"),
    *("bf16, adapters", "searches", "zero 3", "searches, three passes, divergence"),
    *("searches, gate", "sub-tokens", "Gumbel noise", "transitions"),
    *("zero 3, Gaussian", "zero 1, recomputed activations", "schedule"),
}


@pytest.mark.parametrize(
    "case", [pytest.param(c, marks=[pytest.mark.thorough] if c in AGAIN else []) for c in CASES]
)
def test_a_run_is_the_local_run(case: str, make_job: Any, workers: Any) -> None:
    job = make_job(**{"steps": 3, **CASES[case]})
    session, theirs = through_openrlhf(job, workers)
    metrics, ours = here(job)
    assert_same(theirs, ours, job)
    logged = lines(job)
    for line, ours_of_step in zip(logged, metrics, strict=True):
        for name in SHARED & ours_of_step.keys():
            assert line[name] == pytest.approx(ours_of_step[name], rel=1e-3, abs=1e-5), name
        if case in {"hidden states", "continuous", "sequence mean"}:
            # Adam hides the size of a gradient, such as a mean over too many actions.
            own = ours_of_step["train/grad_norm"]
            assert line["train/grad_norm"] == pytest.approx(own, rel=1e-3)
    clipped = max(step["train/clip_fraction"] for step in metrics)
    assert (clipped > 0.01) == (job.grpo.updates > 1)
    assert [line["step"] for line in logged] == list(range(1, job.steps + 1))
    assert job.cluster.zero == 0 or any(line["train/grad_norm"] > 0 for line in logged)
    docs = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()
    documented = {line.split("`")[1] for line in docs.splitlines() if line.startswith("| `")}
    own = {"reward/low", "reward/some"}  # under the name of each function
    assert set(session.last) - own <= documented
    assert session.last == {k: v for k, v in logged[-1].items() if k != "step"}
    assert ("rollout/calls" in session.last) == (session.last.get("rollout/calls", 0) > 0.5)
    assert ("rollout/calls" in session.last) == CASES[case].get("searches", False)


def test_a_reward_that_workers_cannot_import_is_a_sentence(
    make_job: Any, workers: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from latentgym.openrlhf.launch import Session

    (tmp_path / "only_here.py").write_text("def length(completions): return [0.0]\n")
    monkeypatch.syspath_prepend(tmp_path)
    job = make_job(grpo={"rewards": ["only_here:length"]})
    with pytest.raises(ClusterError, match=r"no module 'only_here'; .* on PYTHONPATH"):
        Session(job, workers)


def test_stopped_and_resumed_is_uninterrupted(make_job: Any, workers: Any) -> None:
    from latentgym.openrlhf.launch import Session

    job = replace(make_job(steps=4), save_every=1)
    session = Session(job, workers)
    log = session._on_step

    def stop(step: int, metrics: dict[str, float]) -> None:
        if step == 3:  # before its checkpoint
            raise KeyboardInterrupt
        log(step, metrics)

    session.trainer.on_step = stop
    with pytest.raises(KeyboardInterrupt):
        session.fit()
    _, theirs = through_openrlhf(replace(job, resume=True), workers)
    assert_same(theirs, here(job)[1], job)
    assert [line["step"] for line in lines(job)] == [1, 2, 3, 4]


def test_weights_and_evaluations_are_the_librarys_own(make_job: Any, workers: Any) -> None:
    job = replace(make_job(steps=2), eval_every=2, eval_limit=40)
    session, theirs = through_openrlhf(job, workers)
    session.save()
    run = replace(job.run, checkpoint=job.out)
    policy = run.learner()
    assert all(torch.equal(theirs[k], v) for k, v in policy.state_dict().items())
    env = run.make_env(40, split="test")
    episodes = collect(Engine(run.acting(policy)), env, np.arange(40), seed=0)
    (found,) = [line["eval/accuracy"] for line in lines(job) if "eval/accuracy" in line]
    assert found == pytest.approx(float(episodes.reward_N.mean()))


def test_a_grader_that_raises_stops_the_run_with_its_sentence(make_job: Any, workers: Any) -> None:
    class Broken(Run):
        def make_env(self, num_envs: int, **more: Any) -> Any:
            env = super().make_env(num_envs, **more)

            def grade(index: int, completion: str, answer: str) -> Any:
                raise GraderError(f"row {index} cannot be graded")

            env.unwrapped.task.grade = grade
            return env

    job = make_job()
    job = replace(job, run=Broken(**vars(job.run)))
    with pytest.raises(ClusterError, match=r"a worker .*row \d+ cannot be graded"):
        through_openrlhf(job, workers)


def test_a_reward_that_raises_stops_the_run_with_its_sentence(make_job: Any, workers: Any) -> None:
    job = make_job(grpo={"rewards": ["own_rewards:fails"]})
    with pytest.raises(ClusterError, match=r"a worker .*fails failed on question \d+ .LookupError"):
        through_openrlhf(job, workers)
