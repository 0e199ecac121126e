"""HRPO and CoLaR on generated chains of equations, with small models from scratch.

A token chain is learnt first, by ordinary supervised training. HRPO and token GRPO go on from a
model that was stopped early, with equal samples, steps and settings. CoLaR goes on from one that
was trained longer: it learns compressed chains, and policy gradient at speed 2; every speed from 1
to 5 is evaluated before and after, in the form of the paper's Table 1.

python -m benchmarks.hybrid_chains --out runs/hybrid-chains --record benchmarks/records
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from benchmarks.suite import main
from latentgym.evaluation.suite import Cell

WORDS, HYBRID = "latent/GSM8KAug-token", "latent/GSM8KAug-hybrid"
DATA = ("-o", "source=generated", "-o", "max_operations=3", "-o", "largest=19")
MODEL = "tiny:qwen2:2x4x64"
EARLY_STEPS, WHOLE_STEPS = 550, 800
HRPO_STEPS, COLAR_SFT_STEPS, COLAR_GRPO_STEPS = 150, 1500, 200
SPEEDS = (1, 2, 3, 4, 5)
# What both policy gradients have in common; the rest of HRPO's settings is its preset.
SHARED = ("--optimisation.lr", "3e-4", "--grpo.prompts", "64", "--grpo.group-size", "8")


def train(agent: str, env: str, steps: int, *more: str) -> tuple[str, ...]:
    """One training run, evaluated on the test split."""
    return ("train", agent, env, *DATA, "--steps", str(steps), "--save-every", "0", *more)


def cells() -> Iterator[Cell]:
    """All figures."""
    chain = ("--preset", "sft-tiny", "--model", MODEL)
    yield Cell("start", "cot-early", train("cot", WORDS, EARLY_STEPS, *chain))
    yield Cell("start", "cot", train("cot", WORDS, WHOLE_STEPS, *chain))

    words = (
        *("--preset", "grpo-tiny", *SHARED),
        *("--grpo.kl", "0.005", "--grpo.mean", "sequence", "--grpo.advantage", "group_norm_trl"),
    )
    token = train("cot", WORDS, HRPO_STEPS, *words)
    yield Cell("hrpo", "token-grpo", token, start="cot-early")
    hybrid = train("hrpo", HYBRID, HRPO_STEPS, "--preset", "tiny", *SHARED)
    yield Cell("hrpo", "hrpo", hybrid, start="cot-early")
    for control in ("word", "zero", "shuffle", "noise"):
        evaluate = ("eval", "hrpo", HYBRID, *DATA, "--preset", "tiny", "--control", control)
        yield Cell("hrpo", f"hrpo-{control}", evaluate, start="hrpo")

    sft = train("colar-grpo", HYBRID, COLAR_SFT_STEPS, "--preset", "sft-tiny")
    yield Cell("colar", "colar-sft", sft, start="cot")
    grpo = train("colar-grpo", HYBRID, COLAR_GRPO_STEPS, "--preset", "grpo-tiny")
    yield Cell("colar", "colar-grpo", grpo, start="colar-sft")
    for start, name in (("colar-sft", "sft"), ("colar-grpo", "grpo")):
        for c in SPEEDS:
            at = ("eval", "colar-grpo", HYBRID, *DATA, "--speed", str(c))
            yield Cell("colar", f"{name}-c{c}", at, start=start)
    for control in ("zero", "pause", "shuffle", "noise"):
        evaluate = ("eval", "colar-grpo", HYBRID, *DATA, "--control", control)
        yield Cell("colar", f"colar-{control}", evaluate, start="colar-grpo")
    for name, more in {
        "dl": ("--deterministic",),
        "mp": ("--pooling", "mean"),
        "nll": ("--latent-loss", "nll"),
    }.items():
        other = train("colar-grpo", HYBRID, COLAR_SFT_STEPS, "--preset", "sft-tiny", *more)
        yield Cell("ablations", f"colar-{name}", other, start="cot")


if __name__ == "__main__":
    runs, seeds = Path("runs/hybrid-chains"), (0, 1, 2, 3, 4)
    main("hybrid_chains", __doc__, list(cells()), runs, seeds)
