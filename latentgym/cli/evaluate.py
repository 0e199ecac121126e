"""`latentgym eval AGENT ENV` and `latentgym rescore DIR`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro

from latentgym.agents.api import answering_settings
from latentgym.agents.run import Run, default_model, rows_at_once
from latentgym.cli.agent_options import Parsed, parse_with_agent
from latentgym.cli.as_trained import announce, as_trained
from latentgym.cli.options import (
    RunOptions,
    command_line,
    emit,
    env_model,
    env_options,
    output,
    parse,
    resumable,
)
from latentgym.cli.tables import UNSAVED, show
from latentgym.cli.watch import show_searches
from latentgym.cluster.answering import answering
from latentgym.errors import UsageError, require_same
from latentgym.evaluation.answers import KEEP_THOUGHTS
from latentgym.evaluation.evaluate import (
    Evaluation,
    evaluate,
    evaluate_answerer,
    questions_of,
)
from latentgym.evaluation.journal import JOURNAL
from latentgym.evaluation.results import (
    RESULT,
    find_results,
    load_answers,
    load_result,
)
from latentgym.evaluation.stats import Floats, question_interval
from latentgym.lm.zoo import SMOLLM2
from latentgym.registry import current, make_vector_env, recorded, recorded_options
from latentgym.storage import to_json
from latentgym.system.lock import fresh_folder, in_use
from latentgym.system.options.ranges import Interval, Kept, Seed, Size, SizeOrZero, Steps
from latentgym.system.terminal import say, shown
from latentgym.training.manifest import env_options_of, run_of


@dataclass(frozen=True)
class EvalOptions(RunOptions):
    """Options of every evaluation; those of the agent follow."""

    model: str | None = None
    """smollm2-135m, a folder, a hub name or tiny; default the checkpoint's, else smollm2-135m."""
    split: str = "test"
    """Split to evaluate on."""
    limit: Steps | None = None
    """The first so many questions."""
    index: list[Interval] = field(default_factory=list)
    """Only the questions of these numbers, counted from 0."""
    seeds: list[Seed] = field(default_factory=lambda: [0])
    """Each seed answers all questions once."""
    force: bool = False
    """Evaluate a checkpoint of another agent: its weights, with this agent's own settings."""
    control: str | None = None
    """Replace thoughts by: zero, pause, shuffle, noise, word (the plain token)."""
    batch: SizeOrZero = 0
    """Rows at once; 0 chooses by the size of the model."""
    backend: Literal["local", "ray"] = "local"
    """Who answers: this process, or workers on Ray."""
    workers: Size | None = None
    """Workers on Ray; each takes a processor and, where there are any, a GPU."""
    ray_address: str | None = None
    """Join this Ray cluster (auto for the one of this machine); none starts one of its own."""
    keep_thoughts: Kept = KEEP_THOUGHTS
    """Of each thought store so many of its heaviest tokens; 0 stores no thoughts one by one."""
    out: Path | None = None
    """Folder for result.json and rollouts.jsonl.gz."""
    resume: bool = False
    """Go on with an evaluation that was killed, from the answers in --out."""
    watch: bool = False
    """Show each attempt of an agent that searches at test time, best with one --index."""
    json: bool = False
    """Print the result as one JSON line on stdout, and nothing else there."""


def main(argv: Sequence[str]) -> int:
    """Evaluate an agent."""
    parsed = parse_with_agent(EvalOptions, argv, "eval", "Evaluate an agent.", defaults=as_trained)
    options, config = parsed.options, parsed.config
    trained = run_of(options.checkpoint)
    given = env_options(options.split, options.env_option, options.own)
    run = Run(
        agent=options.agent,
        config=config,
        env=options.env,
        env_options={**env_options_of(trained, options.env, given), **given},
        model=options.model or trained.get("model") or default_model(SMOLLM2),
        checkpoint=options.checkpoint,
        lora=trained.get("lora"),
        control=options.control,
        keep_thoughts=options.keep_thoughts,
        device=options.device,
        compile=options.compile,
        dtype=options.dtype,
        load_in_4bit=options.load_in_4bit or trained.get("load_in_4bit", False),
    )
    if trained:
        announce(run, trained, given)
    seeds, index = options.seeds, options.index
    record = answering_settings(run, seeds, options.limit, index, options.out)
    # Before a model is loaded, or minutes are spent on a cluster.
    questions_of(run.make_env(1).unwrapped.task, options.limit, options.index)
    with in_use(options.out), resumable(options.out, JOURNAL):
        if options.out is not None and options.resume and (options.out / RESULT).exists():
            return _finished(options.out, run, record, options)
        check_out(options.out, options.resume)
        if options.backend == "local":
            evaluation = _here(run, parsed, record)
        else:
            evaluation = _on_ray(run, options, record)
        evaluation.result.command = command_line("eval", argv, evaluation.result.modules)
        if options.out is not None:
            evaluation.save(options.out)
            say(f"wrote {options.out / RESULT}")
    show([(options.out or UNSAVED, evaluation.result)], output(options.json))
    emit(vars(evaluation.result), options.json)
    return 0


