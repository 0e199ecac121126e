"""CoT2 on ProsQA (arXiv 2505.23648): continuous chain, discrete chain, no chain.

Training graphs are generated; the test questions are the released ones where `$LATENTGYM_DATA` has
them. All models learn in the same stages and steps: small graphs, where edges come to be looked up;
whole graphs; and whole graphs again, which CoT2 reads with its own mixtures.

python -m benchmarks.cot2_prosqa --out runs/cot2-prosqa --record benchmarks/records
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from benchmarks.suite import main
from latentgym.evaluation.suite import Cell

WORDS, LATENT = "latent/ProsQA-token", "latent/ProsQA-continuous"
# Of an odd number of heads every one has keys and values of its own, which is what lets edges be
# looked up soon. The paper's model is GPT-2 of 4 layers, 4 heads and width 32.
MODEL = "tiny:qwen2:2x3x96"
SMALL_STEPS, WHOLE_STEPS, LAST_STEPS = 2500, 2500, 2500


def stage(env: str, steps: int, *more: str) -> tuple[str, ...]:
    """One stage of supervised training, with the targets on prompts."""
    agent = "cot" if env == WORDS else "mts-grpo"
    return (
        *("train", agent, env, "--steps", str(steps), "--save-every", "500"),
        *("--batch-size", "32", "--dropout", "0", "--prompt-weight", "1"),
        *("--optimisation.lr", "3e-3", "--optimisation.beta2", "0.98"),
        *("--optimisation.weight-decay", "0.05", "-o", "edge_end=true", *more),
    )


def cells() -> Iterator[Cell]:
    """All figures."""
    kinds: tuple[tuple[str, str, float, tuple[str, ...], tuple[str, ...]], ...] = (
        ("cot2", LATENT, 93.37, (), ("--own-mixtures", "1")),
        ("discrete", WORDS, 68.50, (), ()),
        ("no-cot", WORDS, 54.91, ("-o", "think=0"), ()),
    )
    for name, env, paper, always, last in kinds:
        small = stage(env, SMALL_STEPS, "-o", "slots=10", "--model", MODEL, *always)
        yield Cell("stages", f"{name}-small", small)
        whole = stage(env, WHOLE_STEPS, *always)
        yield Cell("stages", f"{name}-whole", whole, start=f"{name}-small")
        yield Cell("figures", name, stage(env, LAST_STEPS, *always, *last), paper, f"{name}-whole")


if __name__ == "__main__":
    main("cot2_prosqa", __doc__, list(cells()), Path("runs/cot2-prosqa"))
