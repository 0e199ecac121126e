"""Evaluation: whoever answers, an environment, several seeds, one result record."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from hashlib import sha256
from math import isfinite, nan
from pathlib import Path
from typing import Any

import numpy as np

from latentgym.errors import Notice, UsageError
from latentgym.evaluation.accounting import Positions, flops
from latentgym.evaluation.answers import Answer, Answerer, Identity, IntArray
from latentgym.evaluation.journal import JOURNAL, Journal
from latentgym.evaluation.overlap import Trained, trained_on
from latentgym.evaluation.results import TROUBLES, Result
from latentgym.evaluation.stats import pass_at_k, question_interval, question_intervals
from latentgym.progress import progress_bar
from latentgym.registry import modules_of
from latentgym.storage import to_json
from latentgym.text.lengths import how_long, shortened, too_long


@dataclass
class Evaluation:
    """A result and the rollouts behind it."""

    result: Result
    rollouts: list[dict[str, Any]]

    def save(self, folder: Path) -> None:
        """Write both to a folder, where the journal has then served."""
        self.result.save(folder, self.rollouts)
        (folder / JOURNAL).unlink(missing_ok=True)


def evaluate(agent: Any, policy: Any, env_id: str, env: Any, **options: Any) -> Evaluation:
    """Let an agent of this process answer questions, grade and account.

    Args:
        agent: an agent.
        policy: its acting policy.
        env_id: for the record.
        env: a vector environment of that id. Wrappers of rewards and infos around it are honoured:
            the metric `return` is what they made of the reward, accuracy stays the grader's.
        options: see `evaluate_answerer`.

    Raises:
        UsageError: see `evaluate_answerer`; or no thoughts can be shuffled, as questions are
            answered one by one.
    """
    answerer = Answerer(Identity.of(agent, policy), partial(agent.answer, policy, env))
    task = env.unwrapped.task
    questions = questions_of(task, options.get("limit"), options.get("index", ()))
    if options.get("control") == "shuffle":
        _check_company(min(len(questions), env.unwrapped.num_envs // agent.samples_per_question()))
    check_lengths(policy, env, questions)
    return evaluate_answerer(answerer, env_id, task, **options)


def _check_company(at_once: int) -> None:
    if at_once < 2:
        raise UsageError(
            "the control shuffle gives each question the thoughts of another one, so two or more "
            "are answered at once; ask more questions, or give a larger --batch."
        )


def _prompts_digest(task: Any, questions: IntArray) -> str:
    """By which the prompts of some questions are known, as a task gives them to a model."""
    digest = sha256()
    for question in questions.tolist():
        digest.update(to_json([int(i) for i in task.prompt(question)]).encode("ascii") + b"\n")
    return digest.hexdigest()


def check_lengths(policy: Any, env: Any, questions: IntArray) -> None:
    """Make sure that a model can read some questions, and answer them.

    Raises:
        UsageError: it cannot.
    """
    limit, steps = (
        policy.lm.max_positions,
        env.unwrapped.protocol.max_steps + len(policy.prompt_suffix),
    )
    long = too_long(questions, lambda i: len(env.unwrapped.prompt(i)) + steps, limit)
    if long:
        raise UsageError(how_long(long, len(questions), limit))


def questions_of(task: Any, limit: int | None = None, index: Sequence[int] = ()) -> IntArray:
    """Numbers of the questions that an evaluation asks.

    Args:
        task: whose questions.
        limit: the first so many.
        index: these instead of all.

    Raises:
        UsageError: there are no such questions, one is asked twice, or both ways are used at once.
    """
    if limit is not None and index:
        raise UsageError("--limit and --index both choose questions; leave one of them out.")
    size = len(task)
    n = size if limit is None else limit
    if not 1 <= n <= size:
        raise UsageError(f"{task.name} {task.split} has {size} questions, not {n}.")
    for number in index:
        if not 0 <= number < size:
            raise UsageError(
                f"{task.name} {task.split} has no question {number}; give numbers from 0 to "
                f"{size - 1}."
            )
    if len(set(index)) < len(index):
        raise UsageError("a question is asked once under each seed; give every --index once.")
    return np.array(index, dtype=np.int64) if index else np.arange(n)


def evaluate_answerer(
    answerer: Answerer,
    env_id: str,
    task: Any,
    *,
    seeds: Sequence[int] = (0,),
    limit: int | None = None,
    index: Sequence[int] = (),
    checkpoint: str | None = None,
    control: str | None = None,
    config: dict[str, Any] | None = None,
    trained: Trained | None = None,
    journal: Path | None = None,
) -> Evaluation:
    """Ask questions, grade and account.

    Args:
        answerer: answers.
        env_id: for the record.
        task: of that environment.
        seeds: each answers all questions once.
        limit: the first so many questions only.
        index: these questions only.
        checkpoint, control, config: for the record.
        trained: on whose questions the agent was trained; None where there was no training.
        journal: folder in which answers are written down as they come. Those that are there
            already are not asked for again.

    Raises:
        UsageError: no seeds, no such questions, or a journal of another evaluation.
    """
    questions = questions_of(task, limit, index)
    if not seeds:
        raise UsageError("an evaluation needs at least one seed.")
    if len(set(seeds)) < len(seeds):
        raise UsageError("equal seeds draw the same answers again; give every seed once.")
    who = answerer.identity
    told = asdict(who)
    del told["sizes"]  # they follow from the rest
    modules = modules_of(told.pop("module"), env_id)
    identity = {
        **told,
        "env": env_id,
        "split": task.split,
        "dataset_hash": task.dataset_hash,
        "questions": questions.tolist(),
        "seeds": list(seeds),
        "checkpoint": checkpoint,
        "control": control,
        "config": config or {},
        **({"modules": modules} if modules else {}),
    }
    kept = Journal(journal, identity)
    with progress_bar(f"{who.agent} on {env_id}", len(questions) * len(seeds)) as advance:
        by_seed, wall = _ask(answerer, questions, seeds, kept, advance)

    answers = [answer for answers in by_seed for answer in answers]
    if _alike(by_seed):
        warnings.warn(
            f"the {len(seeds)} seeds gave the same answers, as nothing was drawn: they say no more "
            "than one",
            Notice,
            stacklevel=2,
        )
    score_QS = np.array([[a.info["score"] for a in answers] for answers in by_seed]).T
    positions = sum((a.positions for a in answers), Positions()).scaled(1 / len(answers))
    latents = positions.thought if not task.family.tokens else 0.0
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
        n=len(questions),
        seeds=list(seeds),
        accuracy=float(score_QS.mean()),
        accuracy_ci95=[low, high],
        metrics=_metrics(answers, score_QS),
        metrics_ci95=_intervals(by_seed),
        thoughts_mean=float(np.mean([a.info["thoughts"] for a in answers])),
        tokens_mean=float(np.mean([a.info["tokens"] for a in answers])),
        latent_share=latents / max(1.0, positions.thought + positions.plain + positions.answer),
        forward_positions=positions.as_dict(),
        flops_per_answer=flops(
            who.sizes, positions, float(np.mean([a.context for a in answers])) / 2
        ),
        wall_s=wall,
        answers_per_s=len(answers) / wall,
        device=who.device,
        control=control,
        config=config or {},
        oracle=who.oracle,
        about=dict(task.about),
        index=list(index),
        trained_on=None if trained is None else trained_on(trained, task, questions),
        modules=modules,
        prompts=_prompts_digest(task, questions),
    )
    rollouts = [
        _rollout(answer, seed, task)
        for seed, answers_of_seed in zip(seeds, by_seed, strict=True)
        for answer in answers_of_seed
    ]
    return Evaluation(result.stamp(), rollouts)


def _ask(
    answerer: Answerer,
    questions: IntArray,
    seeds: Sequence[int],
    journal: Journal,
    advance: Callable[[int, str], None],
) -> tuple[list[list[Answer]], float]:
    """Answers by seed, in the order of the questions, and the seconds that they took."""
    started = time.perf_counter() - journal.wall_s
    known, done, right = dict(journal.answers), 0, 0.0

    def count(answers: Collection[Answer]) -> None:
        nonlocal done, right
        done, right = done + len(answers), right + sum(a.info["score"] for a in answers)
        advance(len(answers), f"accuracy {right / max(1, done):.3f}")

    def answered(seed: int, answers: Sequence[Answer]) -> None:
        journal.add(seed, answers, time.perf_counter() - started)
        count(answers)

    count(known.values())
    for seed in seeds:
        missing = [question for question in questions.tolist() if (seed, question) not in known]
        if missing:
            asked = np.array(missing, dtype=np.int64)
            made = answerer.answer(asked, seed, partial(answered, seed))
            known |= {(seed, answer.index): answer for answer in made}
    by_seed = [[known[seed, question] for question in questions.tolist()] for seed in seeds]
    return by_seed, time.perf_counter() - started


def _alike(by_seed: Sequence[Sequence[Answer]]) -> bool:
    """Whether there are several seeds, and all gave the same thoughts and answers."""
    given = [[(a.thoughts, a.info["completion"]) for a in answers] for answers in by_seed]
    return len(given) > 1 and all(each == given[0] for each in given)


def _rollout(answer: Answer, seed: int, task: Any) -> dict[str, Any]:
    """What is stored of an answer; the keys are told in docs/records.md."""
    info = answer.info
    rollout = {
        "index": answer.index,
        "seed": seed,
        "question": shortened(task.question(answer.index).text),
        "prompt_hash": answer.prompt_hash,
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
        "truncated": answer.truncated,
        "segments": answer.segments,
        "steps": answer.steps,
    }
    return {**rollout, "trace": list(answer.trace)} if answer.trace else rollout


def _metrics(answers: Sequence[Answer], score_QS: Any) -> dict[str, float | None]:
    """Components, the answers' own numbers, trouble, and pass@k where several were drawn."""
    metrics: dict[str, float | None] = {
        name: float(np.mean([a.info[name] for a in answers]))
        for name in answers[0].info
        if name.startswith("reward/")
    }
    for name in ("calls", "return"):
        if name in answers[0].info:
            metrics[name] = float(np.mean([a.info[name] for a in answers]))
    ended = [a.truncated for a in answers if a.truncated is not None]
    if ended:
        metrics["truncated"] = float(np.mean(ended))
    told = [{**a.batch_metrics, **a.metrics} for a in answers]
    for name in sorted({name for numbers in told for name in numbers}):
        metrics[name] = float(np.mean([numbers[name] for numbers in told if name in numbers]))
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


def _intervals(by_seed: Sequence[Sequence[Answer]]) -> dict[str, list[float]]:
    """95 % intervals over questions of those numbers that every answer has.

    Numbers whose interval has no ends, as all are the same, have none.
    """
    answers = [answer for answers in by_seed for answer in answers]
    own = sorted(answers[0].metrics)
    names = [n for n in own if all(isfinite(a.metrics.get(n, nan)) for a in answers)]
    if not names:
        return {}
    value_SQM = [[[a.metrics[name] for name in names] for a in answers] for answers in by_seed]
    intervals = question_intervals(np.array(value_SQM, dtype=np.float64).transpose(2, 1, 0))
    ends = zip(names, intervals, strict=True)
    return {name: [low, high] for name, (low, high) in ends if isfinite(low) and isfinite(high)}
