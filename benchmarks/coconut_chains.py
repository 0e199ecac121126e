"""Coconut and its controls on generated chains of equations, with small models from scratch.

As the paper does on GSM8K, all start from a model that has learnt the token chain, and the
curriculum has three stages with two latents for each step. Beside Coconut, at equal numbers of
training steps: a learned pause in the latents' places; the same curriculum with nothing there; and
the answer alone from the start.

python -m benchmarks.coconut_chains --out runs/coconut-chains --record benchmarks/records
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from benchmarks.suite import main
from latentgym.evaluation.suite import Cell

WORDS, HYBRID = "latent/GSM8KAug-token", "latent/GSM8KAug-hybrid"
DATA = ("-o", "source=generated", "-o", "max_operations=3", "-o", "largest=19")
MODEL = "tiny:qwen2:2x4x64"
STAGES, C = 3, 2
WORDS_STEPS, STAGE_STEPS = 800, 400
STEPS = (STAGES + 1) * STAGE_STEPS  # the first stage is words; behind the last all steps are gone


def curriculum(latents: int, first: int, *more: str) -> tuple[str, ...]:
    """A run of the curriculum, evaluated on the test split."""
    return (
        *("train", "coconut", HYBRID, *DATA, "-o", "exact_thoughts=true", "-o", f"think={latents}"),
        *("--stages", str(STAGES), "--first-stage", str(first)),
        *("--steps-per-stage", str(STAGE_STEPS), "--steps", str(STEPS), "--save-every", "0"),
        *("--batch-size", "64", "--optimisation.lr", "2e-3", "--optimisation.weight-decay", "0.1"),
        *more,
    )


def cells() -> Iterator[Cell]:
    """All figures; those of the paper are GPT-2's on GSM8K."""
    chain = ("--preset", "sft-tiny", "--model", MODEL, "--save-every", "0")
    words = ("train", "cot", WORDS, *DATA, "--steps", str(WORDS_STEPS), *chain)
    yield Cell("curriculum", "cot", words, 42.9)
    all_latents, none = STAGES * C, ("--thought", "none")
    for name, paper, argv in (
        ("coconut", 34.1, curriculum(all_latents, 1, "--c", str(C))),
        ("pause", 24.1, curriculum(all_latents, 1, "--c", str(C), "--thought", "pause")),
        ("no-thought", 21.6, curriculum(0, 1, *none)),
        ("no-cot", 16.5, curriculum(0, STAGES + 1, *none)),
    ):
        yield Cell("curriculum", name, argv, paper, start="cot")
    for control in ("zero", "shuffle", "noise"):
        replaced = ("eval", "coconut", HYBRID, *DATA, "-o", "exact_thoughts=true")
        options = ("-o", f"think={all_latents}", "--c", str(C), "--control", control)
        yield Cell("latents replaced", f"coconut-{control}", (*replaced, *options), start="coconut")


if __name__ == "__main__":
    main("coconut_chains", __doc__, list(cells()), Path("runs/coconut-chains"))
