"""HRPO on real questions with passages in the prompt, SmolLM2-135M and adapters: a short run.

Trained on the training questions of HotpotQA and 2WikiMultihopQA that are there, with two passages
of BM25's, and evaluated on the first HotpotQA dev questions before and after. Most groups of a
model of this size earn nothing in exact matches, so the score is F1, which tells more answers
apart; the run shows the method on a language model and real data, at a cost that two cores can
bear. Wants `$LATENTGYM_DATA`.

python -m benchmarks.hrpo_retrieval --out runs/hrpo-retrieval --record benchmarks/records
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from benchmarks.suite import main
from latentgym.evaluation.suite import Cell

STEPS = 8
ENV = "latent/HotpotQA-hybrid"


def cells() -> Iterator[Cell]:
    """The one run, and the model before it."""
    rules = (
        *("-o", "think=32", "-o", "answer=12", "-o", "format=sentence", "-o", "reward=f1"),
        *("-o", "passages=2", "-o", "passage_tokens=96", "--model", "smollm2-135m"),
    )
    train = (
        *("train", "hrpo", ENV, *rules, "--lora-r", "32", "--lora-alpha", "64"),
        *("--grpo.prompts", "4", "--steps", str(STEPS), "--log-every", "1", "--save-every", "4"),
        *("--eval-limit", "40"),
    )
    yield Cell("run", "hrpo", train, curve=True)
    yield Cell("run", "before", ("eval", "hrpo", ENV, *rules, "--limit", "40"))


if __name__ == "__main__":
    main("hrpo_retrieval", __doc__, list(cells()), Path("runs/hrpo-retrieval"), seeds=(0,))
