"""What `latentgym leaderboard` writes beside its table, and `latentgym export RUN`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import tyro

from latentgym.cli.options import parse
from latentgym.errors import UsageError, did_you_mean
from latentgym.evaluation.columns import BY_NAME, Run
from latentgym.evaluation.exports import csv_text, hub_text, markdown_text
from latentgym.evaluation.latex import latex_text
from latentgym.evaluation.results import load_result
from latentgym.storage import atomic_write, writable
from latentgym.system.terminal import say

_PAGES = ("http://", "https://")


@dataclass(frozen=True)
class ExportOptions:
    """Files that the leaderboard writes too."""

    csv: Path | None = None
    """Write all columns to this file."""
    markdown: Path | None = None
    """Write a table in Markdown."""
    latex: Path | None = None
    """Write a table in LaTeX, for the package booktabs."""
    columns: list[str] = field(default_factory=list)
    """Columns of --markdown and --latex, by their names in --csv; default a few."""
    hub: Path | None = None
    """Write the YAML of one model's results for .eval_results on the Hugging Face hub."""
    source_url: str | None = None
    """With --hub: the page with these results, to which the hub links."""
    check: bool = False
    """Look whether the records are whole and say what their answers do, instead of a table."""


def write_exports(found: Sequence[Run], options: ExportOptions) -> None:
    """Write what is asked for.

    Args:
        found: folder and record of each run.
        options: which files.

    Raises:
        UsageError: a file cannot be written, the hub takes no such results, or there is no such
            column.
    """
    for name in options.columns:
        if name not in BY_NAME:
            raise UsageError(f"no column {name!r}; {did_you_mean(name, BY_NAME)}")
    if options.columns and options.markdown is options.latex is None:
        raise UsageError("--columns are those of --markdown and --latex; give one of them too.")
    if options.source_url is not None:
        if options.hub is None:
            raise UsageError("--source-url is the page that --hub links to; give --hub FILE too.")
        if not options.source_url.startswith(_PAGES):
            raise UsageError(f"--source-url {options.source_url} is no http address of a page.")
    hub, left_out = ("", []) if options.hub is None else hub_text(found, options.source_url)
    for path, text in (
        (options.csv, csv_text(found)),
        (options.markdown, markdown_text(found, options.columns)),
        (options.latex, latex_text(found, options.columns)),
        (options.hub, hub),
    ):
        if path is not None:
            _write(path, text)
    for run in left_out:
        say(f"left out for the hub: {run}")


def _write(path: Path, text: str) -> None:
    with writable(path, "choose another file"):
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as partial:
            partial.write_text(text, encoding="utf-8")
    say(f"wrote {path}")


@dataclass(frozen=True)
class RunExportOptions:
    """Options of export."""

    folder: tyro.conf.Positional[Path]
    """Folder of one run."""
    out: Path | None = None
    """Write the trained model to this folder, for transformers and vLLM."""
    merge: bool = True
    """With --out: make adapters part of the weights; else write them alone, for peft."""
    push: str | None = None
    """With --out: upload the folder to this repository of the hub, OWNER/NAME."""
    inspect: Path | None = None
    """Write its answers as a log of Inspect, .eval or .json, which its viewer opens."""


def main(argv: Sequence[str]) -> int:
    """Write a run in the format of other programs."""
    o = parse(RunExportOptions, argv, "export", "Write a run in another program's format.")
    if (o.out is None) is (o.inspect is None):
        raise UsageError(
            "say what to write: --out DIR for the trained model, or --inspect FILE for the answers."
        )
    if o.out is None and (o.push is not None or not o.merge):
        raise UsageError("--push and --no-merge are about the model; give --out DIR too.")
    if o.inspect is not None:
        from latentgym.evaluation.inspect_log import write_log

        write_log(o.folder, load_result(o.folder), o.inspect)
        say(f"wrote {o.inspect}")
    if o.out is not None:
        _export_model(o, o.out)
    return 0


def _export_model(o: RunExportOptions, out: Path) -> None:
    from latentgym.agents.export import export_model, push
    from latentgym.agents.stored import stored_run

    exported = export_model(
        stored_run(o.folder, dtype="float32", load_in_4bit=False),
        out,
        source=o.folder,
        merge=o.merge,
    )
    say(f"wrote {out}, which {'transformers and vLLM load' if o.merge else 'peft loads'}")
    if not exported.tokenizer:
        say("it has no tokenizer: the model speaks symbols of its task, which no other program has")
    if o.push is not None:
        say(f"uploaded to {push(out, o.push)}")
