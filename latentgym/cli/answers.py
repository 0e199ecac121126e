"""One question of a run in the terminal: what was thought, step by step, and what was answered."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from latentgym.errors import UsageError
from latentgym.evaluation.columns import Run, run_name
from latentgym.evaluation.results import load_rollouts
from latentgym.system.console import Console
from latentgym.system.terminal import printable, shown

_LEAST = 0.005  # weight of a token that is shown; the heaviest always is
_NUMBERS = ("norm", "entropy", "gate")
_SEGMENTS = {
    "answer": "answer",
    "tool_call": "tool call",
    "tool_response": "tool response",
    "forced_prompt": "forced prompt",
}
_INVISIBLE = str.maketrans({" ": "␣", "\n": "⏎", "\t": "⇥"})


def show_question(run: Run, index: int, console: Console) -> None:
    """Print the answers of a run to a question, one under each seed.

    Args:
        run: folder and record.
        index: number of the question.
        console: where to.

    Raises:
        UsageError: the run has no answer to it, or no answers, or they are damaged.
    """
    folder, r = run
    asked, found = set[int](), []
    for rollout in load_rollouts(folder):
        asked.add(rollout["index"])
        if rollout["index"] == index:
            found.append(rollout)
    if not found:
        raise UsageError(
            f"{folder} has no answer to question {index}; it answers {len(asked)} questions from "
            f"{min(asked)} to {max(asked)}."
        )
    head = f"question {index} of {r.task}, {r.split}; {run_name(folder)}: {r.agent}, {r.model}"
    console.print(shown(head), style="bold")
    console.print(Text(printable(found[0].get("question") or "")))
    for rollout in found:
        console.print()
        if len(r.seeds) > 1:
            console.print(f"seed {rollout['seed']}", style="bold")
        _thoughts(rollout, console)
        table = Table(box=None, pad_edge=False, show_header=False)
        table.add_column(style="dim", no_wrap=True)
        table.add_column(overflow="fold")
        for name, text in _told(rollout):
            table.add_row(name, Text(printable(text)))
        console.print(table)


def _thoughts(rollout: Mapping[str, Any], console: Console) -> None:
    """A row for each thought; a chain of plain tokens is a text."""
    steps: Sequence[Mapping[str, Any]] = rollout.get("steps") or ()
    if all(len(step["tokens"]) == 1 for step in steps):
        console.print(Text(printable(rollout.get("thoughts") or "")), style="dim")
        return
    numbers = [name for name in _NUMBERS if any(name in step for step in steps)]
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("step", justify="right")
    table.add_column("thought", overflow="fold", ratio=1)
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    for number, step in enumerate(steps, start=1):
        cells = (f"{step[name]:.2f}" if name in step else "" for name in numbers)
        table.add_row(str(number), _heaviest(step), *cells)
    console.print(table)
    left = (rollout.get("n_thoughts") or 0) - len(steps)
    if left > 0:
        console.print(f"... and {left} more thoughts", style="dim")


def _heaviest(step: Mapping[str, Any]) -> Text:
    """The tokens of a thought with their weights."""
    pairs = zip(step["tokens"], step["weights"], strict=False)
    kept = [(token, w) for n, (token, w) in enumerate(pairs) if n == 0 or w >= _LEAST]
    tokens = (f"{printable(token.translate(_INVISIBLE)) or '∅'} {w:.2f}" for token, w in kept)
    return Text("  ".join(tokens))


def _told(rollout: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What was answered, how it was read, and what it scored."""
    segments = rollout.get("segments") or [
        {"kind": "answer", "text": rollout.get("completion") or ""}
    ]
    for segment in segments:
        if segment["kind"] in _SEGMENTS:
            yield _SEGMENTS[segment["kind"]], segment["text"]
    status = rollout.get("status") or "ok"
    why = "" if status == "ok" else f" ({status})"
    yield "read as", f"{rollout.get('parsed') or 'nothing'}{why}"
    yield "gold", str(rollout.get("target") or "")
    parts = ", ".join(
        f"{name} {_number(value)}" for name, value in (rollout.get("components") or {}).items()
    )
    yield "score", f"{_number(rollout['score'])}{f' ({parts})' if parts else ''}"
    if rollout.get("truncated"):
        yield "", "out of budget"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
