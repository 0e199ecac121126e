"""HRPO on real GSM8K with SmolLM2-135M and adapters: a short run, for its curve.

A model of this size answers a few in a hundred, so most groups have nothing to tell apart; the run
shows the method on a language model and real data, at a cost that two cores can bear. Wants
`$LATENTGYM_DATA`.

python -m benchmarks.hrpo_gsm8k --out runs/hrpo-gsm8k --record benchmarks/records
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from benchmarks.suite import main
from latentgym.evaluation.suite import Cell

STEPS = 12


def cells() -> Iterator[Cell]:
    """The one run, evaluated on the first test questions before and after."""
    rules = ("-o", "think=160", "--model", "smollm2-135m")
    train = (
        *("train", "hrpo", "latent/GSM8K-hybrid", *rules, "--lora-r", "32", "--lora-alpha", "64"),
        *("--grpo.prompts", "4", "--steps", str(STEPS), "--log-every", "1", "--save-every", "4"),
        *("--eval-limit", "40"),
    )
    yield Cell("run", "hrpo", train, curve=True)
    before = ("eval", "hrpo", "latent/GSM8K-hybrid", *rules, "--limit", "40")
    yield Cell("run", "before", before)


if __name__ == "__main__":
    main("hrpo_gsm8k", __doc__, list(cells()), Path("runs/hrpo-gsm8k"), seeds=(0,))
