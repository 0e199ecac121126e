"""GRPO and HRPO on a generated encyclopedia, with small models from scratch: to search, to read.

A model first learns, by supervised training that is stopped early, to write a query, read the
passage that comes back, and answer (search as an action), or to read three passages in its prompt.
Policy gradient in words and HRPO go on from there, with equal samples, steps and settings. Passages
are found by Lucene.

python -m benchmarks.encyclopedia --out runs/encyclopedia --record benchmarks/records
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from benchmarks.suite import main
from latentgym.evaluation.suite import Cell

WORDS, HYBRID = "latent/NQ-token", "latent/NQ-hybrid"
MODEL = "tiny:qwen2:2x4x64"
DATA = ("-o", "source=generated", "-o", "engine=lucene")
MODES = {
    "search": ("-o", "search=action", "-o", "passages=1"),
    "read": ("-o", "search=prompt", "-o", "passages=3"),
}
START_STEPS = {"search": 450, "read": 650}
STEPS = 60
SHARED = (
    *("--optimisation.lr", "1e-3", "--grpo.prompts", "64", "--grpo.group-size", "8"),
    *("--grpo.kl", "0.005", "--grpo.mean", "sequence", "--grpo.advantage", "group_norm_trl"),
)


def cells() -> Iterator[Cell]:
    """A start and what comes of it, for either mode."""
    for mode, options in MODES.items():

        def train(
            agent: str, env: str, steps: int, *more: str, options: tuple[str, ...] = options
        ) -> tuple[str, ...]:
            counts = ("--steps", str(steps), "--save-every", "0", "--log-every", "10")
            return ("train", agent, env, *DATA, *options, *counts, *more)

        begin = ("--preset", "sft-tiny", "--model", MODEL)
        yield Cell(mode, f"{mode}-start", train("cot", WORDS, START_STEPS[mode], *begin))
        token = train("cot", WORDS, STEPS, "--preset", "grpo-tiny", *SHARED)
        yield Cell(mode, f"{mode}-grpo", token, start=f"{mode}-start")
        hybrid = train("hrpo", HYBRID, STEPS, "--preset", "tiny", *SHARED)
        yield Cell(mode, f"{mode}-hrpo", hybrid, start=f"{mode}-start")


if __name__ == "__main__":
    main("encyclopedia", __doc__, list(cells()), Path("runs/encyclopedia"), seeds=(0, 1, 2, 3, 4))
