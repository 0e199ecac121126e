"""`latentgym demo`: latent against word chains, on a puzzle and on a language model.

First MNNS with a two-layer model from scratch: thoughts in superposition beside a chain of words,
and the answer that is right most often. Then SmolLM2-135M on GSM8K: plain chain of thought against
Soft Thinking. Everything goes through the command line, as a user would run it.
"""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from latentgym.cli.leaderboard import show
from latentgym.cli.main import Terminated
from latentgym.cli.main import main as latentgym
from latentgym.cli.options import output, parse, say
from latentgym.data import DATASETS, available
from latentgym.data.sources import DATA_VARIABLE
from latentgym.errors import UsageError
from latentgym.ranges import Size
from latentgym.registry import make_vector_env
from latentgym.results import RESULT, Result, find_results
from latentgym.stats import wilson

_STOPPED = {130: KeyboardInterrupt, 143: Terminated}
_MODEL = "smollm2-135m"


@dataclass(frozen=True)
class DemoOptions:
    """Options of the demonstration."""

    out: Path = Path("runs/demo")
    """Folder of its runs; those of an earlier demonstration there are deleted."""
    limit: Size = 8
    """Problems of GSM8K."""


def main(argv: Sequence[str]) -> int:
    """Say what will be shown, run it, and print the leaderboard."""
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
    say("")
    show(find_results([options.out]), output())
    minutes = (time.perf_counter() - started) / 60
    say(f"{minutes:.1f} minutes; results, checkpoints and curves are in {options.out}")
    say(f"curves: tensorboard --logdir {options.out}; what else there is: latentgym --help")
    return 0


def _plan(options: DemoOptions) -> list[str]:
    data = available(DATASETS["GSM8K"])
    lines = [
        "1. MNNS, a puzzle of signs: the commonest answer, a chain of words, a chain of mixtures",
        f"2. GSM8K, {options.limit} problems for SmolLM2-135M: words, and mixtures of words",
        "About two minutes on two processors.",
    ]
    if data == "sample":
        lines.append(
            "GSM8K itself was not found, so made-up problems stand in for it. Real data is found "
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
    """One command line.

    Raises:
        UsageError: it failed, and has said why.
    """
    say(f"\n$ latentgym {' '.join(argv)}")
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
