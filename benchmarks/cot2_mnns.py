"""CoT2 on MNNS (arXiv 2505.23648): supervised comparison, path budgets, MTS-GRPO, pass@k.

python -m benchmarks.cot2_mnns --parts a b --out runs/cot2 --record benchmarks/records
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from benchmarks.suite import main
from latentgym.evaluation.suite import Cell

WORDS, LATENT = "latent/MNNS-token", "latent/MNNS-continuous"
SUPERVISED_STEPS, GRPO_STEPS, EARLY_STEPS, CONVERGED_STEPS = 10_000, 500, 6_000, 20_000


def supervised(env: str, width: int, *more: str, steps: int = SUPERVISED_STEPS) -> tuple[str, ...]:
    """Supervised training of the two-layer two-head model of that width."""
    words = env == WORDS
    agent = ("cot", env, "--preset", "sft-tiny") if words else ("mts-grpo", env)
    model = ("--model", f"tiny:gpt2:2x2x{width}")
    return ("train", *agent, *model, "--steps", str(steps), "--save-every", "2000", *more)


def one_layer(width: int, steps: int) -> tuple[str, ...]:
    """The discrete one-layer one-head model that policy gradient starts from."""
    return (
        *("train", "cot", WORDS, "--model", f"tiny:gpt2:1x1x{width}", "--steps", str(steps)),
        *("--optimisation.lr", "1e-3", "--optimisation.weight-decay", "0.1"),
        *("--save-every", "2000"),
    )


def grpo(k: int) -> tuple[str, ...]:
    """MTS-GRPO with K samples from a discrete model; K = 1 is token GRPO."""
    return (
        *("train", "mts-grpo", LATENT, "--preset", "grpo", "--k", str(k), "-o", "arrow=true"),
        *("--steps", str(GRPO_STEPS), "--save-every", "100", "--log-every", "50"),
    )


def cells() -> Iterator[Cell]:
    """All figures."""
    yield Cell("a", "cot2-w32", supervised(LATENT, 32), paper=98.94)
    yield Cell("b", "discrete-w32", supervised(WORDS, 32), paper=84.92)
    yield Cell("b", "no-cot-w32", supervised(WORDS, 32, "-o", "think=0"), paper=68.35)
    budgets = {
        (1, 16): 55.48, (1, 24): 70.43,
        (4, 16): 64.20, (4, 24): 88.31, (4, 32): 99.04,
        (16, 16): 55.27, (16, 24): 96.56,
    }  # fmt: skip
    for (paths, width), paper in budgets.items():
        argv = supervised(LATENT, width, "-o", f"paths={paths}")
        yield Cell("c", f"budget-{paths}-w{width}", argv, paper)
    rewards = {
        24: (39.76, {1: 49.01, 3: 52.60, 6: 49.69}),
        32: (43.50, {1: 51.61, 3: 55.66, 6: 50.38}),
    }
    for width, (before, after) in rewards.items():
        for stage, steps in (("early", EARLY_STEPS), ("converged", CONVERGED_STEPS)):
            start = f"sft-{stage}-w{width}"
            early = stage == "early"
            yield Cell("d", start, one_layer(width, steps), before if early else None)
            for k, paper in after.items():
                name = f"grpo-{stage}-w{width}-k{k}"
                yield Cell("d", name, grpo(k), paper if early else None, start)
    sampled = (
        *("eval", "cot", WORDS, "--model", "tiny:gpt2:1x1x24", "--samples", "16"),
        *("--vote", "first", "--temperature", "1.0"),
    )
    yield Cell("e", "pass-at-k-discrete-w24", sampled, 30.28, "sft-early-w24")
    one_shot = (
        *("train", "mts-grpo", LATENT, "--model", "tiny:gpt2:1x1x24"),
        *("--steps", str(SUPERVISED_STEPS), "--save-every", "2000"),
    )
    yield Cell("e", "cot2-1l1h-w24", one_shot, 88.61)


if __name__ == "__main__":
    main("cot2_mnns", __doc__, list(cells()), Path("runs/cot2"))
