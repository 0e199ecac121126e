"""`latentgym analyze depth|outliers|latents RUN-or-MODEL [ENV]`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import tyro

from latentgym.cli.options import EnvPairs, act, emit, env_options, output, parse
from latentgym.errors import UsageError, did_you_mean
from latentgym.system.options.ranges import Interval, Seed, Size, Steps
from latentgym.system.terminal import say, shown

if TYPE_CHECKING:
    from latentgym.agents.run import Run
    from latentgym.analysis.sequences import Sequences
    from latentgym.rollout import Policy, Rollouts

MEASURES = "contributions lens skips future thoughts local gradients erasure".split()
PARTS = "block attention mlp".split()


@dataclass(frozen=True)
class AnalyzeOptions:
    """What all analyses have in common."""

    source: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN-or-MODEL")]
    """Folder of a training run or of a result, or a model: tiny, smollm2-135m, a folder, a name."""
    env: Annotated[tyro.conf.Positional[str | None], tyro.conf.arg(metavar="ENV")] = None
    """Id of the environment; the run's own if it is left out."""
    agent: str | None = None
    """Who thinks, with a model (default cot); or module:Class, of whom a run is."""
    preset: str | None = None
    """Named settings of that agent."""
    split: str | None = None
    """Split of the questions; that of a result, else test."""
    limit: Steps = 8
    """So many questions, evenly spaced over the split."""
    seed: Seed = 0
    """Of the rollouts, and of what is drawn."""
    demonstrations: bool = False
    """Read the task's own solutions instead of what the agent thinks."""
    env_option: EnvPairs = field(default_factory=list)
    layers: list[Interval] = field(default_factory=list)
    """Skip, explain and erase at these layers alone, counted from 0; decode latents at these."""
    at_once: Size = 1024
    """Positions whose residual streams are held in memory together."""
    device: str = "auto"
    """cpu, cuda or auto."""
    out: Path | None = None
    """Folder for analysis.json, analysis.html and pictures (SVG and PNG)."""
    json: bool = False
    """Print the report as one JSON line on stdout, and nothing else there."""


@dataclass(frozen=True)
class DepthOptions(AnalyzeOptions):
    """Options of `analyze depth`."""

    measures: list[str] = field(default_factory=lambda: list(MEASURES))
    """What is measured: contributions lens skips future thoughts local gradients erasure."""
    parts: list[str] = field(default_factory=lambda: list(PARTS))
    """What skips leave out of a layer, one at a time: block attention mlp."""
    draws: Size = 1
    """Future effects are measured after so many positions of each sequence; the authors take 4."""
    explained: Size = 1
    """How many sequences gradients and erasure look at; they cost hundreds of passes each."""


@dataclass(frozen=True)
class LatentsOptions(AnalyzeOptions):
    """Options of `analyze latents`."""

    limit: Steps = 64
    """So many questions, evenly spaced over the split."""
    steps: Size = 8
    """Thoughts are replaced at so many steps at most, evenly spaced, and all at once."""
    answer: Literal["own", "right"] = "own"
    """Whose probability is told: of the answer that the agent gave, or of the right one."""
    total: bool = False
    """Also let the agent think on after each replaced thought, which costs a rollout each."""
    top: Size = 5
    """Tokens told of each thought, at every layer."""


def main(argv: Sequence[str]) -> int:
    """Look inside a model while it reads what an agent has thought."""
    actions = {
        "depth": (depth, "what each layer adds, and what depends on it"),
        "outliers": (outliers, "neurons and positions that are far larger than the others"),
        "latents": (latents, "which thought the answer depends on, and what thoughts say"),
    }
    return act("analyze", actions, argv)


def depth(argv: Sequence[str]) -> int:
    """What each layer adds, and what depends on it, by kind of position."""
    options = parse(DepthOptions, argv, "analyze depth", depth.__doc__ or "")
    _known("measure", options.measures, MEASURES)
    _known("part", options.parts, PARTS)
    read = _read(options)

    from latentgym.analysis import ResidualStream, depth_report

    report = depth_report(
        ResidualStream(read.policy.lm),
        read.sequences,
        measures=options.measures,  # type: ignore[arg-type]
        layers=options.layers or None,
        parts=options.parts,  # type: ignore[arg-type]
        difficulty=read.difficulty,
        draws=options.draws,
        explained=options.explained,
        positions_at_once=options.at_once,
        seed=options.seed,
    )
    return _finish("depth", report, read, options)


