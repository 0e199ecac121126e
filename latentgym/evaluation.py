"""Evaluation: whoever answers, an environment, several seeds, one result record."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from latentgym.accounting import ModelSizes, Positions, flops
from latentgym.answers import Answer, Answered
from latentgym.errors import UsageError
from latentgym.progress import progress_bar
from latentgym.results import TROUBLES, Result
from latentgym.stats import pass_at_k, question_interval

Answering = Callable[[npt.NDArray[np.int64], int, Answered], list[Answer]]


@dataclass(frozen=True)
class Identity:
    """What the record says of who answers.

    Attributes:
        agent, model, device: names.
        sizes: of the model.
    """

    agent: str
    model: str
    device: str
    sizes: ModelSizes

    @classmethod
    def of(cls, agent: Any, policy: Any) -> Identity:
        """That of an agent with its policy."""
        lm = policy.lm
        return cls(agent.name, lm.name, str(lm.device), ModelSizes.of(lm))


@dataclass(frozen=True)
class Respondent:
    """Who answers: an agent in this process, or many of them elsewhere.

    Attributes:
        identity: for the record.
        answer: given question numbers (Q,), a seed, and whom to tell of answers as they are made,
            the answers in the order of the questions.
    """

    identity: Identity
    answer: Answering


@dataclass
class Evaluation:
    """A result and the rollouts behind it."""

    result: Result
    rollouts: list[dict[str, Any]]

    def save(self, folder: Path) -> None:
        """Write both to a folder."""
        self.result.save(folder, self.rollouts)


def evaluate(agent: Any, policy: Any, env_id: str, env: Any, **options: Any) -> Evaluation:
    """Let an agent of this process answer questions, grade and account.

    Args:
        agent: an agent.
        policy: its acting policy.
        env_id: for the record.
        env: a vector environment of that id.
        options: see `evaluate_respondent`.

    Raises:
        UsageError: no seeds, or a limit larger than the data.
    """
    respondent = Respondent(Identity.of(agent, policy), partial(agent.answer, policy, env))
    return evaluate_respondent(respondent, env_id, env.unwrapped.task, **options)


def questions_of(task: Any, limit: int | None) -> npt.NDArray[np.int64]:
    """Numbers of the questions that an evaluation asks.

    Raises:
        UsageError: a limit larger than the data.
    """
    n = len(task) if limit is None else limit
    if not 1 <= n <= len(task):
        raise UsageError(f"{task.name} {task.split} has {len(task)} questions, not {n}.")
    return np.arange(n)


def evaluate_respondent(
    respondent: Respondent,
    env_id: str,
    task: Any,
    *,
    seeds: Sequence[int] = (0,),
    limit: int | None = None,
    checkpoint: str | None = None,
    control: str | None = None,
    config: dict[str, Any] | None = None,
) -> Evaluation:
    """Ask questions, grade and account.

    Args:
        respondent: answers.
        env_id: for the record.
        task: of that environment.
        seeds: each answers all questions once.
        limit: the first so many questions only.
        checkpoint, control, config: for the record.

    Raises:
        UsageError: no seeds, or a limit larger than the data.
    """
    questions = questions_of(task, limit)
    if not seeds:
        raise UsageError("an evaluation needs at least one seed.")
    who, n = respondent.identity, len(questions)
    by_seed = []
    started = time.perf_counter()
    with progress_bar(f"{who.agent} on {env_id}", n * len(seeds)) as advance:
        done, right = 0, 0.0

        def answered(answers: Sequence[Answer]) -> None:
            nonlocal done, right
            done, right = done + len(answers), right + sum(a.info["score"] for a in answers)
            advance(len(answers), f"accuracy {right / done:.3f}")

        for seed in seeds:
            by_seed.append(respondent.answer(questions, seed, answered))
    wall = time.perf_counter() - started

    answers = [answer for answers in by_seed for answer in answers]
    score_QS = np.array([[a.info["score"] for a in answers] for answers in by_seed]).T
    positions = sum((a.positions for a in answers), Positions()).scaled(1 / len(answers))
    thoughts = positions.thought if not task.family.words else 0.0
    low, high = question_interval(score_QS)
    result = Result(
        agent=who.agent,
        env=env_id,
        task=task.name,
        family=task.family.name,
        model=who.model,
        checkpoint=checkpoint,
        split=task.split,
        source=task.source,
        dataset_hash=task.dataset_hash,
        n=n,
        seeds=list(seeds),
        accuracy=float(score_QS.mean()),
        accuracy_ci95=[low, high],
        metrics=_metrics(answers, score_QS),
        thoughts_mean=float(np.mean([a.info["thoughts"] for a in answers])),
        tokens_mean=float(np.mean([a.info["tokens"] for a in answers])),
        latent_share=thoughts / max(1.0, positions.thought + positions.answer),
        forward_positions=positions.as_dict(),
        flops_per_answer=flops(
            who.sizes, positions, float(np.mean([a.context for a in answers])) / 2
        ),
        wall_s=wall,
        answers_per_s=len(answers) / wall,
        device=who.device,
        control=control,
        config=config or {},
    )
    rollouts = [
        _rollout(answer, seed)
        for seed, answers_of_seed in zip(seeds, by_seed, strict=True)
        for answer in answers_of_seed
    ]
    return Evaluation(result.stamp(), rollouts)


def _rollout(answer: Answer, seed: int) -> dict[str, Any]:
    """What is stored of an answer."""
    info = answer.info
    rollout = {
        "index": answer.index,
        "seed": seed,
        "target": info["target"],
        "thoughts": answer.thoughts,
        "completion": info["completion"],
        "answer": info["answer"],
        "parsed": info["parsed"],
        "status": info["status"],
        "score": info["score"],
        "components": {
            k.removeprefix("reward/"): v for k, v in info.items() if k.startswith("reward/")
        },
        "n_thoughts": info["thoughts"],
        "n_tokens": info["tokens"],
        "samples": list(answer.samples),
    }
    return {**rollout, "trace": list(answer.trace)} if answer.trace else rollout


def _metrics(answers: Sequence[Answer], score_QS: Any) -> dict[str, float]:
    """Components, the answers' own numbers, trouble, and pass@k where several were drawn."""
    metrics = {
        name: float(np.mean([a.info[name] for a in answers]))
        for name in answers[0].info
        if name.startswith("reward/")
    }
    for name in sorted({name for a in answers for name in a.metrics}):
        metrics[name] = float(np.mean([a.metrics[name] for a in answers if name in a.metrics]))
    for status in TROUBLES:
        share = float(np.mean([a.info["status"] == status for a in answers]))
        if share:
            metrics[f"status/{status}"] = share
    drawn = len(answers[0].samples)
    if drawn > 1:
        right = [sum(s >= 1.0 for s in a.samples) for a in answers]
        for k in sorted({1, 2, 4, 8, 16, 32, drawn}):
            if k <= drawn:
                metrics[f"pass@{k}"] = pass_at_k(right, drawn, k)
    if score_QS.shape[1] > 1:
        metrics["seed_std"] = float(score_QS.mean(0).std(ddof=1))
    return metrics
