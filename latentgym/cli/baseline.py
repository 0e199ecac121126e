"""`latentgym baseline NAME ENV`: a classical recommender, evaluated as agents are."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tyro

from latentgym.cli.evaluate import check_out
from latentgym.cli.options import EnvPairs, command_line, emit, env_options, output, parse
from latentgym.cli.tables import UNSAVED, show
from latentgym.errors import UsageError
from latentgym.evaluation.evaluate import evaluate_answerer, questions_of
from latentgym.evaluation.recommenders import make_recommender
from latentgym.evaluation.recommenders.answerer import answerer, check_catalogue, fit
from latentgym.evaluation.results import RESULT
from latentgym.registry import make_vector_env, resolve
from latentgym.system.options.ranges import Seed, Steps
from latentgym.system.terminal import say


@dataclass(frozen=True)
class BaselineOptions:
    """Options of baseline."""

    name: tyro.conf.Positional[str]
    """popularity, cooccurrence or sasrec."""
    env: tyro.conf.Positional[str]
    """Id of an environment of recommendation, such as latent/MovieLens-token."""
    env_option: EnvPairs = field(default_factory=list)
    split: str = "test"
    """Split to evaluate on; the recommender learns from train, and stops by valid."""
    limit: Steps | None = None
    """The first so many questions."""
    seed: Seed = 0
    """Of whatever is random in the recommender."""
    exclude_history: bool = False
    """Do not rank what the question shows."""
    out: Path | None = None
    """Folder for result.json and rollouts.jsonl.gz."""
    resume: bool = False
    """Go on with an evaluation that was killed, from the answers in --out."""
    json: bool = False
    """Print the result as one JSON line last."""


def main(argv: Sequence[str]) -> int:
    """Fit a recommender and evaluate it."""
    o = parse(BaselineOptions, argv, "baseline", "Fit and evaluate a classical recommender.")
    check_out(o.out, o.resume)
    recommender = make_recommender(o.name, o.seed)
    env_id, _, _ = resolve(o.env)
    given = env_options(o.split, o.env_option)
    task = _task(env_id, given)
    check_catalogue(task)
    questions_of(task, o.limit)  # before time is spent on learning
    learning = {key: value for key, value in given.items() if key != "limit"}
    train = _learning_task(env_id, {**learning, "split": "train"}, task)
    valid = None
    if recommender.validates:
        valid = _learning_task(env_id, {**learning, "split": "valid"}, task)
    started = time.perf_counter()
    fit(recommender, train, valid)
    fit_s = time.perf_counter() - started
    say(f"{o.name}: fitted to {len(train)} questions in {fit_s:.1f} s")
    evaluation = evaluate_answerer(
        answerer(recommender, task, exclude_history=o.exclude_history),
        env_id,
        task,
        seeds=[o.seed],
        limit=o.limit,
        config={
            "agent": {**recommender.config, "exclude_history": o.exclude_history},
            "env_options": given,
            "train": {"source": train.source, "dataset_hash": train.dataset_hash},
        },
        journal=o.out,
    )
    evaluation.result.config["fit"] = {"seconds": fit_s, **recommender.trained}
    evaluation.result.command = command_line("baseline", argv, evaluation.result.modules)
    if o.out is not None:
        evaluation.save(o.out)
        say(f"wrote {o.out / RESULT}")
    show([(o.out or UNSAVED, evaluation.result)], output(o.json))
    emit(vars(evaluation.result), o.json)
    return 0


def _task(env_id: str, options: Mapping[str, Any]) -> Any:
    return make_vector_env(env_id, 1, **options).unwrapped.task


def _learning_task(env_id: str, options: Mapping[str, Any], asked: Any) -> Any:
    """The task of another split, which must not be the questions that are asked.

    Raises:
        UsageError: it is; a file given as source is every split.
    """
    task = _task(env_id, options)
    if options["split"] != asked.split and task.dataset_hash == asked.dataset_hash:
        raise UsageError(
            f"the {options['split']} split would be the {asked.split} questions themselves; give "
            "the folder of all splits as source, not a file."
        )
    return task