def _known(what: str, given: Sequence[str], names: Sequence[str]) -> None:
    """Refuse what there is not, and nothing at all."""
    if not given:
        raise UsageError(f"--{what}s is empty; name some of {', '.join(names)}.")
    for name in given:
        if name not in names:
            raise UsageError(f"no {what} {name!r}; {did_you_mean(name, names)}")


def outliers(argv: Sequence[str]) -> int:
    """Outlier features of the residual stream, by layer and kind of position."""
    options = parse(AnalyzeOptions, argv, "analyze outliers", outliers.__doc__ or "")
    _refuse_layers(options)
    read = _read(options)

    from latentgym.analysis import ResidualStream
    from latentgym.analysis.outliers import outliers as measured

    stream = ResidualStream(read.policy.lm)
    found = measured(stream, read.sequences, positions_at_once=options.at_once)
    definitions = {"outliers": found.pop("definitions")}
    report = {"outliers": found, "definitions": definitions, "blocks": len(stream)}
    return _finish("outliers", {**report, **read.sequences.counts()}, read, options)


def latents(argv: Sequence[str]) -> int:
    """Which thought the answer depends on, and what thoughts say, token by token.

    Each thought is replaced: by zero, by the mean, by another question's, by its nearest token.
    """
    options = parse(LatentsOptions, argv, "analyze latents", latents.__doc__ or "")
    if options.demonstrations and options.total:
        raise UsageError("--total needs an agent that thinks on; leave --demonstrations out.")
    if options.demonstrations and options.answer == "right":
        raise UsageError("demonstrations have the right answers already; leave --answer out.")
    read = _read(options, right=options.answer == "right")

    from latentgym.analysis import ResidualStream, causal_map, decode_latents
    from latentgym.analysis.lens import taps_of

    stream = ResidualStream(read.policy.lm)
    steps = read.sequences.spread_steps(options.steps)
    taps_of(stream, options.layers or None)  # before the work
    found: dict[str, Any] = {}
    for effect, rollouts in {"direct": None, "total": read.rollouts}.items():
        if effect == "direct" or options.total:
            found[effect] = causal_map(
                read.policy,
                read.sequences,
                rollouts=rollouts,
                steps=steps,
                positions_at_once=options.at_once,
            )
    found["decoded"] = decode_latents(
        stream,
        read.sequences,
        read.policy.lm.tokenizer,
        top=options.top,
        layers=options.layers or None,
        positions_at_once=options.at_once,
    )
    told = [found[effect].pop("definitions") for effect in found if effect != "decoded"]
    definitions = {"latents": told[0]}
    report = {"latents": found, "definitions": definitions, "blocks": len(stream)}
    return _finish("latents", {**report, **read.sequences.counts()}, read, options)


def _refuse_layers(options: AnalyzeOptions) -> None:
    """Refuse a choice of layers that would have no effect."""
    if options.layers:
        raise UsageError("outlier features are told of all layers at once; leave --layers out.")


class _Read(NamedTuple):
    """What an analysis looks at.

    Attributes:
        run, policy: who thinks, on what.
        sequences: what the model reads.
        rollouts: of which, unless they are demonstrations.
        difficulty: by name, how hard each question is.
        questions: their numbers.
        answers: what was read of each one's answer and what it scored; none of demonstrations.
    """

    run: Run
    policy: Policy
    sequences: Sequences
    rollouts: Rollouts | None
    difficulty: dict[str, list[float]]
    questions: list[int]
    answers: list[dict[str, Any]]


