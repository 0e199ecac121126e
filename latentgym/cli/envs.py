"""`latentgym envs`, `latentgym info ENV`, `latentgym validate ENV`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import tyro
from rich.table import Table

from latentgym.cli.options import (
    EnvPairs,
    OwnData,
    OwnDataOptions,
    emit,
    env_options,
    output,
    parse,
)
from latentgym.errors import UsageError
from latentgym.progress import progress_bar
from latentgym.registry import (
    FAMILY_NAMES,
    NAMESPACE,
    REASONING_GYM_PREFIX,
    TASKS,
    make_vector_env,
    task_maker,
)
from latentgym.system.options.ranges import Steps
from latentgym.system.plugins import foreign, leave_out, tell_refused
from latentgym.system.terminal import say, shown

_MOST = 300  # characters of a text


@dataclass(frozen=True)
class ListOptions:
    """Options of envs."""

    all: bool = False
    """List the tasks of Reasoning Gym one by one."""
    json: bool = False
    """Print one JSON line on stdout, and nothing else there."""


def list_envs(argv: Sequence[str]) -> int:
    """List the environments and where their data would come from."""
    from latentgym.data import DATASETS, available

    options = parse(ListOptions, argv, "envs", "List the environments.")
    console = output(options.json)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("id", "data", "licence of the data set"):
        table.add_column(name, no_wrap=name == "id", overflow="fold")
    rows: list[dict[str, str]] = []
    tell_refused()
    for task, maker in TASKS.items():
        spec = DATASETS.get(task)
        if foreign(maker):
            try:
                task_maker(task)
            except UsageError as error:
                leave_out("task", task, maker, error)
                continue
            data, licence = f"of {maker.partition(':')[0]}", "latentgym info tells"
        else:
            data = available(spec, spec.splits[-1]) if spec else task_maker(task).data
            licence = spec.licence if spec and data != "generated" else data
        rows.append({"task": task, "data": data, "licence": licence})
    procedural = [row for row in rows if row["task"].startswith(REASONING_GYM_PREFIX)]
    for row in rows:
        if options.all or row not in procedural:
            name = f"{NAMESPACE}/{row['task']}-*"
            table.add_row(*map(shown, (name, row["data"], row["licence"])))
    if not options.all:
        name = f"{NAMESPACE}/{REASONING_GYM_PREFIX}<name>-*"
        table.add_row(name, "generated", f"{len(procedural)} tasks of Reasoning Gym: --all")
    console.print(table)
    console.print(f"\n* is the action family: {', '.join(FAMILY_NAMES)}", style="dim")
    emit({"families": list(FAMILY_NAMES), "tasks": rows}, options.json)
    return 0


@dataclass(frozen=True)
class EnvOptions:
    """Options of info and validate."""

    env: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="ENV")]
    """Id of the environment."""
    model: str | None = None
    """Model whose vocabulary and prompts to use."""
    split: str | None = None
    """Split of the data."""
    limit: Steps | None = None
    """The first so many questions."""
    own: OwnData = field(default_factory=OwnDataOptions)
    env_option: EnvPairs = field(default_factory=list)
    json: bool = False
    """Print one JSON line on stdout, and nothing else there."""


def _make(options: EnvOptions) -> Any:
    extras = env_options(options.split, options.env_option, options.own)
    if options.limit is not None:
        extras["limit"] = options.limit
    return make_vector_env(options.env, 1, model=options.model, **extras).unwrapped


def info(argv: Sequence[str]) -> int:
    """Show one environment."""
    options = parse(EnvOptions, argv, "info", "Show one environment.")
    env = _make(options)
    task, protocol = env.task, env.protocol
    question = task.question(0)
    prompt = env.prompt(0)
    facts = {
        "task": f"{task.name}, split {task.split}, {len(task)} questions",
        "data": f"{task.source} ({task.licence}), hash {task.dataset_hash}",
        "action": str(env.single_action_space),
        "observation": ", ".join(env.single_observation_space.spaces),
        "vocabulary": f"{task.tokenizer.vocab_size} ({task.tokenizer.name})",
        "think": _budget(protocol.think),
        "answer": _budget(protocol.answer),
        "marker": repr(protocol.marker.text) if protocol.marker else "none",
        "tool_call": _calls(protocol),
        "forced_prompt": repr(task.tokenizer.decode(protocol.forced_prompt))
        if protocol.forced_prompt
        else "none",
        **{name: str(fact) for name, fact in task.about.items()},
        "grader": task.grading,
    }
    console = output(options.json)
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in facts.items():
        table.add_row(name, shown(value))
    table.add_row("example", shown(question.text, _MOST))
    said = shown(task.tokenizer.decode(prompt), _MOST)
    table.add_row("prompt", said.append(f" ({len(prompt)} tokens)"))
    table.add_row("gold", shown(question.gold, _MOST))
    console.print(table)
    emit({**facts, **task.about, "example": question.text, "gold": question.gold}, options.json)
    return 0


def validate(argv: Sequence[str]) -> int:
    """Check that gold answers score 1, and that empty and garbage answers do not."""
    from latentgym.testing.checks import GARBAGE, paid_garbage

    options = parse(EnvOptions, argv, "validate", "Check a task's grader on its data.")
    task = _make(options).task
    wrong: list[str] = []
    with progress_bar(f"validate {task.name}", len(task)) as advance:
        for index in range(len(task)):
            completion, answer = task.gold_completion(index)
            if not task.question(index).gold.strip():
                wrong.append(f"the gold answer of question {index} is empty, so none can be right")
            elif task.grade(index, completion, answer).score != 1.0:
                wrong.append(f"gold answer of question {index} scores below 1: {answer!r}")
            for bad in GARBAGE:
                if task.grade(index, bad, bad).score != 0.0:
                    wrong.append(f"answer {bad!r} of question {index} scores above 0")
            for bad in paid_garbage(task, index):
                wrong.append(f"answer {bad[:60]!r} of question {index} is taken for right")
            advance(1)
    for line in wrong[:20]:
        say(line)
    told = f"{task.name} {task.split} ({task.source}): {len(task)} questions, {len(wrong)} faults"
    output(options.json).print(shown(told))
    emit({"task": task.name, "questions": len(task), "faults": len(wrong)}, options.json)
    return int(bool(wrong))


def _budget(budget: Any) -> str:
    return f"{'exactly' if budget.exact else 'at most'} {budget.steps} steps"


def _calls(protocol: Any) -> str:
    if not protocol.tool_call:
        return "none"
    most = "" if protocol.max_tool_calls is None else f", at most {protocol.max_tool_calls} times"
    return f"{protocol.tool_call.text!r}{most}"
