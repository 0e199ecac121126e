"""The main job, `make run`: latent against word chains on two real inputs, in under ten minutes.

First MNNS with a two-layer model from scratch: continuous supervised training and MTS-GRPO beside
discrete chains and the majority answer. Then SmolLM2-135M on GSM8K: plain chain of thought against
Soft Thinking. Everything goes through the command line, as a user would run it.
"""

from __future__ import annotations

import argparse
import shutil
import time
from collections import Counter
from pathlib import Path

from latentgym.cli.leaderboard import show
from latentgym.cli.main import main as latentgym
from latentgym.cli.options import output, say
from latentgym.registry import make_vector_env
from latentgym.results import Result, find_results
from latentgym.stats import wilson


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


def run(*argv: str) -> None:
    """One command line; stops the job where it fails."""
    say(f"\n$ latentgym {' '.join(argv)}")
    code = latentgym(list(argv))
    if code != 0:
        raise SystemExit(code)


def mnns(out: Path) -> None:
    """Chains from scratch on MNNS."""
    words, latent = "latent/MNNS-token", "latent/MNNS-continuous"
    majority(words).save(out / "mnns-majority", [])
    sft = ["train", "cot", words, "--preset", "sft-tiny", "--save-every", "0"]
    run(*sft, "--steps", "3000", "--out", str(out / "mnns-discrete"))
    csft = ["train", "mts-grpo", latent, "--preset", "csft", "--save-every", "0"]
    run(*csft, "--steps", "5000", "--out", str(out / "mnns-continuous"))
    # Policy gradient starts from an early-stopped chain of words, as the paper's does.
    early = ["train", "cot", words, "--model", "tiny:gpt2:1x1x24", "--steps", "6000"]
    slow = ["--optimisation.lr", "1e-3", "--optimisation.weight-decay", "0.1"]
    run(*early, *slow, "--save-every", "0", "--out", str(out / "mnns-early"))
    grpo = ["--checkpoint", str(out / "mnns-early"), "--steps", "300", "--save-every", "0"]
    run("train", "cot", words, "--preset", "grpo-tiny", *grpo, "--out", str(out / "mnns-grpo"))
    latent_grpo = ["train", "mts-grpo", latent, "--preset", "grpo", "-o", "arrow=true", *grpo]
    run(*latent_grpo, "--out", str(out / "mnns-mts-grpo"))


def gsm8k(out: Path, limit: int) -> None:
    """A language model as it is, on GSM8K: words against mixtures of words."""
    shared = ["--limit", str(limit), "--model", "smollm2-135m"]
    cot = ["eval", "cot", "latent/GSM8K-token", "-o", "force_answer=true", *shared]
    run(*cot, "--out", str(out / "gsm8k-cot"))
    run("eval", "soft-thinking", "latent/GSM8K-continuous", *shared,
        "--out", str(out / "gsm8k-soft-thinking"))  # fmt: skip


def main() -> None:
    """Run both, print the leaderboard."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/demo"))
    parser.add_argument("--limit", type=int, default=24, help="problems of GSM8K")
    options = parser.parse_args()
    started = time.perf_counter()
    shutil.rmtree(options.out, ignore_errors=True)
    mnns(options.out)
    gsm8k(options.out, options.limit)
    say("\nLeaderboard")
    show(find_results([options.out]), output())
    minutes = (time.perf_counter() - started) / 60
    say(f"\n{minutes:.1f} minutes; results, checkpoints and curves are in {options.out}")
    say(f"curves: tensorboard --logdir {options.out}")


if __name__ == "__main__":
    main()
