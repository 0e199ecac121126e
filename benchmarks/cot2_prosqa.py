"""CoT2 on ProsQA (arXiv 2505.23648): continuous chain, discrete chain, no chain.

Training graphs are generated; the test questions are the released ones where `$LATENTGYM_DATA` has
them. All three models learn in the same stages: edges are looked up on small graphs first.

python -m benchmarks.cot2_prosqa --out runs/cot2-prosqa --record benchmarks/records
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from benchmarks.suite import Cell, main

WORDS, LATENT = "latent/ProsQA-token", "latent/ProsQA-continuous"
MODEL = "tiny:qwen2:2x2x64"
LOOKUP_STEPS, STEPS = 2000, 1200


def stage(env: str, steps: int, *more: str) -> tuple[str, ...]:
    """One stage of supervised training, with the targets on prompts."""
    agent = "cot" if env == WORDS else "mts-grpo"
    return (
        *("train", agent, env, "--steps", str(steps), "--save-every", "500"),
        *("--batch-size", "32", "--dropout", "0", "--prompt-weight", "1"),
        *("--optimisation.lr", "4e-3", "--optimisation.weight-decay", "0.05"),
        *("-o", "edge_end=true", "-o", "size=6000", *more),
    )


def cells() -> Iterator[Cell]:
    """All figures."""
    kinds: tuple[tuple[str, str, float, tuple[str, ...], tuple[str, ...]], ...] = (
        ("cot2", LATENT, 93.37, (), ("--own-mixtures", "1")),
        ("discrete", WORDS, 68.50, (), ()),
        ("no-cot", WORDS, 54.91, ("-o", "think=0"), ()),
    )
    for name, env, paper, both, last in kinds:
        first = stage(env, LOOKUP_STEPS, "-o", "slots=10", "--model", MODEL, *both)
        yield Cell("small", f"{name}-small", first)
        yield Cell("whole", name, stage(env, STEPS, *both, *last), paper, f"{name}-small")


if __name__ == "__main__":
    main("cot2_prosqa", __doc__, list(cells()), Path("runs/cot2-prosqa"))
