"""`latentgym demo`: latent against word chains, on a puzzle and on a language model.

First MNNS with a two-layer model from scratch: thoughts in superposition beside thoughts in tokens,
and the answer that is right most often. Then SmolLM2-135M on GSM8K: plain chain of thought against
Soft Thinking, with what was said of one problem. Everything goes through the command line, as a
user would run it.
"""

from __future__ import annotations

import io
import shutil
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from latentgym.cli.main import Terminated
from latentgym.cli.main import main as latentgym
from latentgym.cli.options import output, parse
from latentgym.cli.page import PAGE, PageOptions
from latentgym.cli.tables import show
from latentgym.data import DATASETS, available
from latentgym.data.sources import DATA_VARIABLE
from latentgym.errors import UsageError
from latentgym.evaluation.results import RESULT, Result, find_results, load_rollouts
from latentgym.evaluation.stats import wilson
from latentgym.registry import make_vector_env
from latentgym.system.console import Console
from latentgym.system.options.ranges import Size
from latentgym.system.terminal import say, shown

_STOPPED = {130: KeyboardInterrupt, 143: Terminated}
_MODEL = "smollm2-135m"
_EXPECTED = "SmolLM2-135M answers 1 to 3 of 100 problems of GSM8K right"
_MOST = 600  # characters of a chain


@dataclass(frozen=True)
class DemoOptions:
    """Options of the demonstration."""

    out: Path = Path("runs/demo")
    """Folder of its runs; those of an earlier demonstration there are deleted."""
    limit: Size = 4
    """Problems of GSM8K."""


def main(argv: Sequence[str]) -> int:
    """Say what will be shown, run it, print the leaderboard, and write the page."""
    options = parse(DemoOptions, argv, "demo", (__doc__ or "").partition(": ")[2])
    started = time.perf_counter()
    _clear(options.out)
    for line in _plan(options):
        say(line)
    _mnns(options.out)
    try:
        _gsm8k(options.out, options.limit)
    except UsageError as error:
        say(f"GSM8K is left out: {error}")
    _tell(options.out, output())
    minutes = (time.perf_counter() - started) / 60
    say(f"{minutes:.1f} minutes; results, checkpoints and curves are in {options.out}")
    say(f"curves: tensorboard --logdir {options.out}; what else there is: latentgym --help")
    _page(options.out)
    return 0


def _plan(options: DemoOptions) -> list[str]:
    data = available(DATASETS["GSM8K"])
    lines = [
        "1. MNNS, a puzzle of signs: the commonest answer, a token chain, a chain of mixtures",
        f"2. GSM8K, {options.limit} problems for SmolLM2-135M: words, and mixtures of words",
        f"About two minutes on two processors. {_EXPECTED}, so look at what it says.",
    ]
    if data == "sample":
        lines.append(
            "GSM8K itself was not found, so made-up problems stand in for it, and one of them is "
            "shown in the place of a score. Real data is found "
            f"in ${DATA_VARIABLE} (put train.jsonl and test.jsonl of github.com/openai/"
            "grade-school-math into its folder gsm8k/), or on the Hugging Face hub."
        )
    return lines


def _clear(out: Path) -> None:
    """Delete an earlier demonstration.

    Raises:
        UsageError: there is something else.
    """
    if out.exists() and any(out.iterdir()) and not any(out.glob(f"mnns-*/{RESULT}")):
        raise UsageError(f"{out} holds something that is no demonstration; choose another --out.")
    shutil.rmtree(out, ignore_errors=True)


def _run(*argv: str) -> None:
    """One command line; what it prints on stdout is told at the end, once.

    Raises:
        UsageError: it failed, and has said why.
    """
    say(f"\n$ latentgym {' '.join(argv)}")
    with redirect_stdout(io.StringIO()):
        code = latentgym(list(argv))
    if code in _STOPPED:
        raise _STOPPED[code]
    if code != 0:
        raise UsageError(f"latentgym {argv[0]} {argv[1]} failed")


