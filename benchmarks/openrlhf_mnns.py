"""MNNS through OpenRLHF: two workers on the CPU learn what the local backend learns.

MTS-GRPO from a briefly trained discrete chain, by both backends with the same settings and seeds.

python -m benchmarks.openrlhf_mnns --out runs/openrlhf-mnns --record benchmarks/records
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from benchmarks.suite import main
from latentgym.evaluation.suite import Cell

MODEL = "tiny:gpt2:1x1x24"
START_STEPS, STEPS = 3000, 100


def cells() -> Iterator[Cell]:
    """All figures."""
    start = (
        *("train", "cot", "latent/MNNS-token", "--model", MODEL, "--steps", str(START_STEPS)),
        *("--optimisation.lr", "1e-3", "--optimisation.weight-decay", "0.1", "--save-every", "0"),
    )
    yield Cell("start", "start", start)
    grpo = (
        *("train", "mts-grpo", "latent/MNNS-continuous", "--preset", "grpo", "-o", "arrow=true"),
        *("--steps", str(STEPS), "--save-every", "0", "--grpo.prompts", "64"),
    )
    yield Cell("figures", "local", grpo, start="start")
    two = ("--backend", "openrlhf", "--gpus", "2")
    yield Cell("figures", "openrlhf-2", (*grpo, *two), start="start")


if __name__ == "__main__":
    main("openrlhf_mnns", __doc__, list(cells()), Path("runs/openrlhf-mnns"))