def _read(options: AnalyzeOptions, *, right: bool = False) -> _Read:
    from latentgym.agents.stored import stored_run

    run = stored_run(
        options.source,
        options.env,
        agent=options.agent,
        preset_name=options.preset,
        options=env_options(options.split, options.env_option),
        device=options.device,
        dtype="float32",
    )
    if run.make_agent().searches and not options.demonstrations:
        raise UsageError(
            f"{run.agent_name} makes several attempts, of which none is its chain of thought; "
            "analyse cot in its place, or add --demonstrations."
        )
    task = run.make_env(1).unwrapped.task
    count = min(options.limit, len(task))
    # Neighbours are often alike, as files and generators have their order.
    questions = [i * len(task) // count for i in range(count)]
    _check_out(options.out)
    policy = run.actor()

    from latentgym.analysis import of_demonstrations, of_rollouts
    from latentgym.rollout import Engine, collect
    from latentgym.rollout.targets import with_right_answers

    env, rollouts, answers = run.make_env(len(questions)), None, list[dict[str, Any]]()
    if options.demonstrations:
        base = env.unwrapped
        items = [(base.prompt(i), base.demonstration(i)) for i in questions]
        sequences = of_demonstrations(policy.lm, items)
    else:
        episodes = collect(Engine(policy), env, questions, seed=options.seed)
        rollouts = with_right_answers(episodes, env) if right else episodes.rollouts
        answers = [{"parsed": info["parsed"], "score": info["score"]} for info in episodes.infos]
        sequences = of_rollouts(policy, rollouts)
    told = [task.difficulty(i) for i in questions]
    names = sorted({name for each in told for name in each})
    difficulty = {name: [each.get(name, float("nan")) for each in told] for name in names}
    return _Read(run, policy, sequences, rollouts, difficulty, questions, answers)


def _check_out(out: Path | None) -> None:
    """Refuse a folder in which nothing can be written, before the work.

    Raises:
        UsageError: it holds an analysis, cannot be written, or matplotlib is missing.
    """
    if out is None:
        return

    from latentgym.analysis.page import REPORT
    from latentgym.analysis.plots.base import figure_of
    from latentgym.storage import writable

    if (out / REPORT).exists():
        raise UsageError(f"{out} holds an analysis already; choose another --out, or delete it.")
    figure_of(1.0)
    with writable(out):
        out.mkdir(parents=True, exist_ok=True)
        (out / f".{REPORT}").touch()
        (out / f".{REPORT}").unlink()


def _finish(kind: str, report: dict[str, Any], read: _Read, options: AnalyzeOptions) -> int:
    """Show, print and store a report."""
    from latentgym.agents.base import config_dict
    from latentgym.analysis.page import PAGE, REPORT, write_report
    from latentgym.evaluation.results import git_commit, versions

    run = read.run
    record = {
        "analysis": kind,
        "model": run.model_name,
        "agent": run.agent_name,
        "env": run.env_id,
        "env_options": dict(run.env_options),
        "checkpoint": None if run.checkpoint is None else str(run.checkpoint),
        "control": run.control,
        "config": config_dict(run.config),
        "questions": read.questions,
        "answers": read.answers,
        "seed": options.seed,
        "demonstrations": options.demonstrations,
        **report,
        "versions": versions(),
        "git": git_commit(),
    }
    _unmeasured(record)
    _show(record, output(options.json))
    emit(record, options.json)
    if options.out is not None:
        write_report(record, options.out)
        say(f"wrote {options.out / REPORT} and {options.out / PAGE}")
    return 0


def _unmeasured(record: dict[str, Any]) -> None:
    """Say which measures have found nothing to measure."""
    for name in ("future", "thoughts"):
        if name in record and not record[name]["output"]:
            say(f"{name}: nothing was measured, as these sequences are too short for it")


def _show(record: dict[str, Any], console: Any) -> None:
    from rich.table import Table

    from latentgym.analysis.tables import tables

    kinds = ", ".join(f"{n} {kind}" for kind, n in record["positions"].items())
    console.print(
        shown(
            f"{record['model']}, {record['blocks']} layers; {record['sequences']} sequences of "
            f"{record['env']}; positions: {kinds}"
        )
    )
    for told in tables(record):
        console.print(f"\n{told.title}")
        table = Table(box=None, pad_edge=False, header_style="bold")
        for number, name in enumerate(told.columns):
            table.add_column(name, justify="left" if number in told.texts else "right")
        for row in told.rows:
            table.add_row(*map(shown, row))  # tokens may look like markup
        console.print(table)