def _finished(out: Path, run: Run, record: dict[str, Any], options: EvalOptions) -> int:
    """Show an evaluation that there is nothing to resume of.

    Raises:
        UsageError: the result is of other settings.
    """
    result = load_result(out)
    told = {name: record[name] for name in ("seeds", "index", "checkpoint", "control", "config")}
    who = {"agent": run.agent_name, "env": run.env_id, "model": run.model_name}
    asked = {**told, **who, "n": options.limit}
    stored = {name: getattr(result, name) for name in asked}
    if options.limit is None:
        asked["n"] = result.n
    stored["config"] = {**result.config, "agent": current(result.config.get("agent"))}
    require_same(stored, json.loads(to_json(asked)), out)
    say(f"{out} holds the whole result: nothing is left to do")
    show([(out, result)], output(options.json))
    emit(vars(result), options.json)
    return 0


def check_out(out: Path | None, resume: bool) -> None:
    """Refuse a folder that holds a result, or an evaluation that is not resumed.

    Raises:
        UsageError: it does, or nothing says what to resume.
    """
    if out is None:
        if resume:
            raise UsageError("--resume needs --out, the folder of the evaluation to go on with.")
        return
    if (out / RESULT).exists():
        # Not taken for success when resumed: it may be the result of other settings.
        raise UsageError(
            f"{out} holds a result already, so nothing is left to do; see it with "
            f"latentgym leaderboard {out}, or choose another --out."
        )
    fresh_folder(out, JOURNAL, resume)


def _here(run: Run, parsed: Parsed, record: dict[str, Any]) -> Evaluation:
    options: EvalOptions = parsed.options
    if options.workers is not None or options.ray_address is not None:
        raise UsageError("--workers and --ray-address go with --backend ray; add it.")
    from latentgym.agents.effect import refuse_idle

    agent = run.make_agent()
    if options.watch:
        show_searches(agent)
    policy = run.actor()
    refuse_idle(run.agent, parsed.config, parsed.default, policy.lm, training=False)
    env = run.make_env(_rows(options.batch, policy.lm))
    return evaluate(agent, policy, run.env_id, env, **record)


def _on_ray(run: Run, options: EvalOptions, record: dict[str, Any]) -> Evaluation:
    if options.watch:
        raise UsageError("--watch shows the searches of this process; use --backend local.")
    if options.workers is None:
        raise UsageError("--backend ray needs --workers, the number of processes that answer.")
    if options.control == "shuffle":
        raise UsageError(
            "--control shuffle swaps thoughts within a batch, so spreading the questions would "
            "change it; use --backend local."
        )
    task = run.make_env(1).unwrapped.task
    rows = partial(_rows, options.batch)
    with answering(run, options.workers, rows, address=options.ray_address) as answerer:
        evaluation = evaluate_answerer(answerer, run.env_id, task, **record)
    evaluation.result.config["workers"] = options.workers  # for whoever reads answers_per_s
    return evaluation


def _rows(batch: int, lm: Any) -> int:
    return batch or rows_at_once(lm)


@dataclass(frozen=True)
class RescoreOptions:
    """Options of rescore."""

    folder: tyro.conf.Positional[Path]
    """Folder with result.json and rollouts.jsonl.gz."""
    json: bool = False
    """Print one JSON line on stdout, and nothing else there."""


def rescore(argv: Sequence[str]) -> int:
    """Grade stored rollouts again; exit code 1 if a score differs from the stored one."""
    options = parse(RescoreOptions, argv, "rescore", "Score stored rollouts again.")
    found, worst = find_results([options.folder]), 0
    if not found:
        raise UsageError(f"{options.folder} holds no {RESULT}; give a folder that eval wrote.")
    for folder, _ in found:
        worst = max(worst, _rescore(folder, options.json))
    return worst


def graded(task: Any, rollouts: Sequence[Mapping[str, Any]]) -> tuple[Floats, int]:
    """Stored answers as a task grades them now.

    Args:
        task: that asked.
        rollouts: of which each has every question under every seed.

    Returns:
        Scores by question and seed, and how many are not those that are stored.
    """
    scores: dict[int, list[float]] = {}
    changed = 0
    for rollout in rollouts:
        index = rollout["index"]
        grade = task.grade(index, rollout["completion"], rollout["answer"])
        scores.setdefault(index, []).append(float(grade.score))
        changed += grade.score != rollout["score"]
    return np.array([scores[index] for index in sorted(scores)]), changed


def _rescore(folder: Path, as_json: bool) -> int:
    result = load_result(folder)
    env = make_vector_env(
        recorded(result.env, result.modules, folder / RESULT),
        1,
        model=env_model(result.model),
        **recorded_options(result.config.get("env_options", {}), folder / RESULT),
    )
    task = env.unwrapped.task
    if task.dataset_hash != result.dataset_hash:
        raise UsageError(
            f"{folder} was evaluated on data {result.dataset_hash}, but {task.source} is "
            f"{task.dataset_hash}; make the same data available (LATENTGYM_DATA) and try again."
        )
    rollouts = load_answers(folder, result)
    questions_of(task, index=list(dict.fromkeys(rollout["index"] for rollout in rollouts)))
    table, changed = graded(task, rollouts)
    accuracy, (low, high) = float(table.mean()), question_interval(table)
    told = (
        f"{folder}: accuracy {accuracy:.4f} [{low:.4f}, {high:.4f}], stored {result.accuracy:.4f}; "
        f"{changed} of {table.size} scores changed"
    )
    output(as_json).print(shown(told))
    emit({"folder": str(folder), "accuracy": accuracy, "changed": changed}, as_json)
    return int(changed > 0)