def _mnns(out: Path) -> None:
    """Chains from scratch."""
    words, latent = "latent/MNNS-token", "latent/MNNS-continuous"
    majority(words).save(out / "mnns-majority", [])
    sft = ["train", "cot", words, "--preset", "sft-tiny", "--save-every", "0"]
    _run(*sft, "--steps", "2000", "--out", str(out / "mnns-words"))
    csft = ["train", "mts-grpo", latent, "--preset", "csft", "--save-every", "0"]
    _run(*csft, "--steps", "2000", "--out", str(out / "mnns-mixtures"))


def _gsm8k(out: Path, limit: int) -> None:
    """A language model as it is: words against mixtures of words."""
    shared = ["--limit", str(limit), "--model", _MODEL]
    cot = ["eval", "cot", "latent/GSM8K-token", "-o", "force_answer=true", *shared]
    _run(*cot, "--out", str(out / "gsm8k-words"))
    soft = ["eval", "soft-thinking", "latent/GSM8K-continuous", *shared]
    _run(*soft, "--out", str(out / "gsm8k-mixtures"))


def _tell(out: Path, console: Console) -> None:
    """The tables, and what was said of a problem; scores of made-up problems are none."""
    found = find_results([out])
    say("")
    show([(folder, r) for folder, r in found if r.source != "sample"], console)
    language = [(folder, r) for folder, r in found if folder.name.startswith("gsm8k-")]
    for first, (folder, result) in enumerate(language):
        said = next(load_rollouts(folder))
        if first == 0:
            options = result.config["env_options"]
            task = make_vector_env(result.env, 1, **options).unwrapped.task
            console.print(shown(f"a problem of {result.task}, {result.source}"), style="bold")
            _line(console, "question", task.question(said["index"]).text)
            _line(console, "gold", said["target"])
        console.print()
        _line(console, folder.name, f"{said['n_thoughts']} thoughts; {_judged(said)}")
        _line(console, "thoughts", said["thoughts"])
    if language:
        console.print("\nMixtures are shown by the word nearest to each.", style="dim")


def _page(out: Path) -> None:
    """Write the page of all runs, where what it takes is installed."""
    try:
        PageOptions(html=out / PAGE).write(find_results([out]))
    except UsageError as error:
        say(f"the page is left out: {error}")


def _judged(said: dict[str, Any]) -> str:
    return f"answers {said['parsed'] or 'nothing'}, {'right' if said['score'] == 1 else 'wrong'}"


def _line(console: Console, name: str, text: str) -> None:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(width=len("gsm8k-mixtures"), style="dim")
    table.add_column(overflow="fold")
    table.add_row(name, shown(text, _MOST))
    console.print(table)


def majority(env_id: str) -> Result:
    """The record of answering every question with the commonest answer of the training split."""
    started = time.perf_counter()
    train = make_vector_env(env_id, 1, split="train").unwrapped.task
    test = make_vector_env(env_id, 1, split="test").unwrapped.task
    counts = Counter(train.question(i).gold for i in range(len(train)))
    guess = counts.most_common(1)[0][0]
    right = sum(test.grade(i, guess, guess).score for i in range(len(test)))
    wall = time.perf_counter() - started
    return Result(
        agent="majority",
        env=env_id,
        task=test.name,
        family=test.family.name,
        model="-",
        checkpoint=None,
        split=test.split,
        source=test.source,
        dataset_hash=test.dataset_hash,
        n=len(test),
        seeds=[0],
        accuracy=right / len(test),
        accuracy_ci95=list(wilson(right, len(test))),
        metrics={},
        thoughts_mean=0.0,
        tokens_mean=1.0,
        latent_share=0.0,
        forward_positions={"prompt": 0.0, "thought": 0.0, "answer": 0.0, "discarded": 0.0},
        flops_per_answer=0.0,
        wall_s=wall,
        answers_per_s=len(test) / wall,
        device="cpu",
        control=None,
        config={"env_options": {"split": "test"}},
    ).stamp()
